"""Arguments become exactly the request of the contract, or a refusal that helps."""

import enum
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Unpack
from urllib.parse import unquote

import pytest
from hypothesis import given, strategies as st
from pydantic import SecretStr, ValidationError

from chatkit_sessions._api import operations
from chatkit_sessions._api.arguments import (
    create_body,
    validate_call_timeout,
    validate_user,
    validate_workflow_id,
)
from chatkit_sessions._api.operations import Operation
from chatkit_sessions._api.refresh import RejectedSession, refresh as refresh_operation
from chatkit_sessions._config.validation import validate_client_secret
from chatkit_sessions.errors import InvalidRequestError
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
)
from chatkit_sessions.options import SessionOptions, StateVariable

SECRET = "ek_Presented0123456789"
SECONDS = 1_795_341_600


def options(**given: object) -> SessionOptions:
    """Every option, left to the API unless given; values of any type, as untyped callers pass."""
    every: Any = {
        "workflow_version": None,
        "state_variables": None,
        "tracing": None,
        "expires_after": None,
        "max_requests_per_1_minute": None,
        "file_upload": None,
        "history": None,
        "automatic_thread_titling": None,
        **given,
    }
    chosen: SessionOptions = every
    return chosen


def body_of(operation: Operation[Any]) -> Any:  # noqa: ANN401 -- any JSON
    assert operation.body is not None
    return json.loads(operation.body.get_secret_value())


def created(**given: object) -> Any:  # noqa: ANN401 -- any JSON
    return body_of(operations.create("user_1", workflow_id="wf_1", options=options(**given)))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        call()
    assert caught.value.__cause__ is None
    return caught.value.message


class TestCreate:
    def test_without_options_it_sends_user_and_workflow_only(self) -> None:
        operation = operations.create("user_1", workflow_id="wf_1", options=options())

        assert (operation.method, operation.path) == ("POST", "/chatkit/sessions")
        assert body_of(operation) == {"workflow": {"id": "wf_1"}, "user": "user_1"}
        assert operation.secrets == ()

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ({"workflow_version": "3"}, {"workflow": {"id": "wf_1", "version": "3"}}),
            (
                {"state_variables": {"s": "x", "i": 1, "f": 1.5, "t": True, "": ""}},
                {
                    "workflow": {
                        "id": "wf_1",
                        "state_variables": {"s": "x", "i": 1, "f": 1.5, "t": True, "": ""},
                    }
                },
            ),
            ({"state_variables": {}}, {"workflow": {"id": "wf_1", "state_variables": {}}}),
            ({"tracing": True}, {"workflow": {"id": "wf_1", "tracing": {"enabled": True}}}),
            ({"tracing": False}, {"workflow": {"id": "wf_1", "tracing": {"enabled": False}}}),
            (
                {"expires_after": 300},
                {"expires_after": {"anchor": "created_at", "seconds": 300}},
            ),
            (
                {"expires_after": timedelta(minutes=5)},
                {"expires_after": {"anchor": "created_at", "seconds": 300}},
            ),
            (
                {"max_requests_per_1_minute": 7},
                {"rate_limits": {"max_requests_per_1_minute": 7}},
            ),
            (
                {"automatic_thread_titling": False},
                {"chatkit_configuration": {"automatic_thread_titling": {"enabled": False}}},
            ),
            (
                {"file_upload": True},
                {"chatkit_configuration": {"file_upload": {"enabled": True}}},
            ),
            (
                {"file_upload": False},
                {"chatkit_configuration": {"file_upload": {"enabled": False}}},
            ),
            (
                {"file_upload": {"max_file_size": 20}},
                {"chatkit_configuration": {"file_upload": {"enabled": True, "max_file_size": 20}}},
            ),
            (
                {"file_upload": {"enabled": False, "max_files": 3}},
                {"chatkit_configuration": {"file_upload": {"enabled": False, "max_files": 3}}},
            ),
            ({"history": True}, {"chatkit_configuration": {"history": {"enabled": True}}}),
            ({"history": False}, {"chatkit_configuration": {"history": {"enabled": False}}}),
            (
                {"history": {"recent_threads": 5}},
                {"chatkit_configuration": {"history": {"recent_threads": 5}}},
            ),
            (
                {"history": {"enabled": True, "recent_threads": 5}},
                {"chatkit_configuration": {"history": {"enabled": True, "recent_threads": 5}}},
            ),
        ],
        ids=str,
    )
    def test_an_option_alone_is_sent_alone(
        self, given: dict[str, object], sent: dict[str, object]
    ) -> None:
        assert created(**given) == {"workflow": {"id": "wf_1"}, "user": "user_1", **sent}

    def test_all_options_together(self) -> None:
        sent = created(
            workflow_version="3",
            state_variables={"plan": "pro"},
            tracing=False,
            expires_after=600,
            max_requests_per_1_minute=1,
            file_upload={"enabled": True, "max_file_size": 512, "max_files": 1},
            history={"enabled": True, "recent_threads": 1},
            automatic_thread_titling=True,
        )

        assert sent == {
            "workflow": {
                "id": "wf_1",
                "version": "3",
                "state_variables": {"plan": "pro"},
                "tracing": {"enabled": False},
            },
            "user": "user_1",
            "expires_after": {"anchor": "created_at", "seconds": 600},
            "rate_limits": {"max_requests_per_1_minute": 1},
            "chatkit_configuration": {
                "automatic_thread_titling": {"enabled": True},
                "file_upload": {"enabled": True, "max_file_size": 512, "max_files": 1},
                "history": {"enabled": True, "recent_threads": 1},
            },
        }

    def test_what_the_caller_passed_is_left_as_it_is(self) -> None:
        state, upload = {"a": 1}, {"max_files": 2}

        created(state_variables=state, file_upload=upload)

        assert (state, upload) == ({"a": 1}, {"max_files": 2})

    def test_its_answer_is_a_session(self) -> None:
        operation = operations.create("user_1", workflow_id="wf_1", options=options())

        session = operation.parse({"id": "s", "client_secret": "x", "expires_at": SECONDS})

        assert isinstance(session, ChatKitSessionResponse)
        with pytest.raises(ValidationError):
            operation.parse({"id": "s", "expires_at": SECONDS})

    def test_its_repr_does_not_hold_the_body(self) -> None:
        operation = operations.create(
            "user_1", workflow_id="wf_1", options=options(state_variables={"a": "confidential"})
        )

        assert "confidential" not in repr(operation)
        assert "user_1" not in repr(operation)


