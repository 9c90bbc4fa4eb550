"""Neither the API key nor a client secret appears anywhere that somebody may read."""

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Callable
from typing import cast
from urllib.parse import quote

import httpx
import pytest

from chatkit_sessions import APITimeoutError, AsyncChatKitClient, ChatKitClient, ChatKitError
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    EndpointRequest,
    EndpointResponse,
)
from chatkit_sessions.testing import FakeChatKit
from secrets_shown import assert_silent, everything_shown
from support import KEY, NEW_SECRET, SECRET, Connect, Script, Time, ok, refused, session_json
from workers import inner

ECHO = (
    f"You sent {KEY} and {SECRET} and got {NEW_SECRET} "
    f"(JSON {json.dumps(SECRET)}, URL {quote(SECRET)})"
)


def echoing_error(_: httpx.Request) -> httpx.Response:
    return httpx.Response(
        400,
        json={
            "error": {"message": ECHO, "type": ECHO, "param": ECHO, "code": ECHO, "extra": ECHO},
            "api_key": KEY,
            KEY: [SECRET],
        },
        headers={"x-request-id": KEY, "content-type": f"application/json; key={KEY}"},
    )


def echoing_html(_: httpx.Request) -> httpx.Response:
    return httpx.Response(502, html=f"<p>{ECHO}</p>", headers={"x-request-id": SECRET})


def echoing_redirect(_: httpx.Request) -> httpx.Response:
    return httpx.Response(302, headers={"location": f"https://x.test/{KEY}/{SECRET}?k={KEY}"})


def broken_success(_: httpx.Request) -> httpx.Response:
    body = session_json(expires_at="soon", client_secret=NEW_SECRET, **{KEY: SECRET})
    return httpx.Response(200, json=body, headers={"x-request-id": f"{KEY}{NEW_SECRET}"})


def broken_workflow(_: httpx.Request) -> httpx.Response:
    workflow: dict[str, object] = {"id": "wf_test", "state_variables": {KEY: [SECRET], SECRET: {}}}
    return httpx.Response(200, json=session_json(workflow=workflow))


def success(_: httpx.Request) -> httpx.Response:
    return ok()


def not_json(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text=ECHO, headers={"content-type": f"text/plain; {KEY}"})


def connection_error(request: httpx.Request) -> httpx.Response:
    raise httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}'", request=request)


def timeout(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout(ECHO, request=request)


@pytest.mark.parametrize(
    "answer",
    [
        echoing_error,
        echoing_html,
        echoing_redirect,
        broken_success,
        broken_workflow,
        not_json,
        connection_error,
        timeout,
    ],
)
@pytest.mark.parametrize("call", ["create", "get or create", "refresh", "get", "delete"])
def test_no_error_and_no_log_shows_a_secret(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[httpx.Request], httpx.Response],
    call: str,
) -> None:
    chatkit = connect(Script([answer]), max_retries=1)
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: chatkit.create_session("user_123"),
        "get or create": lambda: chatkit.get_or_create_session("user_123"),
        "refresh": lambda: chatkit.refresh_session(SECRET, user="user_123"),
        "get": lambda: chatkit.get_session("cksess_new"),
        "delete": lambda: chatkit.delete_session("cksess_new"),
    }

    error: ChatKitError | None = None
    with caplog.at_level(logging.DEBUG, "chatkit_sessions"):
        try:
            calls[call]()
        except ChatKitError as caught:
            error = caught

    if error is not None:
        assert_silent(everything_shown(error))
        assert_silent(everything_shown(pickle.loads(pickle.dumps(error))))  # noqa: S301 -- ours
        assert_silent(everything_shown(copy.copy(error)))
    ours = [record for record in caplog.records if record.name == "chatkit_sessions"]
    assert ours
    assert_silent(text for record in ours for text in (record.getMessage(), repr(vars(record))))


@pytest.mark.parametrize(
    "answer", [echoing_error, broken_success, not_json, connection_error, timeout]
)
@pytest.mark.parametrize("call", ["get or create", "refresh", "delete", "delete all"])
def test_no_error_and_no_log_shows_a_secret_that_is_shared(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[httpx.Request], httpx.Response],
    call: str,
) -> None:
    """The store's session, NEW_SECRET, is in the hands of our frames when the API fails."""
    chatkit = connect(Script([ok(), answer]), max_retries=0)
    session = chatkit.get_or_create_session("user_123")
    calls: dict[str, Callable[[], object]] = {
        "get or create": lambda: chatkit.get_or_create_session("user_123", min_remaining=599.9),
        "refresh": lambda: chatkit.refresh_session(session.client_secret, user="user_123"),
        "delete": lambda: chatkit.delete_session(session.id),
        "delete all": lambda: chatkit.delete_sessions("user_123"),
    }
    connect.time.advance(1)

    with (
        caplog.at_level(logging.DEBUG, "chatkit_sessions"),
        pytest.raises(ChatKitError) as caught,
    ):
        calls[call]()

    assert_silent(everything_shown(caught.value))
    ours = [record for record in caplog.records if record.name == "chatkit_sessions"]
    assert_silent(text for record in ours for text in (record.getMessage(), repr(vars(record))))


