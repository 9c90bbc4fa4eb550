"""What the clients send is what the package's description of the API allows."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from chatkit_sessions import ChatKitClient, FileUpload, History, InvalidRequestError
from contract import assert_request_holds, assert_response_holds
from support import Connect, Script, ok

CALLS: dict[str, Callable[[ChatKitClient], object]] = {
    "the least": lambda chatkit: chatkit.create_session("u"),
    "the most": lambda chatkit: chatkit.create_session(
        "user_123",
        workflow_id="wf_1",
        workflow_version="3",
        state_variables={"text": "a", "integer": 1, "number": 0.5, "boolean": True},
        tracing=False,
        expires_after=timedelta(minutes=10),
        max_requests_per_1_minute=1,
        file_upload={"enabled": True, "max_file_size": 512, "max_files": 1},
        history={"enabled": True, "recent_threads": 1},
        automatic_thread_titling=True,
    ),
    "booleans": lambda chatkit: chatkit.create_session("u", file_upload=False, history=True),
    "cancel": lambda chatkit: chatkit.delete_session("cksess_new"),
    "refresh": lambda chatkit: chatkit.refresh_session("ek_1", user="user_123"),
    "get": lambda chatkit: chatkit.get_session("cksess_new"),
}


def assert_holds(request: httpx.Request) -> None:
    assert_request_holds(request.method, str(request.url), dict(request.headers), request.content)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_requests_hold(connect: Connect, call: Callable[[ChatKitClient], object]) -> None:
    script = Script([ok(status="cancelled", user=None, workflow=None)])

    call(connect(script))

    for request in script.requests:  # a refresh that does not succeed creates, too
        assert_holds(request)


# Around every bound, on both sides of it.
around = st.integers(-1, 3) | st.integers(510, 514) | st.integers(598, 603)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user=st.text(max_size=3),
    seconds=st.none() | around,
    limit=st.none() | around,
    upload=st.none()
    | st.booleans()
    | st.builds(FileUpload, max_file_size=around, max_files=around),
    history=st.none() | st.booleans() | st.builds(History, recent_threads=around),
    state=st.none()
    | st.dictionaries(
        st.text(max_size=66),
        st.text(max_size=3) | st.integers() | st.floats() | st.booleans(),
        max_size=3,
    ),
)
def test_whatever_is_not_refused_holds(
    *,
    user: str,
    seconds: int | None,
    limit: int | None,
    upload: bool | FileUpload | None,
    history: bool | History | None,
    state: dict[str, str | int | float | bool] | None,
) -> None:
    script = Script([ok(user=None, workflow=None)])
    http = httpx.Client(transport=httpx.MockTransport(script))

    with http, ChatKitClient(api_key="sk-1", workflow_id="wf_1", http_client=http) as chatkit:
        try:
            chatkit.create_session(
                user,
                expires_after=seconds,
                max_requests_per_1_minute=limit,
                file_upload=upload,
                history=history,
                state_variables=state,
            )
        except InvalidRequestError:
            assert script.requests == []
            return

    assert_holds(script.requests[0])


def test_the_suites_own_answers_hold() -> None:
    answer = ok(
        chatkit_configuration={
            "automatic_thread_titling": {"enabled": True},
            "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
            "history": {"enabled": True, "recent_threads": None},
        }
    )

    assert_response_holds(
        "POST",
        "https://api.openai.com/v1/chatkit/sessions",
        answer.status_code,
        dict(answer.headers),
        answer.content,
    )