class Number(enum.IntEnum):
    FIVE = 5


WITHIN: dict[str, tuple[dict[str, object], Callable[[Any], object], object]] = {
    "expires_after-least": (
        {"expires_after": 1},
        lambda body: body["expires_after"]["seconds"],
        1,
    ),
    "expires_after-most": (
        {"expires_after": 600},
        lambda body: body["expires_after"]["seconds"],
        600,
    ),
    "expires_after-timedelta": (
        {"expires_after": timedelta(seconds=600)},
        lambda body: body["expires_after"]["seconds"],
        600,
    ),
    "expires_after-enum": (
        {"expires_after": Number.FIVE},
        lambda body: body["expires_after"]["seconds"],
        5,
    ),
    "max_requests-least": (
        {"max_requests_per_1_minute": 1},
        lambda body: body["rate_limits"]["max_requests_per_1_minute"],
        1,
    ),
    "max_requests-most": (
        {"max_requests_per_1_minute": 2**63 - 1},
        lambda body: body["rate_limits"]["max_requests_per_1_minute"],
        2**63 - 1,
    ),
    "max_file_size-least": (
        {"file_upload": {"max_file_size": 1}},
        lambda body: body["chatkit_configuration"]["file_upload"]["max_file_size"],
        1,
    ),
    "max_file_size-most": (
        {"file_upload": {"max_file_size": 512}},
        lambda body: body["chatkit_configuration"]["file_upload"]["max_file_size"],
        512,
    ),
    "max_files-least": (
        {"file_upload": {"max_files": 1}},
        lambda body: body["chatkit_configuration"]["file_upload"]["max_files"],
        1,
    ),
    "recent_threads-least": (
        {"history": {"recent_threads": 1}},
        lambda body: body["chatkit_configuration"]["history"]["recent_threads"],
        1,
    ),
    "state_variables-most": (
        {"state_variables": {str(n): n for n in range(64)}},
        lambda body: len(body["workflow"]["state_variables"]),
        64,
    ),
    "state-name-longest": (
        {"state_variables": {"n" * 64: 1}},
        lambda body: list(body["workflow"]["state_variables"]),
        ["n" * 64],
    ),
    "state-value-longest": (
        {"state_variables": {"a": "v" * 10_485_760}},
        lambda body: len(body["workflow"]["state_variables"]["a"]),
        10_485_760,
    ),
    "state-integer-greatest": (
        {"state_variables": {"a": 2**63 - 1}},
        lambda body: body["workflow"]["state_variables"]["a"],
        2**63 - 1,
    ),
    "state-integer-least": (
        {"state_variables": {"a": -(2**63)}},
        lambda body: body["workflow"]["state_variables"]["a"],
        -(2**63),
    ),
    "state-mapping-of-another-kind": (
        {"state_variables": MappingProxyType({"a": 1})},
        lambda body: body["workflow"]["state_variables"],
        {"a": 1},
    ),
    "upload-mapping-of-another-kind": (
        {"file_upload": OrderedDict(max_files=2)},
        lambda body: body["chatkit_configuration"]["file_upload"],
        {"enabled": True, "max_files": 2},
    ),
}


@pytest.mark.parametrize(("given", "pick", "sent"), WITHIN.values(), ids=WITHIN)
def test_a_value_at_its_bound_is_sent(
    given: dict[str, object], pick: Callable[[Any], object], sent: object
) -> None:
    assert pick(created(**given)) == sent


class Person:
    id = 5


