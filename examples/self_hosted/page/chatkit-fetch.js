// The `fetch` for ChatKit's `api`: sends the session's secret with each request, renews it in time,
// and once more after a 401. 429 and 503 are for the widget to show.
export function createChatKitFetch({ sessionUrl = "/api/chatkit/session", sessionHeaders = {} } = {}) {
  let secret = null;
  let renewAt = 0; // by performance.now(): the clock on the wall may be wrong
  let renewing = null; // parallel requests wait for the same renewal

  async function renew(current = secret) {
    const response = await fetch(current ? `${sessionUrl}/refresh` : sessionUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...sessionHeaders },
      body: JSON.stringify(current ? { currentClientSecret: current } : {}),
    });
    if (current && response.status >= 400 && response.status < 500) return renew(null); // not refreshed
    if (response.status === 401) secret = null; // signed out
    if (!response.ok) return response;
    const session = await response.json();
    const now = Date.parse(response.headers.get("Date")) || Date.now(); // the server's clock
    const lifetime = Date.parse(session.expires_at) - now;
    secret = session.client_secret;
    renewAt = performance.now() + lifetime - Math.min(30_000, lifetime / 2);
    return response;
  }
  const renewOnce = () => (renewing ??= renew().finally(() => (renewing = null)));

  return async function chatkitFetch(url, options = {}) {
    function send() {
      const headers = new Headers(options.headers);
      headers.set("Authorization", `Bearer ${secret}`);
      return fetch(url, { ...options, headers });
    }
    if (!secret || performance.now() >= renewAt) {
      const renewal = await renewOnce();
      if (!renewal.ok) return renewal.clone();
    }
    const used = secret;
    const response = await send();
    if (response.status !== 401) return response;
    if (secret === used) {
      const renewal = await renewOnce();
      if (!renewal.ok) return renewal.clone();
    }
    return send();
  };
}
