"""A program that makes one session: prints when, and its peak memory and processor time by then.

It imports next to nothing itself, as all that is imported for the session is to be measured.
"""

import resource
import sys
import time

KEY = "sk-benchmark-0123456789abcdef"
USER = "user-of-the-benchmark"
WORKFLOW = "wf_benchmark"
PATH = "/chatkit/sessions"
HEADERS = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "chatkit_beta=v1"}
BODY: dict[str, object] = {"user": USER, "workflow": {"id": WORKFLOW}}


def ours(url: str) -> str:
    """This library."""
    from chatkit_sessions import ChatKitClient  # noqa: PLC0415 -- part of what is measured

    client = ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=url)
    return client.create_session(USER).client_secret.get_secret_value()


def httpx_and_pydantic(url: str) -> str:
    """What an application would write without a library."""
    import httpx  # noqa: PLC0415 -- part of what is measured
    from pydantic import BaseModel  # noqa: PLC0415 -- part of what is measured

    class Session(BaseModel):
        id: str
        client_secret: str
        expires_at: int

    answer = httpx.Client().post(url + PATH, json=BODY, headers=HEADERS)
    return Session.model_validate(answer.json()).client_secret


def openai(url: str) -> str:
    """The official SDK."""
    from openai import OpenAI  # noqa: PLC0415 -- part of what is measured

    client = OpenAI(api_key=KEY, base_url=url, max_retries=0)
    session = client.beta.chatkit.sessions.create(user=USER, workflow={"id": WORKFLOW})
    return session.client_secret


PROGRAMS = {"ours": ours, "httpx + pydantic": httpx_and_pydantic, "openai": openai}


def main() -> None:
    """Run the program that the command line names."""
    secret = PROGRAMS[sys.argv[1]](sys.argv[2])
    now, cpu = time.monotonic(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not secret.startswith("ek_"):
        sys.exit("that is no session")
    print(now, peak if sys.platform == "darwin" else peak * 1024, cpu)


if __name__ == "__main__":
    main()