BEYOND: dict[str, tuple[dict[str, object], list[str]]] = {
    "expires_after-sdk": (
        {"expires_after": {"anchor": "created_at", "seconds": 300}},
        ["`expires_after`", "1 to 600 seconds", "Pass the seconds alone", "`expires_after=300`"],
    ),
    "expires_after-0": ({"expires_after": 0}, ["`expires_after`", "1 to 600 seconds", "got 0."]),
    "expires_after-601": ({"expires_after": 601}, ["1 to 600 seconds", "got 601."]),
    "expires_after-negative": ({"expires_after": -1}, ["1 to 600 seconds", "got -1."]),
    "expires_after-huge": ({"expires_after": 10**5000}, ["1 to 600 seconds", "very many digits"]),
    "expires_after-float": ({"expires_after": 300.0}, ["whole number, 1 to 600", "got 300.0."]),
    "expires_after-nan": ({"expires_after": float("nan")}, ["whole number", "got nan."]),
    "expires_after-bool": ({"expires_after": True}, ["whole number", "got True."]),
    "expires_after-text": ({"expires_after": "300"}, ["whole number", "got '300'."]),
    "expires_after-dict": ({"expires_after": {"seconds": 1}}, ["whole number", "got a dict."]),
    "expires_after-timedelta-0": ({"expires_after": timedelta()}, ["1 to 600", "got 0."]),
    "expires_after-timedelta-601": (
        {"expires_after": timedelta(seconds=601)},
        ["1 to 600", "got 601."],
    ),
    "expires_after-timedelta-half": (
        {"expires_after": timedelta(seconds=1.5)},
        ["`expires_after` must be whole seconds", "got 1.5 s."],
    ),
    "expires_after-timedelta-max": ({"expires_after": timedelta.max}, ["`expires_after`"]),
    "expires_after-timedelta-min": ({"expires_after": timedelta.min}, ["1 to 600", "got -"]),
    "max_requests-0": (
        {"max_requests_per_1_minute": 0},
        ["`max_requests_per_1_minute`", "1 or more", "got 0."],
    ),
    "max_requests-bool": ({"max_requests_per_1_minute": True}, ["1 or more", "got True."]),
    "max_requests-float": ({"max_requests_per_1_minute": 1.0}, ["whole number", "got 1.0."]),
    "max_requests-huge": ({"max_requests_per_1_minute": 2**63}, ["1 or more", str(2**63)]),
    "tracing-int": ({"tracing": 1}, ["`tracing`", "True or False", "got 1."]),
    "tracing-text": ({"tracing": "yes"}, ["True or False", "got 'yes'."]),
    "titling-int": (
        {"automatic_thread_titling": 0},
        ["`automatic_thread_titling`", "True or False", "got 0."],
    ),
    "upload-int": (
        {"file_upload": 1},
        ["`file_upload`", "a boolean or a dictionary", "`max_file_size`", "got 1."],
    ),
    "upload-list": ({"file_upload": []}, ["a boolean or a dictionary", "got a list."]),
    "upload-unknown-name": (
        {"file_upload": {"max_size": 1}},
        ["`file_upload`", "`enabled`, `max_file_size`, `max_files`", "got 'max_size'."],
    ),
    "upload-name-no-text": ({"file_upload": {1: 1}}, ["nothing but", "got 1."]),
    "upload-enabled": (
        {"file_upload": {"enabled": None}},
        ['`file_upload["enabled"]`', "True or False", "got None."],
    ),
    "upload-size-0": (
        {"file_upload": {"max_file_size": 0}},
        ['`file_upload["max_file_size"]`', "1 to 512", "got 0."],
    ),
    "upload-size-513": ({"file_upload": {"max_file_size": 513}}, ["1 to 512", "got 513."]),
    "upload-size-bool": ({"file_upload": {"max_file_size": True}}, ["1 to 512", "got True."]),
    "upload-files-0": (
        {"file_upload": {"max_files": 0}},
        ['`file_upload["max_files"]`', "1 or more", "got 0."],
    ),
    "upload-files-none": ({"file_upload": {"max_files": None}}, ["1 or more", "got None."]),
    "history-text": (
        {"history": "on"},
        ["`history`", "a boolean or a dictionary", "`recent_threads`", "got 'on'."],
    ),
    "history-unknown-name": (
        {"history": {"max_files": 1}},
        ["`history`", "`enabled`, `recent_threads`", "got 'max_files'."],
    ),
    "history-threads-0": (
        {"history": {"recent_threads": 0}},
        ['`history["recent_threads"]`', "1 or more", "got 0."],
    ),
    "version-empty": ({"workflow_version": ""}, ["`workflow_version`", "is empty", "got ''."]),
    "version-int": ({"workflow_version": 3}, ["`workflow_version`", "string", "got 3."]),
    "version-latest": (
        {"workflow_version": "latest"},
        ["`workflow_version`", "must name a version", "'latest'", "omit it"],
    ),
    "version-surrogate": ({"workflow_version": "a\ud800"}, ["`workflow_version`", "'a\\ud800'"]),
    "state-list": ({"state_variables": [1]}, ["`state_variables`", "mapping", "got a list."]),
    "state-65": (
        {"state_variables": {str(n): n for n in range(65)}},
        ["`state_variables`", "at most 64 entries", "got 65."],
    ),
    "state-name-65": (
        {"state_variables": {"n" * 65: 1}},
        ["`state_variables`", "at most 64 characters", "'nnn", "65"],
    ),
    "state-name-int": ({"state_variables": {5: 1}}, ["strings as names", "got 5."]),
    "state-name-surrogate": ({"state_variables": {"\ud800": 1}}, ["valid Unicode"]),
    "state-value-too-long": (
        {"state_variables": {"a": "v" * 10_485_761}},
        ["`state_variables['a']`", "at most 10,485,760 characters", "got 10,485,761."],
    ),
    "state-value-none": (
        {"state_variables": {"a": None}},
        ["`state_variables['a']`", "string, an integer, a number or a boolean", "NoneType"],
    ),
    "state-value-list": ({"state_variables": {"a": ["x"]}}, ["`state_variables['a']`", "a list"]),
    "state-value-object": ({"state_variables": {"a": Person()}}, ["got a Person."]),
    "state-value-nan": ({"state_variables": {"a": float("nan")}}, ["must be finite", "got nan."]),
    "state-value-inf": ({"state_variables": {"a": float("inf")}}, ["must be finite", "got inf."]),
    "state-value-2**63": ({"state_variables": {"a": 2**63}}, ["64 bits", "a larger integer"]),
    "state-value-below": ({"state_variables": {"a": -(2**63) - 1}}, ["64 bits"]),
    "state-value-huge": ({"state_variables": {"a": 10**5000}}, ["64 bits"]),
    "state-value-surrogate": ({"state_variables": {"a": "\udfff"}}, ["`state_variables['a']`"]),
}


