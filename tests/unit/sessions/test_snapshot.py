"""What is made of what a store holds."""

import dataclasses
import json

import pytest
from hypothesis import given, strategies as st
from pydantic import SecretStr

from chatkit_sessions import (
    APIResponseValidationError,
    APITimeoutError,
    ChatKitError,
    ChatKitErrorDetail,
    ChatKitSessionResponse,
    ConfigurationError,
    InternalServerError,
    RateLimitError,
    SessionDeletedError,
)
from chatkit_sessions._sessions.entries import (
    DAY,
    StoreSnapshot,
    encode_failure,
    parse_failure,
    parse_record,
    parse_snapshot,
    publish,
    snapshot_names,
)
from chatkit_sessions._sessions.identity import Identity
from chatkit_sessions.stores import Entry
from stored_sessions import (
    IDENTITY,
    LEASE,
    RECORD_GROUP,
    SCOPE,
    SESSION,
    created,
    entry,
    stored,
)
from support import SECRET, session_json

ASKED_AT = 1000.0


def snapshot_of(
    identity: Identity,
    secret: Entry | None,
    reused: Entry | None,
    lease: Entry | None,
    generation: Entry | None,
    *presented: Entry | None,
    failure: Entry | None = None,
) -> StoreSnapshot:
    entries = [secret, reused, lease, failure, generation, *presented]
    return parse_snapshot(identity, entries, asked_at=ASKED_AT)


class TestSessionsInAStore:
    def test_are_read_as_they_were_written(self) -> None:
        what = snapshot_of(IDENTITY, stored(), None, None, None)

        assert what.session == SESSION
        assert what.session is not None
        assert what.session.client_secret == SecretStr(SECRET)
        assert what.works_until == ASKED_AT + 600
        assert what.reused

    def test_hold_neither_state_nor_unknown_fields(self) -> None:
        workflow: dict[str, object] = {"id": "wf_test", "state_variables": {"plan": "secret plan"}}
        session = ChatKitSessionResponse.model_validate(
            session_json(workflow=workflow, novelty="unheard of")
        )

        value = stored(session).value.decode()

        assert "secret plan" not in value
        assert "unheard of" not in value

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"{}",
            b"null",
            b"[]",
            b"\xff\xfe",
            b"{" * 10_000,
            b'{"identity": "x"}',
            json.dumps({"identity": IDENTITY.description, "session": {"id": "x"}}).encode(),
        ],
    )
    def test_that_cannot_be_read_are_none(self, value: bytes) -> None:
        what = snapshot_of(IDENTITY, entry(value), None, None, None)

        assert what.session is None
        assert what.value == value

    @given(value=st.binary())
    def test_of_any_bytes_never_break_anything(self, value: bytes) -> None:
        assert snapshot_of(IDENTITY, entry(value), None, None, None).session is None
        assert parse_record(entry(value), "cksess_new") is None

    def test_of_another_identity_are_none(self) -> None:
        """Nobody gets another user's session, not even if two names were the same."""
        other = Identity(SCOPE, "user_of_another_name", b"{}")

        assert snapshot_of(other, stored(), None, None, None).session is None

    def test_of_before_the_last_sign_out_are_none(self) -> None:
        """From that very moment on, though they are removed only thereafter."""
        secret = stored(generation=b"1")

        assert snapshot_of(IDENTITY, secret, None, None, entry("1")).session == SESSION
        assert snapshot_of(IDENTITY, secret, None, None, entry("2")).session is None
        assert snapshot_of(IDENTITY, stored(), None, None, entry("2")).session is None
        # … and a sign-out that is a day ago is forgotten.
        assert snapshot_of(IDENTITY, secret, None, None, None).session == SESSION

    def test_are_shown_to_nobody(self) -> None:
        transaction = publish(created(), generation=None, lease=LEASE, now=0.0)
        shown = f"{stored()!r} {transaction!r} {created()!r}"

        assert SECRET not in shown

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    def test_that_have_run_out_already_are_known_and_not_kept(self, seconds: float) -> None:
        changes = publish(
            created(works_until=ASKED_AT + seconds), generation=None, lease=None, now=ASKED_AT
        ).changes

        assert changes[f"secret:{IDENTITY.slot}"] is None
        listed = changes[f"session:{RECORD_GROUP}"]
        assert listed is not None
        assert listed.seconds == DAY + 600
        assert "shared:" not in str([*changes])


