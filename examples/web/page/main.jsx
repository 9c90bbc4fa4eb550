import { ChatKit, useChatKit } from "@openai/chatkit-react";
import { useCallback, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

import { endSessions, requestSession } from "./session.js";

const time = (moment) => new Date(moment).toLocaleTimeString("en-GB");

function Chat({ tell }) {
  const { control } = useChatKit({
    api: {
      // The widget calls it with null first, and with the current secret when that nears its end.
      async getClientSecret(current) {
        try {
          const session = await requestSession(current);
          const what = current ? "Another secret" : "The first secret";
          tell(`${what}, which works until ${time(session.expires_at)}.`);
          return session.client_secret;
        } catch (error) {
          tell(`No secret: ${error.message}`, "trouble");
          throw error;
        }
      },
    },
  });
  return <ChatKit control={control} />;
}

function Page() {
  const [user, setUser] = useState();
  const [events, setEvents] = useState([]);
  const tell = useCallback(
    (text, kind) => setEvents((before) => [...before, { at: time(Date.now()), text, kind }]),
    [],
  );

  useEffect(() => {
    fetch("/login").then(async (answer) => setUser((await answer.json()).user));
  }, []);

  const signIn = async () => {
    const answer = await fetch("/login", { method: "POST" });
    setUser((await answer.json()).user);
    tell("Signed in.");
  };
  const signOut = async () => {
    try {
      await endSessions(); // first: the backend has to know whose they are
      tell("Signed out: every secret has stopped working.");
    } catch (error) {
      tell(error.message, "trouble");
    }
    await fetch("/login", { method: "DELETE" });
    setUser(null);
  };

  if (user === undefined) return null;
  return (
    <>
      <header>
        <h1>A chat for those who are signed in</h1>
        {user ? (
          <button onClick={signOut}>Sign out</button>
        ) : (
          <button onClick={signIn}>Sign in as Ada</button>
        )}
      </header>
      {user ? <Chat tell={tell} /> : <p>Nobody is signed in.</p>}
      <h2>What happened</h2>
      <ol>
        {events.map(({ at, text, kind }, index) => (
          <li key={index} className={kind}>
            {at} {text}
          </li>
        ))}
      </ol>
    </>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
