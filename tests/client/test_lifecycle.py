"""Making, sharing and closing clients: keys, HTTP clients, threads, tasks, event loops."""

import asyncio
import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
import trio
from pydantic import SecretBytes, SecretStr

from chatkit_sessions import (
    AsyncChatKitClient,
    ChatKitClient,
    ConfigurationError,
    InternalServerError,
)
from chatkit_sessions._api.protocol import Response
from chatkit_sessions._client.async_client import AsyncIO
from chatkit_sessions._concurrency.tasks import PerLoop
from chatkit_sessions._http.async_network import connect
from chatkit_sessions._http.own_client import OwnClient
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.testing import FakeChatKit, FakeServer
from support import BASE_URL, KEY, WORKFLOW, Connect, Script, ok, refused, session_json
from workers import inner


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc, which is not here"
)


# Keys


def test_a_missing_key_is_told_when_the_client_is_made(connect: Connect) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY") as caught:
        connect(Script([ok()]), api_key=None)

    assert "https://platform.openai.com/api-keys" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "flaw"),
    [
        (" sk-1234567", "white space"),
        ("sk-1234567 ", "white space"),
        ('"sk-1234567"', "quotes"),
        ("'sk-1234567'", "quotes"),
        ("sk-1234567\n", "line break"),
        ("sk-123\r\n4567", "line break"),
        ("", "is empty"),
        ("Bearer sk-1234567", "Bearer"),
        ("*******", "masked"),
        ("sk-1234\x00567", "control character"),
        (17, "must be a string, a SecretStr or a callable"),
    ],
)
def test_a_key_that_cannot_be_one_is_named_for_what_it_is(
    connect: Connect, key: object, flaw: str
) -> None:
    with pytest.raises(ConfigurationError, match=flaw) as caught:
        connect(Script([ok()]), api_key=key)

    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, SecretStr(KEY), lambda: KEY, lambda: SecretStr(KEY)])
def test_a_key_comes_in_many_forms(connect: Connect, key: object) -> None:
    script = Script([ok()])

    connect(script, api_key=key).create_session("user_123")

    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_callable_is_asked_at_each_attempt(connect: Connect) -> None:
    keys = iter(["sk-1", "sk-2", "sk-3"])
    script = Script([refused(500), ok()])
    chatkit = connect(script, api_key=lambda: next(keys))

    chatkit.create_session("user_123")
    chatkit.create_session("user_123")

    sent = [request.headers["authorization"] for request in script.requests]
    assert sent == ["Bearer sk-1", "Bearer sk-2", "Bearer sk-3"]


@pytest.mark.parametrize("key", [None, "", " sk-1", 17])
def test_what_a_callable_returns_is_checked(connect: Connect, key: object) -> None:
    script = Script([ok()])

    with pytest.raises(ConfigurationError, match="`api_key`"):
        connect(script, api_key=lambda: key).create_session("user_123")

    assert script.requests == []


def test_an_error_of_the_callable_is_the_callers_own(connect: Connect) -> None:
    def broken() -> str:
        raise LookupError("the vault is sealed")

    with pytest.raises(LookupError, match="vault"):
        connect(Script([ok()]), api_key=broken).create_session("user_123")


def test_the_async_client_awaits_an_async_callable() -> None:
    script = Script([ok()])

    async def key() -> SecretStr:
        return SecretStr(KEY)

    async def main() -> None:
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(script)) as http,
            AsyncChatKitClient(api_key=key, workflow_id=WORKFLOW, http_client=http) as chatkit,
        ):
            await chatkit.create_session("user_123")

    asyncio.run(main())

    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("make", ["coroutine", "future-like"])
def test_the_sync_client_says_that_it_cannot_await(make: str) -> None:
    async def coroutine() -> str:
        return KEY

    class FutureLike:
        def __await__(self) -> Generator[None, None, str]:  # pragma: no cover -- never awaited
            yield
            return KEY

    source = cast("Callable[[], str]", coroutine if make == "coroutine" else FutureLike)

    with (
        ChatKitClient(api_key=source, workflow_id=WORKFLOW) as chatkit,
        pytest.raises(ConfigurationError, match="AsyncChatKitClient"),
    ):
        chatkit.create_session("user_123")