@pytest.mark.parametrize(("given", "named"), BEYOND.values(), ids=BEYOND)
def test_a_value_beyond_its_bound_is_refused_with_argument_bound_and_value(
    given: dict[str, object], named: list[str]
) -> None:
    message = refusal(lambda: created(**given))

    for part in named:
        assert part in message
    assert "`" in message
    assert "got " in message
    assert len(message) < 500
    message.encode("ascii", errors="strict") if "…" not in message else message.encode()


def test_the_value_of_a_state_variable_is_never_quoted() -> None:
    for value in (["confidential"], "confidential" * 1_000_000, "confidential\ud800"):
        message = refusal(lambda value=value: created(state_variables={"a": value}))  # type: ignore[misc]

        assert "confidential" not in message


class TestUser:
    @pytest.mark.parametrize("user", ["u", " ", "\n", "é", "🙂", '"\\', "a" * 1_000_000, "\u2028"])
    def test_any_text_of_one_character_or_more_is_sent_as_it_is(self, user: str) -> None:
        operation = operations.create(user, workflow_id="wf_1", options=options())

        assert body_of(operation)["user"] == user

    @pytest.mark.parametrize(
        ("user", "named"),
        [
            ("", ["1 character or more", "an empty string"]),
            ({"id": "u"}, ["must be a string", "an object", '`user["id"]`']),
            (MappingProxyType({"id": "u"}), ["an object"]),
            (5, ["must be a string", "the integer 5", "`str(user)`"]),
            (10**5000, ["the integer", "very many digits"]),
            (None, ["must be a string", "NoneType"]),
            (True, ["a bool"]),
            (5.0, ["a float"]),
            (b"u", ["a bytes"]),
            ([1], ["a list"]),
            (Person(), ["a Person", "pass its id as a string"]),
            (SecretStr("u"), ["a SecretStr"]),
            ("\ud800", ["valid Unicode", "lone surrogate"]),
        ],
        ids=[
            *("empty", "dict", "mapping", "int", "huge-int", "None", "bool", "float", "bytes"),
            *("list", "object", "secret", "surrogate"),
        ],
    )
    def test_anything_else_is_refused_with_what_to_pass_instead(
        self, user: object, named: list[str]
    ) -> None:
        message = refusal(lambda: validate_user(user))

        assert message.startswith("`user` must ")
        for part in named:
            assert part in message

    @given(st.text(st.characters(codec=None, categories=None)))
    def test_any_text_arrives_as_it_is_or_is_refused(self, user: str) -> None:
        try:
            operation = operations.create(user, workflow_id="wf_1", options=options())
        except InvalidRequestError:
            assert user == "" or any("\ud800" <= character <= "\udfff" for character in user)
            return
        assert body_of(operation)["user"] == user


@given(
    st.dictionaries(
        st.text(max_size=70),
        st.none() | st.text() | st.booleans() | st.integers() | st.floats(),
        max_size=70,
    )
)
def test_any_state_arrives_as_it_is_or_is_refused(state: dict[str, object]) -> None:
    try:
        sent = created(state_variables=state)["workflow"]["state_variables"]
    except InvalidRequestError as error:
        assert "`state_variables" in str(error)  # noqa: PT017
        return
    assert sent == state
    assert {name: type(sent[name]) for name in sent} == {name: type(state[name]) for name in state}


