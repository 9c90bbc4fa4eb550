// Asks the backend for a session: a new one, or one with another secret in place of the current one.
export async function requestSession(current) {
  const answer = await fetch(current ? "/api/chatkit/session/refresh" : "/api/chatkit/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(current ? { currentClientSecret: current } : {}),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.message ?? `No chat session (${answer.status}).`);
  return told; // client_secret, expires_at, session_id
}

// Ends all of the user's sessions: what to call when the user signs out.
export async function endSessions() {
  const answer = await fetch("/api/chatkit/session", { method: "DELETE" });
  if (!answer.ok) throw new Error(`The sessions go on (${answer.status}).`);
}