def test_no_model_shows_a_secret(connect: Connect) -> None:
    answer = httpx.Response(
        200,
        json=session_json(
            debug={"seen": ECHO, "api_key": "short", "list": [ECHO]}, session_token="a", note=ECHO
        ),
        headers={"x-request-id": KEY},
    )

    session = connect(Script([answer])).create_session("user_123")

    assert session.client_secret.get_secret_value() == NEW_SECRET
    assert session.model_extra is not None
    assert session.model_extra["note"] == ECHO, "kept, for whoever asks for it by name"
    shown = (
        repr(session),
        str(session),
        repr(session.model_dump()),
        repr(session.model_dump(mode="json")),
        session.model_dump_json(),
        repr(session.request_id),
        "%r" % session.client_secret,  # noqa: UP031 -- one more way to print
    )
    assert_silent(iter(shown))
    assert "short" not in "".join(shown)
    assert '"session_token":"**********"' in session.model_dump_json()


@pytest.mark.parametrize("secret", [NEW_SECRET, "opaque/New-SECRET"])
def test_no_model_shows_a_secret_that_a_known_field_repeats(connect: Connect, secret: str) -> None:
    answer = httpx.Response(
        200,
        json=session_json(
            client_secret=secret,
            object=secret,
            status=f"seen {SECRET}",
            novelty=f"Bearer {KEY}",
            workflow={"id": "wf_test", "version": secret, "state_variables": {"note": secret}},
        ),
    )

    session = connect(Script([answer])).create_session("user_123")

    shown = "".join(
        (
            f"{session!r} {session} {session.model_dump()} {session.model_dump(mode='json')}",
            session.model_dump_json(),
        )
    )
    assert_silent(iter([shown]))
    assert secret not in shown
    assert session.model_extra == {"novelty": f"Bearer {KEY}"}, "kept, for who asks by name"


def test_no_info_shows_a_secret_that_a_known_field_repeats(connect: Connect) -> None:
    info = connect(Script([ok(user=f"{NEW_SECRET} {KEY}")])).get_session("cksess_new")

    assert_silent(iter([f"{info!r} {info} {info.model_dump()} {info.model_dump_json()}"]))


def test_no_client_shows_its_key(connect: Connect) -> None:
    chatkit = connect(Script([ok()]))

    assert_silent(iter((repr(chatkit), str(chatkit), repr(chatkit._sessions.calls.settings))))


def test_an_answer_that_comes_too_late_shows_no_secret(connect: Connect, time: Time) -> None:
    def late(_: httpx.Request) -> httpx.Response:
        time.advance(31)
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(session_json()).encode()))

    with pytest.raises(APITimeoutError) as caught:
        connect(Script([late]), timeout=30, max_retries=0).create_session("user_123")

    assert_silent(everything_shown(caught.value))


@pytest.mark.parametrize("make", [ChatKitClient, AsyncChatKitClient])
@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "http://remote.test/v1"},
        {"base_url": "https://user:pass@chatkit.test/v1"},
        {"organization": "a\nb"},
        {"timeout": -1},
        {"max_retries": -1},
        {"http_client": object()},
    ],
)
def test_no_refusal_to_make_a_client_shows_the_key(
    make: Callable[..., object], wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    for arguments in ({}, {"api_key": KEY}):
        with pytest.raises(ChatKitError) as caught:
            make(**arguments, **wrong)

        assert_silent(everything_shown(caught.value))


@pytest.mark.parametrize("key", [f" {KEY}", f'"{KEY}"', f"{KEY}\n", f"Bearer {KEY}", f"{KEY}\x00"])
@pytest.mark.parametrize("source", ["argument", "environment", "callable", "with_options"])
def test_no_refusal_of_a_key_shows_it(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, key: str, source: str
) -> None:
    if source == "environment" and "\x00" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)

    def use() -> None:
        if source == "with_options":
            connect(Script([ok()])).with_options(api_key=key)
        given = {"argument": key, "environment": None, "callable": lambda: key}.get(source, key)
        connect(Script([ok()]), api_key=given).create_session("user_123")

    with pytest.raises(ChatKitError) as caught:
        use()

    assert_silent(everything_shown(caught.value))