class TestWorkflowId:
    @pytest.mark.parametrize("workflow_id", ["wf_1", "a b", "é"])
    def test_any_identifier_is_taken(self, workflow_id: str) -> None:
        assert validate_workflow_id(workflow_id) == workflow_id

    @pytest.mark.parametrize(
        ("workflow_id", "named"),
        [
            ("", ["is empty", "got ''."]),
            (" wf", ["white space around", "got ' wf'."]),
            ("wf\n", ["line break", "got 'wf\\n'."]),
            ('"wf"', ["quotes"]),
            (5, ["must be a string, not int", "got 5."]),
            (None, ["not NoneType", "got None."]),
            ({"id": 1}, ["not dict", "got a dict."]),
            ("wf\ud800", ["printed"]),
            ("w" * 1000 + "\n", ["line break", "(1,001 characters)"]),
        ],
    )
    def test_a_flaw_is_named(self, workflow_id: object, named: list[str]) -> None:
        message = refusal(lambda: validate_workflow_id(workflow_id))

        for part in ("`workflow_id` ", *named):
            assert part in message

    def test_a_key_given_in_its_place_is_not_quoted(self) -> None:
        message = refusal(lambda: validate_workflow_id("sk-proj-Abcdef\n"))

        assert "Abcdef" not in message


class TestCallTimeout:
    @pytest.mark.parametrize("timeout", [None, 0.1, 5])
    def test_seconds_or_none(self, timeout: float | None) -> None:
        assert validate_call_timeout(timeout) == timeout

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
    def test_anything_else_is_refused(self, timeout: Any) -> None:  # noqa: ANN401 -- from untyped callers
        assert refusal(lambda: validate_call_timeout(timeout)).startswith("`timeout` must")


BY_SESSION_ID: dict[str, tuple[Callable[[Any], Operation[Any]], str]] = {
    "get": (operations.get, ""),
    "cancel": (operations.cancel, "/cancel"),
}


@pytest.mark.parametrize(("build", "end"), BY_SESSION_ID.values(), ids=BY_SESSION_ID)
class TestSessionId:
    @pytest.mark.parametrize(
        ("session_id", "segment"),
        [
            ("cksess_68f0", "cksess_68f0"),
            ("a.b", "a.b"),
            ("a~b-c_d", "a~b-c_d"),
            ("🙂", "%F0%9F%99%82"),
            ("é", "%C3%A9"),
            ("a:b@c&d=e+f", "a%3Ab%40c%26d%3De%2Bf"),
            ("a;b", "a%3Bb"),
            ("x" * 256, "x" * 256),
        ],
        ids=["usual", "dot", "unreserved", "emoji", "accent", "reserved", "semicolon", "longest"],
    )
    def test_it_becomes_one_segment_of_the_path(
        self, build: Callable[[Any], Operation[Any]], end: str, session_id: str, segment: str
    ) -> None:
        operation = build(session_id)

        assert operation.path == f"/chatkit/sessions/{segment}{end}"
        assert operation.body is None
        assert operation.secrets == ()

    @pytest.mark.parametrize(
        ("session_id", "named"),
        [
            ("", "1 to 256 characters"),
            ("x" * 257, "1 to 256 characters"),
            ("x" * 1_048_576, "1,048,576 characters"),
            ("../x", "`/`"),
            ("a/b", "`/`"),
            ("a\\b", "`/`"),
            ("%2e", "`%`"),
            ("%2e%2e%2fx", "`%`"),
            (".", "nor consist of dots"),
            ("..", "nor consist of dots"),
            ("a?b", "`?`"),
            ("a#b", "`#`"),
            ("..;b", "before a `;`"),
            ("refresh;b", "before a `;`"),
            (";b", "before a `;`"),
            ("a b", "white space"),
            (" ", "white space"),
            ("a\nb", "white space"),
            ("a\r\nb", "white space"),
            ("a\u2028b", "white space"),
            ("a\u00a0b", "white space"),
            ("a\x00b", "unprintable"),
            ("a\u200bb", "unprintable"),
            ("a\ud800", "unprintable"),
            (None, "must be a string: pass `session.id`"),
            (5, "must be a string: pass `session.id`"),
            (b"x", "must be a string: pass `session.id`"),
            (SecretStr("x"), "must be a string: pass `session.id`"),
        ],
        ids=lambda value: ascii(value)[:20],
    )
    def test_what_could_lead_elsewhere_is_refused(
        self, build: Callable[[Any], Operation[Any]], end: str, session_id: object, named: str
    ) -> None:
        message = refusal(lambda: build(session_id))

        assert message.startswith("`session_id` ")
        assert named in message
        assert "got " in message
        assert len(message) < 300
        assert "\n" not in message
        assert end == BY_SESSION_ID["cancel" if end else "get"][1]

    @pytest.mark.parametrize("secret", [SECRET, "sk-proj-Presented0123456789", f"x-{SECRET}"])
    def test_a_secret_given_in_its_place_is_refused_and_not_quoted(
        self, build: Callable[[Any], Operation[Any]], end: str, secret: str
    ) -> None:
        message = refusal(lambda: build(secret))

        assert "pass `session.id`" in message
        assert "Presented" not in message + end

    def test_the_name_of_another_route_is_refused(
        self, build: Callable[[Any], Operation[Any]], end: str
    ) -> None:
        assert "refresh" in refusal(lambda: build("refresh")) + end

    @given(st.text(st.characters(codec=None, categories=None)))
    def test_any_text_is_exactly_one_segment_or_refused(
        self, build: Callable[[Any], Operation[Any]], end: str, session_id: str
    ) -> None:
        try:
            path = build(session_id).path
        except InvalidRequestError:
            return
        assert path.isascii()
        assert path.isprintable()
        assert " " not in path
        segment = path.removeprefix("/chatkit/sessions/").removesuffix(end)
        assert "/" not in segment
        assert segment not in {".", ".."}
        assert unquote(segment) == session_id
        assert unquote(path) == f"/chatkit/sessions/{session_id}{end}"