class TestStoreSnapshot:
    def test_is_usable_while_it_lasts(self) -> None:
        what = StoreSnapshot(session=SESSION, works_until=160.0)

        assert what.usable(60.0, now=100.0) is SESSION
        assert what.usable(60.1, now=100.0) is None
        assert what.usable(0.0, now=160.0) is None
        assert StoreSnapshot().usable(0.0, now=0.0) is None

    def test_is_not_usable_in_place_of_itself(self) -> None:
        what = StoreSnapshot(session=SESSION, works_until=60.0)

        assert what.usable(0.0, now=0.0, instead_of=SecretStr(SECRET)) is None
        assert what.usable(0.0, now=0.0, instead_of=SecretStr("ek_other")) is SESSION

    def test_tells_what_somebody_else_has_made_meanwhile_whatever_it_has_left(self) -> None:
        before = StoreSnapshot()
        now = StoreSnapshot(session=SESSION, works_until=0.1, value=b"new")

        assert now.newer_than(before, first=before, now=0.0, instead_of=None) is SESSION
        assert now.newer_than(now, first=before, now=0.0, instead_of=None) is None
        assert now.newer_than(before, first=before, now=0.0, instead_of=SecretStr(SECRET)) is None

    def test_a_sign_out_ends_what_was_begun_before(self) -> None:
        first, now = StoreSnapshot(), StoreSnapshot(generation=b"1")

        with pytest.raises(SessionDeletedError):
            now.newer_than(first, first=first, now=0.0, instead_of=None)

    def test_a_sign_out_long_ago_that_is_forgotten_ends_nothing(self) -> None:
        first, now = StoreSnapshot(generation=b"1"), StoreSnapshot()

        assert now.newer_than(first, first=first, now=0.0, instead_of=None) is None

    def test_a_session_was_reused_as_long_as_that_is_remembered(self) -> None:
        assert snapshot_of(IDENTITY, None, entry("1"), None, None).reused
        assert not snapshot_of(IDENTITY, None, None, None, None).reused

    def test_tells_who_holds_the_lease_and_which_sign_out_came_last(self) -> None:
        what = snapshot_of(IDENTITY, None, None, entry("me"), entry("2"))

        assert (what.lease, what.generation) == (b"me", b"2")
        assert len(snapshot_names(IDENTITY)) == 5
        assert len(snapshot_names(IDENTITY, SecretStr(SECRET))) == 6
        assert not what.presented_is_shared
        assert snapshot_of(IDENTITY, None, None, None, None, entry("1")).presented_is_shared

    def test_a_session_of_another_user_is_nobody_s(self) -> None:
        """Whoever can write the store may have put it there."""
        other = ChatKitSessionResponse.model_validate(session_json(user="user_of_another_name"))
        nameless = ChatKitSessionResponse.model_validate(session_json(user=None))

        assert snapshot_of(IDENTITY, stored(other), None, None, None).session is None
        assert snapshot_of(IDENTITY, stored(nameless), None, None, None).session == nameless


class TestAFailure:
    failure = encode_failure(InternalServerError("Ouch.", status_code=500), token=b"me")
    wait = encode_failure(RateLimitError("Later.", status_code=429, retry_after=20.0), token=b"me")

    def test_is_shared_by_whoever_has_waited_for_it(self) -> None:
        first, now = StoreSnapshot(), StoreSnapshot(failure=self.failure)

        with pytest.raises(InternalServerError, match="Ouch"):
            now.newer_than(first, first=first, now=0.0, instead_of=None)
        assert now.newer_than(first, first=now, now=0.0, instead_of=None) is None
        now.check_rate_limit()

    def test_with_retry_after_is_shared_until_then(self) -> None:
        assert self.wait is not None
        now = StoreSnapshot(failure=dataclasses.replace(self.wait, seconds=5.0))

        with pytest.raises(RateLimitError) as caught:
            now.check_rate_limit()

        assert caught.value.retry_after == 5.0

    def test_that_cannot_be_read_is_none(self) -> None:
        first, now = StoreSnapshot(), StoreSnapshot(failure=entry("nonsense"))

        assert now.newer_than(first, first=first, now=0.0, instead_of=None) is None
        now.check_rate_limit()

    @pytest.mark.parametrize(
        "kind", ["Nonsense", "ConfigurationError", "APIResponseValidationError"]
    )
    def test_of_an_unknown_kind_is_none(self, kind: str) -> None:
        assert self.failure is not None
        value = self.failure.value.replace(b"InternalServerError", kind.encode())

        assert parse_failure(entry(value)) is None

    def test_of_the_caller_s_own_making_is_not_shared(self) -> None:
        assert encode_failure(ConfigurationError("No key."), token=b"me") is None

    def test_is_read_as_it_was_written(self) -> None:
        detail = ChatKitErrorDetail(message="Ouch.", type="server_error", code="x")
        errors: list[ChatKitError] = [
            RateLimitError(
                "Ouch.",
                status_code=429,
                error=detail,
                body={"a": "b"},
                request_id="r",
                hint="Wait.",
            ),
            APITimeoutError("Too late.", answered=True),
            APIResponseValidationError(
                "Odd.", status_code=200, content_type="x", content_length=5, request_id=None
            ),
        ]
        for error in errors:
            stored = encode_failure(error, token=b"me")
            assert stored is not None
            again = parse_failure(stored)

            assert type(again) is type(error)
            assert str(again) == str(error)
            assert again is not None
            assert vars(again) == {
                **vars(error),
                **({"body": None} if "body" in vars(error) else {}),
            }