@pytest.mark.parametrize(
    "base_url",
    [
        "https://" + "a" * 64 + ".test",
        "https://" + "a." * 127 + "test",
        "https://a..b",
        "https://.",
        "https://-.test",
        "https://%41.test",
        "https://ho|st",
        "https://h\\x/",
        "https://[fe80::1%25eth0]/",
        "https://xn--.test",
        "https://chatkit.test/" + "x" * 70_000,
    ],
)
def test_a_host_that_cannot_exist_is_refused_when_the_client_is_made(
    connect: Connect, base_url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot exist|cannot be called"):
        connect(Script([ok()]), base_url=base_url)


@pytest.mark.parametrize("make", [ChatKitClient, AsyncChatKitClient])
@pytest.mark.parametrize("clock", [datetime.now, lambda: 5, "noon"])
@pytest.mark.parametrize("store", [None, MemorySessionStore()], ids=["its own store", "another"])
def test_a_clock_that_tells_no_moment_is_refused_when_the_client_is_made(
    make: Callable[..., object], clock: object, store: MemorySessionStore | None
) -> None:
    with pytest.raises(ConfigurationError, match="`clock` must be a function"):
        make(api_key=KEY, clock=clock, store=store)


# HTTP clients


def test_a_supplied_http_client_is_used_as_it_is_and_stays_open(connect: Connect) -> None:
    script = Script([ok()])
    http = connect.http_client(
        transport=httpx.MockTransport(script), headers={"x-team": "chat"}, auth=("user", "pass")
    )
    chatkit = connect_with(connect, http)

    chatkit.create_session("user_123")
    chatkit.close()

    assert script.requests[0].headers["x-team"] == "chat"
    assert script.requests[0].headers["authorization"] == f"Bearer {KEY}", "not the client's auth"
    assert not cast("httpx.Client", http).is_closed


def test_an_http_client_of_the_other_kind_is_refused_by_type_checkers_and_at_once() -> None:
    """mypy reports an ignored error that is none: these two lines are its test."""

    async def main() -> None:
        async with httpx.AsyncClient() as http:
            with pytest.raises(ConfigurationError, match=r"AsyncChatKitClient takes this one"):
                ChatKitClient(api_key=KEY, http_client=http)  # type: ignore[arg-type]  # the wrong kind

    asyncio.run(main())
    with (
        httpx.Client() as http,
        pytest.raises(ConfigurationError, match=r"\bChatKitClient takes this one"),
    ):
        AsyncChatKitClient(api_key=KEY, http_client=http)  # type: ignore[arg-type]  # the wrong kind


@pytest.mark.parametrize("make", [ChatKitClient, AsyncChatKitClient])
def test_what_is_no_http_client_is_refused_at_once(make: Callable[..., object]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"must be an httpx\.(Async)?Client or .*, not a string"
    ):
        make(api_key=KEY, http_client="https://proxy.test")


def test_a_closed_http_client_says_so(connect: Connect) -> None:
    http = connect.http_client(transport=httpx.MockTransport(Script([ok()])))
    chatkit = connect_with(connect, http)
    if isinstance(http, httpx.Client):
        http.close()
    else:
        asyncio.run(cast("httpx.AsyncClient", http).aclose())

    with pytest.raises(RuntimeError, match="closed"):
        chatkit.create_session("user_123")


def connect_with(connect: Connect, http_client: object) -> ChatKitClient:
    make = ChatKitClient if connect.kind == "sync" else AsyncChatKitClient
    client = cast("Callable[..., ChatKitClient]", make)(
        api_key=KEY, workflow_id=WORKFLOW, base_url=BASE_URL, http_client=http_client
    )
    return connect.adopt(client)


def test_keeps_no_cookies(connect: Connect, fake: FakeChatKit, server: FakeServer) -> None:
    fake.fail_next(500, headers={"set-cookie": "session=someone; Path=/"})
    chatkit = connect(api_key=server.api_key, base_url=server.url, max_retries=0)

    with pytest.raises(InternalServerError):
        chatkit.create_session("user_123")
    chatkit.create_session("user_123")

    assert "cookie" not in fake.requests[-1].headers


def test_calls_to_this_machine_go_through_no_proxy(
    connect: Connect, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    chatkit = connect(api_key=server.api_key, base_url=server.url, max_retries=0)

    assert chatkit.create_session("user_123").status == "active"


# Closing


def test_a_closed_client_says_what_to_do(connect: Connect, server: FakeServer) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    session = chatkit.create_session("user_123")

    chatkit.close()
    chatkit.close()

    calls: list[Callable[[], object]] = [
        lambda: chatkit.create_session("user_123"),
        lambda: chatkit.refresh_session(session.client_secret, user="user_123"),
        lambda: chatkit.get_session(session.id),
        lambda: chatkit.delete_session(session.id),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"closed\. Keep one open"):
            call()


def test_closing_while_a_key_is_asked_for_opens_nothing_again(connect: Connect) -> None:
    script = Script([ok()])
    clients: list[ChatKitClient] = []

    def key() -> str:
        clients[0]._sessions.calls.lifetime.close()
        return KEY

    chatkit = connect(script, api_key=key)
    clients.append(chatkit)

    with pytest.raises(RuntimeError, match="closed"):
        chatkit.create_session("user_123")

    assert script.requests == []


def test_a_closed_client_does_not_answer_from_records_either(connect: Connect) -> None:
    chatkit = connect(Script([ok(), httpx.Response(405)]))
    session = chatkit.create_session("user_123")
    chatkit.get_session(session.id)
    chatkit.close()

    with pytest.raises(RuntimeError, match="closed"):
        chatkit.get_session(session.id)


class Entered:
    """A client of either kind in a `with` block of its kind."""

    def __init__(self, chatkit: ChatKitClient) -> None:
        self._client: Any = inner(chatkit)
        runner: Any = getattr(chatkit, "_runner", None)
        self._run: Callable[[Any], object] | None = None if runner is None else runner.run

    def __enter__(self) -> None:
        if self._run is None:
            self._client.__enter__()
        else:
            self._run(self._client.__aenter__())

    def __exit__(self, *_: object) -> None:
        if self._run is None:
            self._client.__exit__(None, None, None)
        else:
            self._run(self._client.__aexit__(None, None, None))


@pytest.mark.parametrize("supplied", [False, True], ids=["own connections", "supplied client"])
def test_a_client_is_open_within_each_of_its_blocks(
    connect: Connect, server: FakeServer, *, supplied: bool
) -> None:
    http = connect.http_client() if supplied else None
    chatkit = connect(api_key=server.api_key, base_url=server.url, http_client=http)

    before = chatkit.get_or_create_session("user_123")

    for _ in range(3):
        with Entered(chatkit):
            assert chatkit.create_session("user_123").status == "active"
        with pytest.raises(RuntimeError, match="is closed"):
            chatkit.create_session("user_123")

    with Entered(chatkit):
        assert chatkit.get_or_create_session("user_123") == before, "it remembers its sessions"
    if supplied:
        assert not cast("httpx.Client", http).is_closed


def test_a_client_closes_with_the_last_of_several_blocks(
    connect: Connect, server: FakeServer
) -> None:
    """As lifespans of invocations that overlap."""
    chatkit = connect(api_key=server.api_key, base_url=server.url)

    with Entered(chatkit):
        with Entered(chatkit):
            chatkit.create_session("user_123")
        chatkit.create_session("user_123")
        with Entered(chatkit):
            chatkit.close()
            with pytest.raises(RuntimeError, match="is closed"):
                chatkit.create_session("user_123")
    with pytest.raises(RuntimeError, match="is closed"):
        chatkit.create_session("user_123")


def test_so_does_one_with_other_options(connect: Connect, server: FakeServer) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    tenant = chatkit.with_options(timeout=5)

    for _ in range(2):
        with Entered(tenant):
            tenant.create_session("user_123")
        with pytest.raises(RuntimeError, match="is closed"):
            tenant.create_session("user_123")
        chatkit.create_session("user_123")

    chatkit.close()
    for _ in range(2):
        with Entered(tenant):
            tenant.create_session("user_123")
        for each in (tenant, chatkit):
            with pytest.raises(RuntimeError, match="is closed"):
                each.create_session("user_123")
    with Entered(tenant), Entered(chatkit):
        tenant.create_session("user_123")


@needs_proc
def test_closing_leaves_nothing_open(fake: FakeChatKit) -> None:
    async def use_async(url: str) -> None:
        async with AsyncChatKitClient(
            api_key=fake.api_key, workflow_id=WORKFLOW, base_url=url
        ) as chatkit:
            await asyncio.gather(*(chatkit.create_session(f"u{n}") for n in range(20)))

    def use_both() -> None:
        with fake.serve() as server:
            with ChatKitClient(
                api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url
            ) as chatkit:
                chatkit.create_session("user_123")
            asyncio.run(use_async(server.url))

    use_both()  # what is opened once and for all is open now
    gc.collect()
    descriptors, threads = open_descriptors(), set(threading.enumerate())

    use_both()

    gc.collect()
    assert open_descriptors() == descriptors
    assert not set(threading.enumerate()) - threads


# with_options


def test_other_options_on_the_same_connections(connect: Connect) -> None:
    script = Script([ok(workflow={"id": "wf_tenant"}), ok()])
    chatkit = connect(script, organization="org-1", project="proj_1")

    tenant = chatkit.with_options(
        api_key="sk-tenant", workflow_id="wf_tenant", organization="org-2", project="proj_2"
    )
    tenant.create_session("user_123")
    chatkit.create_session("user_123")

    theirs, ours = script.requests
    assert theirs.headers["authorization"] == "Bearer sk-tenant"
    assert theirs.headers["openai-organization"] == "org-2"
    assert theirs.headers["openai-project"] == "proj_2"
    assert script.body(0)["workflow"] == {"id": "wf_tenant"}
    assert ours.headers["authorization"] == f"Bearer {KEY}"
    assert ours.headers["openai-project"] == "proj_1"
    assert script.body(1)["workflow"] == {"id": WORKFLOW}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_client_cannot_be_copied_and_says_what_to_do(
    connect: Connect, duplicate: Callable[[object], object]
) -> None:
    """Frameworks copy settings, and dataclasses.asdict copies what a dataclass holds."""
    client = inner(connect())

    with pytest.raises(TypeError, match=rf"make one {type(client).__name__} per process"):
        duplicate(client)


def test_options_can_be_taken_away(connect: Connect) -> None:
    script = Script([ok()])
    chatkit = connect(script, organization="org-1", project="proj_1", timeout=3)

    plain = chatkit.with_options(organization=None, project=None, timeout=None)
    plain.create_session("user_123")

    (request,) = script.requests
    assert "openai-organization" not in request.headers
    assert "openai-project" not in request.headers
    assert request.extensions["timeout"]["read"] is None


def test_other_retries(connect: Connect) -> None:
    script = Script([refused(500)])

    with pytest.raises(InternalServerError):
        connect(script).with_options(max_retries=0).create_session("user_123")

    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": " sk-1"},
        {"api_key": None},
        {"organization": "a\nb"},
        {"organization": ""},
        {"project": "ü"},
        {"project": 3},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"max_retries": -1},
    ],
)
def test_other_options_are_checked_at_once(connect: Connect, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        connect(Script([ok()])).with_options(**options)


def test_closing_the_derived_client_leaves_the_first_one_open(
    connect: Connect, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    tenant = chatkit.with_options(timeout=5)

    tenant.close()

    assert chatkit.create_session("user_123").status == "active"
    with pytest.raises(RuntimeError, match="closed"):
        tenant.create_session("user_123")


def test_closing_the_first_client_ends_the_derived_one(
    connect: Connect, server: FakeServer
) -> None:
    chatkit = connect(api_key=server.api_key, base_url=server.url)
    tenant = chatkit.with_options(timeout=5).with_options(timeout=6)

    chatkit.close()

    with pytest.raises(RuntimeError, match="closed"):
        tenant.create_session("user_123")


# Threads, tasks, event loops


def test_many_threads_share_one_sync_client(fake: FakeChatKit, server: FakeServer) -> None:
    with (
        ChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=server.url) as chatkit,
        ThreadPoolExecutor(32) as threads,
    ):
        ours = chatkit.with_options(api_key=fake.api_key)
        users = [f"user_{n}" for n in range(320)]
        sessions = list(threads.map(ours.create_session, users))

    assert [session.user for session in sessions] == users
    assert len({session.client_secret.get_secret_value() for session in sessions}) == 320


def test_many_tasks_share_one_async_client(fake: FakeChatKit, server: FakeServer) -> None:
    users = [f"user_{n}" for n in range(200)]

    async def main() -> list[str | None]:
        async with AsyncChatKitClient(
            api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url
        ) as chatkit:
            sessions = await asyncio.gather(*(chatkit.create_session(user) for user in users))
            return [session.user for session in sessions]

    assert asyncio.run(main()) == users


@needs_proc
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_async_client_works_in_one_event_loop_after_another(
    fake: FakeChatKit, backend: str
) -> None:
    """As Django's async_to_sync, Celery and pytest run it, and never closed by them."""

    def use() -> None:
        with fake.serve() as server:
            chatkit = AsyncChatKitClient(
                api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url, max_retries=0
            )

            async def view() -> None:
                session = await chatkit.create_session("user_123")
                await chatkit.refresh_session(session.client_secret, user="user_123")

            for _ in range(5):
                anyio.run(view, backend=backend)

    use()  # what is opened once and for all is open now
    gc.collect()
    descriptors, threads = open_descriptors(), set(threading.enumerate())

    use()

    gc.collect()
    assert open_descriptors() == descriptors
    assert not set(threading.enumerate()) - threads
    fake.assert_created(user="user_123", times=10)


def test_event_loops_may_run_side_by_side(fake: FakeChatKit, server: FakeServer) -> None:
    chatkit = AsyncChatKitClient(
        api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url, max_retries=0
    )

    async def create(user: str) -> str | None:
        return (await chatkit.create_session(user)).user

    def in_a_loop_of_its_own(user: str) -> str | None:
        return asyncio.run(create(user))

    users = [f"user_{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(in_a_loop_of_its_own, users)) == users


def test_a_loop_that_was_closed_without_ceremony_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def respond(*_: object, **__: object) -> Response:
        body = SecretBytes(json.dumps(session_json()).encode())
        return Response(200, {}, body)

    def make() -> OwnClient:  # without sockets: nothing to warn of
        client = OwnClient(connect, None, is_async=True)
        monkeypatch.setattr(client, "send", respond)
        return client

    chatkit = AsyncChatKitClient(api_key=KEY, workflow_id=WORKFLOW, base_url=BASE_URL)
    io = chatkit._sessions.io
    assert isinstance(io, AsyncIO)
    held = io.http
    assert isinstance(held, PerLoop)
    held._make = make

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(chatkit.create_session("user_123"))
        loop.close()

    assert len(held._held) == 1


def test_works_under_trio(fake: FakeChatKit, server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncChatKitClient(
            api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url
        ) as chatkit:
            fake.fail_next(500, headers={"retry-after-ms": "1"})
            session = await chatkit.create_session("user_123", timeout=None)
            refreshed = await chatkit.refresh_session(session.client_secret, user="user_123")
            await chatkit.delete_session(refreshed.id)
            assert (await chatkit.get_session(refreshed.id)).status == "cancelled"

    trio.run(main)


def test_closing_a_client_that_never_called_is_harmless(connect: Connect) -> None:
    connect().close()


def test_the_real_sleep_lets_time_pass(fake: FakeChatKit, server: FakeServer) -> None:
    """One millisecond each: the default sleep of both clients, which other tests replace."""
    fake.fail_next(500, headers={"retry-after-ms": "1"}, times=1)
    with ChatKitClient(api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url) as chatkit:
        assert chatkit.create_session("user_123").status == "active"

    async def main() -> None:
        fake.fail_next(500, headers={"retry-after-ms": "1"}, times=1)
        async with AsyncChatKitClient(
            api_key=fake.api_key, workflow_id=WORKFLOW, base_url=server.url
        ) as chatkit:
            assert (await chatkit.create_session("user_123")).status == "active"

    asyncio.run(main())


def test_a_repr_shows_where_calls_go_and_no_key(connect: Connect) -> None:
    chatkit = connect(Script([ok()]), organization="org-1")

    text = repr(chatkit)

    assert text.endswith(
        f"ChatKitClient(base_url={BASE_URL!r}, workflow_id={WORKFLOW!r}, organization='org-1', "
        "project=None)"
    )
    assert KEY not in text