class TestGet:
    def test_it_asks_for_the_session(self) -> None:
        assert operations.get("s").method == "GET"

    def test_its_answer_is_the_session_without_secret_from_the_api(self) -> None:
        info = operations.get("s").parse(
            {"id": "s", "expires_at": SECONDS, "client_secret": SECRET, "source": "record"}
        )

        assert isinstance(info, ChatKitSessionInfo)
        assert info.source == "api"
        assert SECRET not in repr(vars(info))

    def test_an_answer_that_is_no_session_is_invalid(self) -> None:
        with pytest.raises(ValidationError):
            operations.get("s").parse({"id": "s"})

    def test_it_takes_no_refusal_for_an_answer(self) -> None:
        detail = ChatKitErrorDetail(message="Session is already expired", type="t")

        assert operations.get("s").parse_error(400, detail) is None


class TestCancel:
    def test_it_posts_without_a_body(self) -> None:
        operation = operations.cancel("s")

        assert (operation.method, operation.path) == ("POST", "/chatkit/sessions/s/cancel")
        assert operation.body is None

    @pytest.mark.parametrize(
        "answer",
        [
            {"id": "s", "status": "cancelled", "client_secret": "", "expires_at": SECONDS},
            {"id": "s", "object": "chatkit.session", "workflow": {"id": "wf_1"}},
            {"id": "s", "status": "expired"},
        ],
        ids=["full", "hardly-more-than-the-id", "expired"],
    )
    def test_its_answer_may_be_short(self, answer: Any) -> None:  # noqa: ANN401 -- any JSON
        cancelled = operations.cancel("s").parse(answer)

        assert isinstance(cancelled, CancelledSession)
        assert cancelled.status == answer.get("status")

    @pytest.mark.parametrize("answer", [{}, {"id": ""}, {"id": "s", "status": "active"}], ids=str)
    def test_an_answer_that_says_otherwise_is_invalid(self, answer: Any) -> None:  # noqa: ANN401
        with pytest.raises(ValidationError):
            operations.cancel("s").parse(answer)

    @pytest.mark.parametrize(
        ("status", "message", "ended"),
        [
            (400, "Chatkit Session with id 's' is already cancelled.", "cancelled"),
            (409, "Session has already been canceled", "cancelled"),
            (400, "Session has expired", "expired"),
            (404, "Chatkit Session with id 's' was expired", "expired"),
        ],
    )
    def test_a_session_that_has_ended_already_counts_as_done(
        self, status: int, message: str, ended: str
    ) -> None:
        detail = ChatKitErrorDetail(message=message, type="invalid_request_error")

        assert operations.cancel("s").parse_error(status, detail) == CancelledSession(
            id="s", status=ended
        )

    @pytest.mark.parametrize(
        ("status", "detail"),
        [
            (404, ChatKitErrorDetail(message="Chatkit Session with id 's' not found.", type="t")),
            (500, ChatKitErrorDetail(message="Session is already cancelled", type="t")),
            (401, ChatKitErrorDetail(message="Session is already expired", type="t")),
            (404, None),
        ],
    )
    def test_any_other_refusal_stays_one(
        self, status: int, detail: ChatKitErrorDetail | None
    ) -> None:
        assert operations.cancel("s").parse_error(status, detail) is None


def refresh(
    secret: Any = SECRET,  # noqa: ANN401 -- many types
    **options: Unpack[SessionOptions],
) -> Operation[ChatKitSessionResponse | RejectedSession]:
    body = json.dumps(create_body("user_1", workflow_id="wf_1", options=options)).encode()
    return refresh_operation(secret, user="user_1", workflow_id="wf_1", create_body=body)


GOOD: dict[str, Any] = {
    "id": "cksess_2",
    "client_secret": "ek_fresh",
    "expires_at": SECONDS,
    "user": "user_1",
    "workflow": {"id": "wf_1"},
}


WITH_OPTIONS: dict[str, Any] = {
    **GOOD,
    "answered_at": datetime.fromtimestamp(SECONDS - 300, UTC),
    "workflow": {
        "id": "wf_1",
        "version": "2",
        "state_variables": {"plan": "pro", "seats": 3, "trial": True},
        "tracing": {"enabled": False},
    },
    "rate_limits": {"max_requests_per_1_minute": 20},
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 512, "max_files": 2},
        "history": {"enabled": True, "recent_threads": 3},
    },
}
STATE = "workflow.state_variables"


