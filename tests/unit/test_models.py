"""What the models keep, refuse and show."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import given, strategies as st
from pydantic import SecretStr, ValidationError

from chatkit_sessions import models
from chatkit_sessions._redaction import MASK
from chatkit_sessions.models import (
    CancelledSession,
    ChatKitErrorDetail,
    ChatKitErrorResponse,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    ChatKitWorkflow,
    ChatKitWorkflowTracing,
    ChatSessionRateLimits,
)

SECRET = "opaque-Sup3rSecret"
MOMENT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SECONDS = 1_795_341_600

FULL: dict[str, Any] = {
    "id": "cksess_1",
    "object": "chatkit.session",
    "client_secret": SECRET,
    "expires_at": SECONDS,
    "workflow": {
        "id": "wf_1",
        "version": None,
        "state_variables": {"plan": "pro", "api_key": "hidden-value", "retries": 3},
        "tracing": {"enabled": True},
    },
    "user": "user_1",
    "rate_limits": {"max_requests_per_1_minute": 10},
    "max_requests_per_1_minute": 10,
    "status": "active",
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": True},
        "file_upload": {"enabled": False, "max_file_size": None, "max_files": None},
        "history": {"enabled": True, "recent_threads": None},
    },
}


def response(**changes: object) -> ChatKitSessionResponse:
    return ChatKitSessionResponse.model_validate({**FULL, **changes})


def info(**changes: object) -> ChatKitSessionInfo:
    return ChatKitSessionInfo.model_validate({**FULL, "source": "api", **changes})


def test_the_full_session_object_of_the_contract_is_read() -> None:
    session = response()

    assert session.id == "cksess_1"
    assert session.object == "chatkit.session"
    assert session.client_secret.get_secret_value() == SECRET
    assert session.expires_at == MOMENT
    assert session.status == "active"
    assert session.user == "user_1"
    assert session.max_requests_per_1_minute == 10
    assert session.rate_limits == ChatSessionRateLimits(max_requests_per_1_minute=10)
    assert session.workflow is not None
    assert session.workflow.version is None
    assert session.workflow.state_variables == {
        "plan": "pro",
        "api_key": "hidden-value",
        "retries": 3,
    }
    assert session.workflow.tracing == ChatKitWorkflowTracing(enabled=True)
    configuration = session.chatkit_configuration
    assert configuration is not None
    assert configuration.automatic_thread_titling is not None
    assert configuration.automatic_thread_titling.enabled is True
    assert configuration.file_upload is not None
    assert configuration.file_upload.enabled is False
    assert configuration.file_upload.max_file_size is None
    assert configuration.history is not None
    assert configuration.history.recent_threads is None
    assert session.request_id is None


def test_id_secret_and_expiry_are_all_that_a_session_needs() -> None:
    session = ChatKitSessionResponse.model_validate(
        {"id": "s", "client_secret": "x", "expires_at": SECONDS}
    )

    assert (session.user, session.status, session.workflow, session.object) == (None,) * 4


@pytest.mark.parametrize("missing", ["id", "client_secret", "expires_at"])
def test_a_session_without_a_required_field_is_invalid(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        ChatKitSessionResponse.model_validate({k: v for k, v in FULL.items() if k != missing})


@pytest.mark.parametrize("model", [ChatKitSessionResponse, ChatKitSessionInfo, CancelledSession])
def test_an_empty_id_is_invalid(model: type[models._Model]) -> None:
    with pytest.raises(ValidationError, match="id"):
        model.model_validate({**FULL, "status": None, "source": "api", "id": ""})


@pytest.mark.parametrize(
    ("state", "expected"),
    [({"a": True}, bool), ({"a": 1}, int), ({"a": 1.5}, float), ({"a": "1"}, str)],
    ids=["bool", "int", "float", "str"],
)
def test_a_state_variable_keeps_its_type(state: dict[str, object], expected: type) -> None:
    workflow = ChatKitWorkflow.model_validate({"id": "wf", "state_variables": state})

    assert workflow.state_variables is not None
    assert type(workflow.state_variables["a"]) is expected
    assert workflow.state_variables == state


@pytest.mark.parametrize("status", ["active", "expired", "cancelled", "hibernating", ""])
def test_a_status_is_kept_even_if_the_contract_does_not_know_it(status: str) -> None:
    assert response(status=status).status == status


@pytest.mark.parametrize("model", [response(), info(), ChatKitErrorDetail(message="m", type="t")])
def test_models_are_frozen(model: models._Model) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, next(iter(type(model).model_fields)), "other")


class TestUnknownFields:
    def test_they_are_kept(self) -> None:
        session = response(novelty={"deep": [1, 2]})

        assert session.model_extra == {"novelty": {"deep": [1, 2]}}

    @pytest.mark.parametrize("show", [repr, str, "{}".format], ids=["repr", "str", "format"])
    def test_they_are_not_shown(self, show: Callable[[object], str]) -> None:
        session = response(
            novelty="unseen", workflow={"id": "wf_1", "extra_name": "unseen", "tracing": None}
        )

        shown = show(session)

        assert "cksess_1" in shown
        assert "wf_1" in shown
        assert "unseen" not in shown
        assert "novelty" not in shown
        assert "extra_name" not in shown

    def test_they_are_part_of_a_dump(self) -> None:
        assert response(novelty={"deep": [1, None, 2.5]}).model_dump()["novelty"] == {
            "deep": [1, None, 2.5]
        }

    def test_a_field_left_out_of_a_dump_stays_out(self) -> None:
        dumped = response(novelty=1, other_secret="x").model_dump(exclude={"novelty"})

        assert "novelty" not in dumped
        assert dumped["other_secret"] == MASK

    @pytest.mark.parametrize(
        "extra",
        [{1: 2}, {"a": {None: "b"}}, (1, "x"), {"s"}, MOMENT],
        ids=["int-name", "None-name", "tuple", "set", "datetime"],
    )
    def test_values_that_no_json_holds_can_be_dumped_too(self, extra: object) -> None:
        session = response(extra=extra)

        assert "extra" in session.model_dump()


class TestExpiresAt:
    @pytest.mark.parametrize(
        "given",
        [
            SECONDS,
            float(SECONDS),
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00+00:00",
            "2026-11-22T10:00:00",
            "2026-11-22 10:00:00",
            "20261122T100000Z",
            "2026-11-22T10:00:00.000Z",
            "2026-11-22T12:30:00+02:30",
            "2026-11-22T02:00:00-08:00",
            MOMENT,
            MOMENT.replace(tzinfo=None),
            MOMENT.astimezone(timezone(timedelta(hours=9))),
        ],
        ids=str,
    )
    def test_every_spelling_of_a_moment_gives_the_same_aware_utc_datetime(
        self, given: object
    ) -> None:
        expires_at = response(expires_at=given).expires_at

        assert expires_at == MOMENT
        assert expires_at.tzinfo is UTC

    def test_fractions_of_a_second_are_kept(self) -> None:
        assert response(expires_at=SECONDS + 0.5).expires_at == MOMENT + timedelta(seconds=0.5)

    @pytest.mark.parametrize(
        "given",
        [
            datetime(2000, 1, 1, tzinfo=UTC),
            datetime(2100, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            "2100-12-31T23:59:59Z",
            946_684_800,
        ],
        ids=str,
    )
    def test_the_years_2000_to_2100_are_valid(self, given: object) -> None:
        assert 2000 <= response(expires_at=given).expires_at.year <= 2100

    @pytest.mark.parametrize(
        "given",
        [
            946_684_799,
            0,
            -1,
            SECONDS * 1000,
            "1999-12-31T23:59:59Z",
            "2101-01-01T00:00:00Z",
            "2000-01-01T00:00:00+00:01",
            datetime(1999, 12, 31, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, tzinfo=UTC),
            datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        ],
        ids=str,
    )
    def test_a_moment_outside_these_years_is_invalid(self, given: object) -> None:
        with pytest.raises(ValidationError, match="expires_at"):
            response(expires_at=given)

    @pytest.mark.parametrize(
        "given",
        [
            True,
            False,
            None,
            "",
            " ",
            "soon",
            str(SECONDS),
            "2026-13-01T00:00:00Z",
            "9" * 10_000,
            "10:00:00Z",
            float("nan"),
            float("inf"),
            float("-inf"),
            1e300,
            10**30,
            10**400,
            -(10**400),
            [],
            {},
            [SECONDS],
            b"2026-11-22",
            timedelta(1),
            "\ud800",
        ],
        ids=lambda value: (
            f"{type(value).__name__}-{ascii(value)[:20]}"
            if not isinstance(value, int) or abs(value) < 10**40
            else "huge"
        ),
    )
    @pytest.mark.parametrize("make", [response, info])
    def test_nonsense_is_invalid_and_nothing_worse(
        self, make: Callable[..., object], given: object
    ) -> None:
        with pytest.raises(ValidationError, match="expires_at"):
            make(expires_at=given)

    @given(
        st.one_of(
            st.text(),
            st.integers(),
            st.floats(),
            st.binary(),
            st.datetimes(timezones=st.none() | st.just(UTC)),
            st.from_regex(r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?\Z"),
            st.integers(min_value=-(10**500), max_value=10**500),
        )
    )
    def test_anything_gives_an_aware_moment_or_a_validation_error(self, given: object) -> None:
        try:
            expires_at = response(expires_at=given).expires_at
        except ValidationError:
            return
        assert expires_at.tzinfo is UTC
        assert 2000 <= expires_at.year <= 2100

    @given(
        st.datetimes(datetime(2000, 1, 2), datetime(2100, 12, 30)),  # noqa: DTZ001 -- hypothesis takes naive bounds
        st.integers(-14 * 60, 14 * 60),
    )
    def test_iso_8601_with_any_zone_is_read_as_the_same_instant(
        self, naive: datetime, minutes: int
    ) -> None:
        moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))

        assert response(expires_at=moment.isoformat()).expires_at == moment

    @pytest.mark.parametrize("given", [None, "absent"])
    def test_a_cancelled_session_may_lack_it(self, given: str | None) -> None:
        fields = {"id": "s"} if given == "absent" else {"id": "s", "expires_at": given}

        assert CancelledSession.model_validate(fields).expires_at is None

    def test_a_cancelled_session_reads_it_the_same_way(self) -> None:
        assert CancelledSession.model_validate({"id": "s", "expires_at": SECONDS}).expires_at == (
            MOMENT
        )
        with pytest.raises(ValidationError, match="expires_at"):
            CancelledSession.model_validate({"id": "s", "expires_at": True})


class TestExpiry:
    @pytest.mark.parametrize(
        ("passed", "left", "expired"),
        [
            (-1.5, 1.5, False),
            (-0.25, 0.25, False),
            (0, 0, True),
            (0.25, -0.25, True),
            (3600, -3600, True),
        ],
        ids=["before", "just-before", "exactly", "just-after", "long-after"],
    )
    def test_it_is_counted_from_the_moment_given(
        self, passed: float, left: float, *, expired: bool
    ) -> None:
        session, now = response(), MOMENT + timedelta(seconds=passed)

        assert session.expires_in(now=now) == left
        assert session.is_expired(now=now) is expired

    def test_the_moment_may_be_in_another_zone(self) -> None:
        now = (MOMENT - timedelta(seconds=60)).astimezone(timezone(timedelta(hours=-7)))

        assert info().expires_in(now=now) == 60

    def test_left_out_it_is_the_present(self) -> None:
        past, future = response(expires_at="2001-01-01"), response(expires_at="2100-01-01")

        assert past.is_expired()
        assert past.expires_in() < 0
        assert not future.is_expired()
        assert future.expires_in() > 0


class TestForBrowser:
    def test_it_unwraps_the_secret_and_gives_what_the_widget_needs(self) -> None:
        assert response().for_browser() == {
            "client_secret": SECRET,
            "expires_at": "2026-11-22T10:00:00Z",
            "session_id": "cksess_1",
        }

    def test_it_is_json(self) -> None:
        assert json.loads(json.dumps(response().for_browser()))["client_secret"] == SECRET

    def test_the_expiry_is_cut_to_whole_seconds_so_that_it_is_never_late(self) -> None:
        assert response(expires_at=SECONDS + 0.999).for_browser()["expires_at"] == (
            "2026-11-22T10:00:00Z"
        )


class TestClientSecret:
    @pytest.mark.parametrize("secret", ["", " ", "\t\n", "*", "**********", "*" * 50])
    def test_one_that_is_empty_blank_or_masked_is_invalid(self, secret: str) -> None:
        with pytest.raises(ValidationError, match="client_secret"):
            response(client_secret=secret)

    @pytest.mark.parametrize("secret", [None, 5, True, ["x"], {"a": "x"}])
    def test_one_that_is_not_text_is_invalid(self, secret: object) -> None:
        with pytest.raises(ValidationError, match="client_secret"):
            response(client_secret=secret)

    @pytest.mark.parametrize("secret", ["ek_1", "x", "*a*", "опак"])
    def test_any_other_text_is_taken_as_it_is(self, secret: str) -> None:
        assert response(client_secret=secret).client_secret.get_secret_value() == secret

    @pytest.mark.parametrize("show", [repr, str, ascii, "{}".format])
    def test_it_is_in_no_text_of_the_session(self, show: Callable[[object], str]) -> None:
        assert SECRET not in show(response())

    def test_a_dump_read_back_is_refused(self) -> None:
        dump = response().model_dump_json()

        with pytest.raises(ValidationError, match="masked"):
            ChatKitSessionResponse.model_validate_json(dump)


def python_dump(model: models._Model) -> str:
    return repr(model.model_dump())


def json_mode_dump(model: models._Model) -> str:
    return json.dumps(model.model_dump(mode="json"))


def json_dump(model: models._Model) -> str:
    return model.model_dump_json()


@pytest.mark.parametrize("dump", [python_dump, json_mode_dump, json_dump])
class TestMaskingInDumps:
    def test_the_client_secret(self, dump: Callable[[models._Model], str]) -> None:
        dumped = dump(response())

        assert SECRET not in dumped
        assert MASK in dumped

    @pytest.mark.parametrize("name", ["refresh_token", "apiKey", "SECRET", "token", "my_secret_x"])
    def test_an_unknown_field_named_like_a_secret(
        self, dump: Callable[[models._Model], str], name: str
    ) -> None:
        for value in ("unseen", ["unseen"], {"a": "unseen"}):
            dumped = dump(response(**{name: value}))

            assert "unseen" not in dumped
            assert name in dumped

    def test_a_name_like_a_secret_nested_in_an_unknown_field(
        self, dump: Callable[[models._Model], str]
    ) -> None:
        assert "unseen" not in dump(response(extra=[{"deep": {"access_token": "unseen"}}]))

    def test_a_name_like_a_secret_beside_the_fields_of_a_nested_model(
        self, dump: Callable[[models._Model], str]
    ) -> None:
        workflow = {"id": "wf", "signing_key": "unseen", "tracing": {"token": "unseen"}}

        assert "unseen" not in dump(response(workflow=workflow))

    @pytest.mark.parametrize("shaped", ["sk-proj-abcdef", "ek_abcdef"])
    def test_an_unknown_value_shaped_like_a_secret(
        self, dump: Callable[[models._Model], str], shaped: str
    ) -> None:
        dumped = dump(response(note=f"use {shaped} now", workflow={"id": "wf", "note": [shaped]}))

        assert "abcdef" not in dumped
        assert "use " in dumped

    def test_the_client_secret_echoed_under_another_name(
        self, dump: Callable[[models._Model], str]
    ) -> None:
        assert SECRET not in dump(response(echo={"list": [f"<{SECRET}>"], SECRET: 1}))

    def test_the_client_secret_echoed_under_another_name_in_a_nested_model(
        self, dump: Callable[[models._Model], str]
    ) -> None:
        assert SECRET not in dump(response(workflow={"id": "wf", "echo": f"<{SECRET}>"}))

    def test_a_state_variable_named_like_a_secret(
        self, dump: Callable[[models._Model], str]
    ) -> None:
        dumped = dump(response())

        assert "hidden-value" not in dumped
        assert "api_key" in dumped
        assert "pro" in dumped


def test_null_stays_null_under_a_name_like_a_secret() -> None:
    assert response(refresh_token=None).model_dump()["refresh_token"] is None


def test_other_state_variables_are_dumped_as_they_are() -> None:
    workflow = response().model_dump()["workflow"]

    assert workflow["state_variables"] == {"plan": "pro", "api_key": MASK, "retries": 3}


def test_no_state_variables_are_dumped_as_none() -> None:
    assert ChatKitWorkflow(id="wf").model_dump()["state_variables"] is None


def test_state_variables_are_not_shown() -> None:
    shown = repr(response())

    assert "state_variables" not in shown
    assert "hidden-value" not in shown


def test_masking_leaves_the_session_itself_unchanged() -> None:
    session = response(refresh_token="kept", note="ek_kept")

    session.model_dump_json()

    assert session.model_extra == {"refresh_token": "kept", "note": "ek_kept"}
    assert session.workflow is not None
    assert session.workflow.state_variables is not None
    assert session.workflow.state_variables["api_key"] == "hidden-value"


class TestSessionInfo:
    def test_it_drops_the_secret(self) -> None:
        session = info()

        assert not hasattr(session, "client_secret")
        assert session.model_extra == {}
        assert SECRET not in repr(vars(session))

    def test_it_drops_it_from_json_too(self) -> None:
        session = ChatKitSessionInfo.model_validate_json(json.dumps({**FULL, "source": "api"}))

        assert not hasattr(session, "client_secret")

    def test_it_does_not_change_the_dictionary_it_was_given(self) -> None:
        given = {**FULL, "source": "api"}

        ChatKitSessionInfo.model_validate(given)

        assert given["client_secret"] == SECRET

    @pytest.mark.parametrize(
        "flaw", [{"expires_at": "soon"}, {"id": None}, {"source": "guess"}, {"workflow": []}]
    )
    def test_its_validation_error_does_not_hold_the_secret(self, flaw: dict[str, object]) -> None:
        with pytest.raises(ValidationError) as caught:
            info(**flaw)

        assert SECRET not in repr(caught.value.errors())
        assert SECRET not in str(caught.value)

    def test_a_missing_field_does_not_bring_the_secret_into_the_validation_error(self) -> None:
        with pytest.raises(ValidationError) as caught:
            ChatKitSessionInfo.model_validate(FULL)  # without source

        assert SECRET not in repr(caught.value.errors())

    @pytest.mark.parametrize("given", [[], "text", None, 5])
    def test_what_is_no_object_is_invalid(self, given: object) -> None:
        with pytest.raises(ValidationError):
            ChatKitSessionInfo.model_validate(given)

    @pytest.mark.parametrize("source", ["api", "record"])
    def test_its_source_is_the_api_or_a_record(self, source: str) -> None:
        assert info(source=source).source == source

    @pytest.mark.parametrize("source", ["guess", None, ""])
    def test_any_other_source_is_invalid(self, source: str | None) -> None:
        with pytest.raises(ValidationError, match="source"):
            info(source=source)


class TestCancelledSession:
    @pytest.mark.parametrize("status", ["cancelled", "expired", "new-word", None])
    def test_it_has_any_status_but_active(self, status: str | None) -> None:
        assert CancelledSession.model_validate({"id": "s", "status": status}).status == status

    def test_active_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="must not be active"):
            CancelledSession.model_validate({"id": "s", "status": "active"})

    def test_the_emptied_secret_of_the_contract_is_no_obstacle(self) -> None:
        answer = {**FULL, "status": "cancelled", "client_secret": ""}

        assert CancelledSession.model_validate(answer).user == "user_1"


class TestErrorResponse:
    def test_message_and_type_are_enough(self) -> None:
        answer = ChatKitErrorResponse.model_validate({"error": {"message": "m", "type": "t"}})

        assert answer.error == ChatKitErrorDetail(message="m", type="t", param=None, code=None)

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"error": None},
            {"error": "text"},
            {"error": {}},
            {"error": {"message": "m"}},
            {"error": {"type": "t"}},
            {"error": {"message": None, "type": "t"}},
            {"error": {"message": "m", "type": "t", "code": 5}},
        ],
        ids=str,
    )
    def test_anything_less_is_invalid(self, answer: object) -> None:
        with pytest.raises(ValidationError):
            ChatKitErrorResponse.model_validate(answer)


M = TypeVar("M", bound=models._Model)


def pickled(model: M) -> M:
    result: M = pickle.loads(pickle.dumps(model))  # noqa: S301 -- our own bytes
    return result


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize(
    "model", [response(extra=[1]), info(extra={"a": None})], ids=["response", "info"]
)
class TestCopies:
    def test_a_copy_is_equal_and_complete(
        self,
        model: ChatKitSessionResponse | ChatKitSessionInfo,
        duplicate: Callable[[models._Model], models._Model],
    ) -> None:
        twin = duplicate(model)

        assert twin == model
        assert type(twin) is type(model)
        assert twin.model_extra == model.model_extra
        assert repr(twin) == repr(model)


def test_a_copied_session_still_has_its_secret() -> None:
    assert pickled(response()).for_browser() == response().for_browser()


@pytest.mark.parametrize(
    "change",
    [{"id": "other"}, {"client_secret": "other"}, {"expires_at": SECONDS + 1}, {"extra": 1}],
    ids=str,
)
def test_sessions_are_equal_only_if_every_field_is(change: dict[str, object]) -> None:
    assert response() == response()
    assert response() != response(**change)


def test_users_can_construct_sessions_themselves() -> None:
    session = ChatKitSessionResponse(
        id="s", client_secret=SecretStr("x"), expires_at=MOMENT, workflow=ChatKitWorkflow(id="wf")
    )

    assert session.for_browser()["client_secret"] == "x"
    assert session.workflow == ChatKitWorkflow(id="wf")
    assert ChatKitSessionInfo(id="s", expires_at=MOMENT, source="record").user is None


def test_a_new_client_has_built_every_model() -> None:
    """Otherwise the first calls build them, in several threads at once."""
    script = (
        "from chatkit_sessions import ChatKitClient, models\n"
        "print([each.__name__ for each in models.MODELS if each.__pydantic_complete__])\n"
        "ChatKitClient(api_key='sk-test-0123456789', workflow_id='wf_1')\n"
        "print([each.__name__ for each in models.MODELS if not each.__pydantic_complete__])\n"
    )

    done = subprocess.run(  # noqa: S603 -- our own script
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "[]\n[]\n"
    assert {ChatKitSessionResponse, ChatKitWorkflow} < set(models.MODELS)
