import { ChatKit, useChatKit } from "@openai/chatkit-react";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

import { createChatKitFetch } from "./chatkit-fetch.js";

function Chat() {
  const [chatkitFetch] = useState(createChatKitFetch);
  const { control } = useChatKit({
    api: { url: "/chatkit", domainKey: "local", fetch: chatkitFetch },
  });
  return <ChatKit control={control} />;
}

function Page() {
  const [user, setUser] = useState();

  useEffect(() => {
    fetch("/login").then(async (response) => setUser((await response.json()).user));
  }, []);

  const signIn = async (name) => {
    const response = await fetch(`/login/${name}`, { method: "POST" });
    setUser((await response.json()).user);
  };
  const signOut = async () => {
    await fetch("/api/chatkit/session", { method: "DELETE" }); // while the backend knows whose
    await fetch("/login", { method: "DELETE" });
    setUser(null);
  };

  if (user === undefined) return null;
  return (
    <>
      <header>
        <h1>A chat on a server of your own</h1>
        {user ? (
          <button onClick={signOut}>Sign out {user}</button>
        ) : (
          ["ada", "bob"].map((name) => (
            <button key={name} onClick={() => signIn(name)}>
              Sign in as {name}
            </button>
          ))
        )}
      </header>
      {user ? <Chat key={user} /> : <p>Nobody is signed in.</p>}
    </>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
