"""What is kept of sessions in a store, what is made of what is found there, and when it is out."""

import dataclasses
import json
import logging
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from chatkit_sessions import ChatKitSessionResponse, SessionDeletedError, SessionStoreError
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.identity import Scope
from chatkit_sessions._sessions.records import (
    DAY,
    GENERATION,
    LEASE,
    NOTHING_FOUND,
    RETRY_STORE_AFTER,
    Created,
    Found,
    Health,
    Known,
    SessionRecord,
    end_of_lease,
    found,
    known_for,
    lease,
    lease_seconds,
    names_to_look_up,
    pause,
    publication,
    read_record,
    recording,
    session_ids,
    taking_out,
    works_for,
)
from chatkit_sessions.stores import Entry
from support import NOON, SECRET, Time, session_json

SCOPE = Scope(
    base_url="https://chatkit.test/v1",
    organization=None,
    project=None,
    namespace="shop",
    key=None,
)
IDENTITY = SCOPE.identity("user_123", b"{}")
PLACE = SCOPE.group_of_session("cksess_new")
SESSION = ChatKitSessionResponse.model_validate(
    session_json(client_secret=SECRET, request_id="req_1", answered_at="2026-11-22T12:00:00Z")
)


def entry(text: str | bytes, seconds: float = 600.0) -> Entry:
    return Entry(MaskedBytes(text.encode() if isinstance(text, str) else text), seconds)


def created(session: ChatKitSessionResponse = SESSION, *, seconds: float = 600.0) -> Created:
    return Created(session, RECORD, PLACE, IDENTITY, seconds, kept=DAY + 600, share=True)


RECORD = SessionRecord(
    id="cksess_new",
    user="user_123",
    workflow_id="wf_test",
    workflow_version=None,
    expires_at=NOON,
    status="active",
    group=IDENTITY.group,
    slot=IDENTITY.slot,
)


def stored(session: ChatKitSessionResponse = SESSION, *, generation: bytes | None = None) -> Entry:
    """A session as it lies in a store."""
    secret = publication(created(session), generation=generation).changes[f"secret:{IDENTITY.slot}"]
    assert secret is not None
    return secret


class TestSessionsInAStore:
    def test_are_read_as_they_were_written(self) -> None:
        what = found(IDENTITY, [stored(), None, None, None])

        assert what.session == SESSION
        assert what.session is not None
        assert what.session.client_secret == SecretStr(SECRET)
        assert what.seconds == 600.0
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
        what = found(IDENTITY, [entry(value), None, None, None])

        assert what.session is None
        assert what.value == value

    @given(value=st.binary())
    def test_of_any_bytes_never_break_anything(self, value: bytes) -> None:
        assert found(IDENTITY, [entry(value), None, None, None]).session is None
        assert read_record(entry(value), "cksess_new") is None

    def test_of_another_identity_are_none(self) -> None:
        """Nobody gets another user's session, not even if two names were the same."""
        other = SCOPE.identity("user_of_another_name", b"{}")

        assert found(other, [stored(), None, None, None]).session is None

    def test_of_before_the_last_sign_out_are_none(self) -> None:
        """From that very moment on, though they are removed only thereafter."""
        secret = stored(generation=b"1")

        assert found(IDENTITY, [secret, None, None, entry("1")]).session == SESSION
        assert found(IDENTITY, [secret, None, None, entry("2")]).session is None
        assert found(IDENTITY, [stored(), None, None, entry("2")]).session is None
        # … and a sign-out that is a day ago is forgotten.
        assert found(IDENTITY, [secret, None, None, None]).session == SESSION

    def test_are_shown_to_nobody(self) -> None:
        shown = f"{stored()!r} {publication(created(), generation=None)!r} {created()!r}"

        assert SECRET not in shown

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    def test_that_have_run_out_already_are_known_and_not_kept(self, seconds: float) -> None:
        changes = publication(created(seconds=seconds), generation=None).changes

        assert changes[f"secret:{IDENTITY.slot}"] is None
        listed = changes[f"session:{PLACE}"]
        assert listed is not None
        assert listed.seconds == DAY + 600
        assert "shared:" not in str([*changes])