def test_bytes_are_refused_without_being_shown(connect: Connect) -> None:
    def as_key() -> None:
        connect(Script([ok()]), api_key=KEY.encode())

    def from_a_callable() -> None:
        connect(Script([ok()]), api_key=KEY.encode).create_session("user_123")

    def as_secret() -> None:
        secret = cast("str", SECRET.encode())
        connect(Script([ok()])).refresh_session(secret, user="user_123")

    def with_a_surrogate() -> None:
        connect(Script([ok()])).refresh_session(SECRET + "\ud800", user="user_123")

    for use in (as_key, from_a_callable, as_secret, with_a_surrogate):
        with pytest.raises(ChatKitError) as caught:
            use()

        assert_silent(everything_shown(caught.value))


def test_no_refusal_of_an_argument_shows_a_secret(connect: Connect) -> None:
    chatkit = connect(Script([ok()]))
    calls: list[Callable[[], object]] = [
        lambda: chatkit.refresh_session(SECRET, user=""),
        lambda: chatkit.refresh_session(SECRET, user="u", expires_after=0),
        lambda: chatkit.refresh_session(SECRET + "\ud800", user="u"),
        lambda: chatkit.get_session(SECRET),
        lambda: chatkit.delete_session(KEY),
        lambda: chatkit.create_session("u", workflow_id=f" {KEY}"),
        lambda: chatkit.create_session("u", history=SECRET),  # type: ignore[arg-type]  # wrong
        lambda: chatkit.create_session("u", state_variables={"x" * 65: NEW_SECRET}),
    ]

    for call in calls:
        with pytest.raises(ChatKitError) as caught:
            call()

        told = (repr(caught.value), str(caught.value), repr(vars(caught.value)))
        assert_silent(iter(told))


ENDPOINT_REQUEST = EndpointRequest(
    method="POST",
    path="/session/refresh",
    url="http://shop.test/api/chatkit/session/refresh",
    headers={"content-type": "application/json"},
    body=json.dumps({"currentClientSecret": SECRET}).encode(),
)


@pytest.mark.parametrize(
    "answer",
    [
        echoing_error,
        echoing_html,
        broken_success,
        not_json,
        connection_error,
        timeout,
        success,
    ],
)
def test_the_endpoint_shows_a_secret_to_the_page_alone(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    with caplog.at_level(logging.DEBUG, "chatkit_sessions"):
        told = ask_endpoint(connect, Script([answer]))

    assert SECRET.encode() not in told.body
    assert (NEW_SECRET.encode() in told.body) == (told.status_code == 200)
    assert b"req" not in told.body
    assert_silent(iter([repr(told), repr(ENDPOINT_REQUEST), str(told.headers)]))
    ours = [record for record in caplog.records if record.name == "chatkit_sessions"]
    assert_silent(text for record in ours for text in (record.getMessage(), repr(vars(record))))


def test_an_interrupt_in_the_endpoint_shows_no_secret_to_traceback_printers(
    connect: Connect,
) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        ask_endpoint(connect, Script([interrupt]))

    assert_silent(everything_shown(caught.value))


def ask_endpoint(connect: Connect, script: Script) -> EndpointResponse:
    client = inner(connect(script))
    if isinstance(client, ChatKitClient):
        return ChatKitEndpoint(client).handle(ENDPOINT_REQUEST, user="user_123")
    endpoint = AsyncChatKitEndpoint(client)
    return asyncio.run(endpoint.handle(ENDPOINT_REQUEST, user="user_123"))


def test_a_broken_connection_shows_no_secret_to_traceback_printers(fake: FakeChatKit) -> None:
    with fake.serve() as server:
        gone = server.url

    async def use() -> None:
        async with AsyncChatKitClient(
            api_key=KEY, workflow_id="wf_test", base_url=gone, max_retries=0
        ) as chatkit:
            await chatkit.refresh_session(SECRET, user="user_123")

    def use_sync() -> None:
        with ChatKitClient(
            api_key=KEY, workflow_id="wf_test", base_url=gone, max_retries=0
        ) as chatkit:
            chatkit.refresh_session(SECRET, user="user_123")

    def use_async() -> None:
        asyncio.run(use())

    for call in (use_async, use_sync):
        with pytest.raises(ChatKitError) as caught:
            call()

        assert_silent(everything_shown(caught.value))


def test_a_refused_answer_of_the_api_still_says_something(connect: Connect) -> None:
    answer = refused(400, f"The key {KEY} is bad.")

    with pytest.raises(ChatKitError, match=r"The key \*+ is bad\."):
        connect(Script([answer])).create_session("user_123")