def state_variables() -> st.SearchStrategy[dict[str, StateVariable]]:
    values: st.SearchStrategy[StateVariable] = st.sampled_from(
        [True, False, 0, 1, 0.0, 1.0, -1, "1", "", "pro"]
    )
    return st.dictionaries(st.sampled_from(["plan", "seats"]), values)


class TestRefresh:
    @pytest.mark.parametrize("given", [SECRET, SecretStr(SECRET)], ids=["str", "SecretStr"])
    def test_it_posts_the_secret(self, given: object) -> None:
        operation = refresh(given)

        assert (operation.method, operation.path) == ("POST", "/chatkit/sessions/refresh")
        assert body_of(operation) == {"client_secret": SECRET}
        assert operation.secrets == (SecretStr(SECRET),)

    def test_its_repr_does_not_hold_the_secret(self) -> None:
        assert SECRET not in repr(refresh())

    @pytest.mark.parametrize("secret", ["x", " ek ", "é🙂", '"\\\n', "*a*", "x" * 1_000_000])
    def test_a_secret_is_opaque(self, secret: str) -> None:
        assert body_of(refresh(secret)) == {"client_secret": secret}

    @pytest.mark.parametrize(
        ("secret", "named"),
        [
            ("", "is empty"),
            (" \n", "is empty"),
            (SecretStr(""), "is empty"),
            ("**********", "is masked"),
            (SecretStr("***"), "is masked"),
            ("Presented\ud800", "Unicode"),
            (None, "got a NoneType"),
            (5, "got an int"),
            (b"Presented", "got a bytes"),
            ({"client_secret": "Presented"}, "got a dict"),
        ],
        ids=["", "blank", "SecretStr", "masked", "masked-2", "surrogate", "None", "int", "b", "d"],
    )
    def test_what_cannot_be_one_is_refused_and_not_quoted(self, secret: object, named: str) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            validate_client_secret(secret)

        assert str(caught.value).startswith("`client_secret` ")
        assert named in str(caught.value)
        assert "Presented" not in str(caught.value)

    def test_a_good_answer_is_the_new_session(self) -> None:
        session = refresh().parse(GOOD)

        assert isinstance(session, ChatKitSessionResponse)
        assert session.client_secret.get_secret_value() == "ek_fresh"

    @pytest.mark.parametrize(
        ("change", "reason", "session_id"),
        [
            ({"client_secret": SECRET}, "the secret that was presented", "cksess_2"),
            ({"user": "user_2"}, "the same user", "cksess_2"),
            ({"user": None}, "the same user", "cksess_2"),
            ({"user": "User_1"}, "the same user", "cksess_2"),
            ({"workflow": {"id": "wf_2"}}, "the same workflow", "cksess_2"),
            ({"workflow": None}, "the same workflow", "cksess_2"),
            ({"client_secret": ""}, "must not be empty", "cksess_2"),
            ({"client_secret": "*****"}, "is masked", "cksess_2"),
            ({"client_secret": None}, "`client_secret`", "cksess_2"),
            ({"expires_at": "soon"}, "`expires_at`", "cksess_2"),
            ({"workflow": {}}, "`workflow.id`", "cksess_2"),
            ({"id": None}, "`id`", None),
            ({"id": 5}, "`id`", None),
            ({"id": ""}, "`id`", None),
            ({"id": "../other"}, "`id` must not hold", None),
            ({"id": "x" * 257}, "`id` must have 1 to 256 characters", None),
            ({"id": "../other", "user": "user_2"}, "the same user", None),
            ({"id": "../other", "client_secret": ""}, "must not be empty", None),
            ({"id": "ek_1", "user": "user_2"}, "the same user", None),
        ],
        ids=str,
    )
    def test_an_answer_that_nobody_may_use_is_rejected_with_the_id_to_cancel(
        self, change: dict[str, Any], reason: str, session_id: str | None
    ) -> None:
        rejected = refresh().parse({**GOOD, **change})

        assert isinstance(rejected, RejectedSession)
        assert reason in rejected.reason
        assert rejected.id == session_id

    def test_an_answer_without_anything_is_rejected(self) -> None:
        rejected = refresh().parse({})

        assert isinstance(rejected, RejectedSession)
        assert rejected.id is None

    @pytest.mark.parametrize(
        "options",
        [
            {"workflow_version": "2"},
            {"state_variables": {"plan": "pro", "seats": 3, "trial": True}},
            {"state_variables": {"plan": "pro", "seats": 3.0, "trial": True}},
            {"tracing": False},
            {"expires_after": 300},
            {"expires_after": timedelta(seconds=310)},
            {"max_requests_per_1_minute": 20},
            {"file_upload": True},
            {"file_upload": {"max_files": 2}},
            {"history": True},
            {"history": {"recent_threads": 3}},
            {"automatic_thread_titling": False},
            {},
        ],
        ids=str,
    )
    def test_a_session_with_the_options_that_the_call_passes_is_returned(
        self, options: SessionOptions
    ) -> None:
        assert isinstance(refresh(**options).parse(WITH_OPTIONS), ChatKitSessionResponse)

    @pytest.mark.parametrize(
        ("options", "changed"),
        [
            ({"workflow_version": "3"}, "workflow.version"),
            ({"state_variables": {"plan": "free", "seats": 3, "trial": True}}, STATE),
            ({"state_variables": {"plan": "pro", "seats": 3, "trial": 1}}, STATE),
            ({"state_variables": {"plan": "pro", "seats": "3", "trial": True}}, STATE),
            ({"state_variables": {"plan": "pro", "seats": 3}}, STATE),
            ({"state_variables": {}}, STATE),
            ({"tracing": True}, "workflow.tracing.enabled"),
            ({"expires_after": 311}, "expires_after"),
            ({"expires_after": 289}, "expires_after"),
            ({"max_requests_per_1_minute": 2}, "rate_limits.max_requests_per_1_minute"),
            ({"file_upload": False}, "chatkit_configuration.file_upload.enabled"),
            ({"file_upload": {"max_files": 1}}, "chatkit_configuration.file_upload.max_files"),
            ({"history": False}, "chatkit_configuration.history.enabled"),
            (
                {"history": {"recent_threads": 4}},
                "chatkit_configuration.history.recent_threads",
            ),
            (
                {"automatic_thread_titling": True},
                "chatkit_configuration.automatic_thread_titling.enabled",
            ),
        ],
        ids=str,
    )
    def test_a_session_with_another_option_is_to_be_cancelled(
        self, options: SessionOptions, changed: str
    ) -> None:
        rejected = refresh(**options).parse(WITH_OPTIONS)

        assert rejected == ("cksess_2", f"it has another `{changed}`", False)

    @pytest.mark.parametrize(
        "options",
        [
            {"workflow_version": "2"},
            {"state_variables": {"plan": "pro"}},
            {"expires_after": 300},
            {"max_requests_per_1_minute": 20},
            {"history": True},
        ],
        ids=str,
    )
    def test_what_the_server_does_not_say_is_not_in_force(self, options: SessionOptions) -> None:
        rejected = refresh(**options).parse(GOOD)

        assert isinstance(rejected, RejectedSession)
        assert not rejected.is_fault

    def test_no_state_variables_are_none_of_them(self) -> None:
        nones: list[dict[str, Any]] = [{}, {"state_variables": None}, {"state_variables": {}}]
        for none in nones:
            answer: dict[str, object] = {**GOOD, "workflow": {"id": "wf_1", **none}}
            session = refresh(state_variables={}).parse(answer)
            assert isinstance(session, ChatKitSessionResponse)

    @given(state_variables(), state_variables())
    def test_state_variables_are_in_force_if_and_only_if_they_are_equal(
        self, wanted: dict[str, StateVariable], found: dict[str, StateVariable]
    ) -> None:
        def parse(
            found: dict[str, StateVariable],
        ) -> ChatKitSessionResponse | RejectedSession:
            workflow = json.loads(json.dumps({"id": "wf_1", "state_variables": found}))
            return refresh(state_variables=wanted).parse({**GOOD, "workflow": workflow})

        assert isinstance(parse(wanted), ChatKitSessionResponse)
        typed = [{(name, isinstance(v, bool), v) for name, v in d.items()} for d in (wanted, found)]
        assert isinstance(parse(found), ChatKitSessionResponse) == (typed[0] == typed[1])

    @pytest.mark.parametrize("secret", [SECRET, "opaquePresented"])
    def test_a_rejection_quotes_no_secret(self, secret: str) -> None:
        changes: list[dict[str, Any]] = [
            {"client_secret": secret},
            {"client_secret": ["ek_fresh"]},
            {"expires_at": secret},
            {"id": secret, "user": None},
            {"workflow": {"id": "wf_1", "state_variables": {secret: None}}},
        ]
        for change in changes:
            rejected = refresh(secret).parse({**GOOD, **change})

            assert isinstance(rejected, RejectedSession)
            assert secret not in repr(rejected)
            assert "ek_fresh" not in repr(rejected)


class TestDescribeValidationError:
    def describe(self, document: Mapping[str, object]) -> str:
        with pytest.raises(ValidationError) as caught:
            ChatKitSessionResponse.model_validate(document)
        return operations.describe_validation_error(caught.value)

    def test_it_names_field_flaw_and_type(self) -> None:
        assert self.describe({**GOOD, "user": 5}) == (
            "`user` Input should be a valid string (string_type)"
        )

    def test_it_names_no_more_than_three(self) -> None:
        told = self.describe({"id": 5, "expires_at": [], "client_secret": {}, "user": 5})

        assert told.count("`") == 6

    def test_it_quotes_no_value(self) -> None:
        told = self.describe(
            {
                "id": ["confidential"],
                "expires_at": "confidential",
                "client_secret": ["confidential"],
            }
        )

        assert "confidential" not in told

    def test_it_quotes_no_name_that_is_the_answers_own(self) -> None:
        state = {"confidential\n" * 1000: None}

        told = self.describe({**GOOD, "workflow": {"id": "wf", "state_variables": state}})

        assert "state_variables" in told
        assert "confidential" not in told
        assert len(told) < 1000