class TestFound:
    def test_is_usable_while_it_lasts(self) -> None:
        what = Found(session=SESSION, seconds=60.0)

        assert what.usable(60.0) is SESSION
        assert what.usable(60.1) is None
        assert NOTHING_FOUND.usable(0.0) is None

    def test_is_not_usable_in_place_of_itself(self) -> None:
        what = Found(session=SESSION, seconds=60.0)

        assert what.usable(0.0, instead_of=SecretStr(SECRET)) is None
        assert what.usable(0.0, instead_of=SecretStr("ek_other")) is SESSION

    @pytest.mark.parametrize(
        ("what", "may_refresh"),
        [
            (Found(session=SESSION, reused=True), True),
            (Found(session=SESSION, reused=True, presented_is_shared=True), True),
            (Found(), True),
            (Found(presented_is_shared=True), False),
            (Found(reused=True), False),
            (NOTHING_FOUND, True),
        ],
    )
    def test_says_whether_a_refresh_would_take_a_session_from_others(
        self, what: Found, *, may_refresh: bool
    ) -> None:
        assert what.may_refresh(SecretStr(SECRET)) is may_refresh

    def test_tells_what_somebody_else_has_made_meanwhile_whatever_it_has_left(self) -> None:
        before = Found()
        now = Found(session=SESSION, seconds=0.1, value=b"new")

        assert now.newer_than(before, begun=before, instead_of=None) is SESSION
        assert now.newer_than(now, begun=before, instead_of=None) is None
        assert now.newer_than(before, begun=before, instead_of=SecretStr(SECRET)) is None

    def test_a_sign_out_ends_what_was_begun_before(self) -> None:
        begun, now = Found(), Found(generation=b"1")

        with pytest.raises(SessionDeletedError):
            now.newer_than(begun, begun=begun, instead_of=None)

    def test_a_sign_out_long_ago_that_is_forgotten_ends_nothing(self) -> None:
        begun, now = Found(generation=b"1"), Found()

        assert now.newer_than(begun, begun=begun, instead_of=None) is None

    def test_a_session_was_reused_as_long_as_that_is_remembered(self) -> None:
        assert found(IDENTITY, [None, entry("1"), None, None]).reused
        assert not found(IDENTITY, [None, None, None, None]).reused

    def test_tells_who_holds_the_lease_and_which_sign_out_came_last(self) -> None:
        what = found(IDENTITY, [None, None, entry("me"), entry("2")])

        assert (what.lease, what.generation) == (b"me", b"2")
        assert len(names_to_look_up(IDENTITY)) == 4
        assert len(names_to_look_up(IDENTITY, SecretStr(SECRET))) == 5
        assert not what.presented_is_shared
        assert found(IDENTITY, [None] * 4 + [entry("1")]).presented_is_shared


class TestRecords:
    def test_are_read_as_they_were_written(self) -> None:
        (written,) = recording(PLACE, RECORD, 700.0).changes.values()

        known = read_record(written, RECORD.id)

        assert known == Known(RECORD, 700.0)

    def test_of_another_session_are_none(self) -> None:
        (written,) = recording(PLACE, RECORD, 700.0).changes.values()

        assert read_record(written, "cksess_other") is None
        assert read_record(None, RECORD.id) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": 5},
            {"id": None},
            {"expires_at": "soon"},
            {"expires_at": "2026-11-22T12:00:00"},
            {"user": ["user_123"]},
            {"slot": 1},
        ],
        ids=str,
    )
    def test_that_cannot_be_read_are_none(self, changes: dict[str, object]) -> None:
        (written,) = recording(PLACE, RECORD, 700.0).changes.values()
        assert written is not None
        told = {**json.loads(written.value), **changes}

        assert read_record(entry(json.dumps(told)), RECORD.id) is None

    def test_hold_no_secret(self) -> None:
        assert "client_secret" not in {each.name for each in dataclasses.fields(SessionRecord)}

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(RECORD, "status", "cancelled")  # noqa: B010 -- the type checker knows better

    @pytest.mark.parametrize(
        ("status", "may_work"),
        [
            ("active", True),
            (None, True),
            ("paused", True),
            ("cancelled", False),
            ("expired", False),
        ],
    )
    def test_tell_whether_the_secret_may_still_work(
        self, status: str | None, *, may_work: bool
    ) -> None:
        record = dataclasses.replace(RECORD, status=status)

        assert Known(record, DAY + 1).may_work is may_work

    def test_list_sessions_by_their_ids(self) -> None:
        listed = [entry("a", DAY + 1), None, entry(b"\xff", DAY + 1), entry("over", DAY)]

        assert session_ids(listed, ended=True) == ["a", "\ufffd", "over"]
        assert session_ids(listed, ended=False) == ["a", "\ufffd"]


class TestTakingOut:
    known = Known(RECORD, 700.0)

    def test_removes_the_secret_if_it_is_still_that_one(self) -> None:
        secret = stored()

        transaction = taking_out(self.known, secret)

        assert transaction is not None
        assert transaction.group == IDENTITY.group
        assert dict(transaction.changes) == {f"secret:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"secret:{IDENTITY.slot}": secret.value}

    def test_leaves_what_is_not_that_session(self) -> None:
        other = ChatKitSessionResponse.model_validate(session_json(id="cksess_other"))

        assert taking_out(self.known, stored(other)) is None
        assert taking_out(self.known, None) is None
        assert taking_out(self.known, entry("nonsense")) is None

    def test_of_a_session_of_nobody_is_nothing(self) -> None:
        record = dataclasses.replace(RECORD, group=None)

        assert taking_out(Known(record, 700.0), stored()) is None


class TestLifetime:
    def at(self, answered_at: datetime | None, **changes: object) -> ChatKitSessionResponse:
        return SESSION.model_copy(update={"answered_at": answered_at, **changes})

    def test_is_told_by_the_api_s_own_clock(self) -> None:
        session = self.at(NOON + timedelta(seconds=30))

        assert works_for(session, asked_for=600, elapsed=2.5) == 570 - 2.5

    def test_is_never_more_than_was_asked_for(self) -> None:
        session = self.at(NOON - timedelta(hours=1))

        assert works_for(session, asked_for=300, elapsed=0) == 300

    def test_is_what_was_asked_for_where_the_api_does_not_tell(self) -> None:
        assert works_for(self.at(None), asked_for=300, elapsed=1) == 299

    def test_can_be_over_already(self) -> None:
        assert works_for(self.at(NOON + timedelta(hours=1)), asked_for=300, elapsed=0) < 0

    def test_is_longer_for_what_is_known_so_that_a_sign_out_misses_nothing(self) -> None:
        short = self.at(NOON, expires_at=NOON + timedelta(seconds=5))
        long = self.at(NOON, expires_at=NOON + timedelta(hours=1))
        absurd = self.at(NOON, expires_at=NOON + timedelta(days=10_000))

        assert known_for(self.at(None), asked_for=300) == 300 + DAY
        assert known_for(short, asked_for=300) == 300 + DAY
        assert known_for(long, asked_for=300) == 3600 + DAY
        assert known_for(absurd, asked_for=300) == DAY + DAY

    @given(
        skew=st.integers(-(10**6), 10**6),
        lasts=st.integers(1, 600),
        elapsed=st.floats(0, 1000),
    )
    def test_does_not_depend_on_which_time_it_is(
        self, skew: int, lasts: int, elapsed: float
    ) -> None:
        answered_at = NOON + timedelta(seconds=skew)
        session = self.at(answered_at, expires_at=answered_at + timedelta(seconds=lasts))

        assert works_for(session, asked_for=600, elapsed=elapsed) == lasts - elapsed


class TestWaiting:
    @given(waits=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
    def test_pauses_are_short_and_vary(self, waits: int, random: float) -> None:
        assert 0.01 <= pause(waits, random=lambda: random) <= 0.25

    def test_pauses_grow(self) -> None:
        pauses = [pause(waits, random=lambda: 0.0) for waits in range(5)]

        assert pauses == sorted(set(pauses))

    def test_a_lease_ends_with_the_call(self) -> None:
        def clock() -> float:
            return 100.0

        assert lease_seconds(Deadline.after(3.0, clock)) == 3.0
        assert lease_seconds(Deadline.after(None, clock)) == LEASE
        assert lease_seconds(Deadline.after(60.0, clock)) == LEASE
        assert lease_seconds(Deadline(clock, 100.0)) == LEASE

    def test_a_lease_is_ended_only_by_who_has_it(self) -> None:
        """Whoever comes back after it has run out must not end another one's."""
        transaction = end_of_lease(IDENTITY, token=b"me")

        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": None}
        assert dict(transaction.when) == {f"lease:{IDENTITY.slot}": b"me"}

    def test_a_lease_depends_on_nobody_having_been_quicker(self) -> None:
        seen = Found(value=b"old", generation=b"7")

        transaction = lease(IDENTITY, seen, token=b"me", seconds=9.0)

        assert dict(transaction.when) == {
            f"lease:{IDENTITY.slot}": None,
            f"secret:{IDENTITY.slot}": b"old",
            GENERATION: b"7",
        }
        assert dict(transaction.changes) == {f"lease:{IDENTITY.slot}": entry(b"me", 9.0)}


class TestHealth:
    error = SessionStoreError("The session store does not answer (too tired).")

    def test_a_store_that_answers_is_asked(self, time: Time) -> None:
        health = Health(lambda: time.monotonic)
        health.answered()

        assert health.may_ask()
        assert health.may_ask()

    def test_one_that_does_not_is_asked_once_a_second(self, time: Time) -> None:
        health = Health(lambda: time.monotonic)
        health.failed(self.error)

        assert not health.may_ask()
        time.advance(RETRY_STORE_AFTER)
        assert health.may_ask()
        assert not health.may_ask()
        health.answered()
        assert health.may_ask()
        assert health.may_ask()

    def test_an_outage_is_logged_once_at_its_beginning_and_its_end(
        self, time: Time, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "chatkit_sessions")
        health = Health(lambda: time.monotonic)

        for _ in range(2):
            for _ in range(10):
                time.advance(10)
                health.failed(self.error)
            for _ in range(10):
                health.answered()

        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert told == 2 * [
            (
                "WARNING",
                (
                    "The session store does not answer (too tired). Until it does, sessions are "
                    "created without it."
                ),
            ),
            ("INFO", "The session store answers again."),
        ]
