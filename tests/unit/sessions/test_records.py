"""What is kept of a session without its secret, and for how long."""

import dataclasses
import json
from datetime import datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from chatkit_sessions import ChatKitSessionResponse
from chatkit_sessions._api import operations
from chatkit_sessions._sessions.entries import (
    DAY,
    SessionRecord,
    StoredRecord,
    parse_record,
    record_ttl,
    secret_lifetime,
    session_ids,
    store_record,
)
from stored_sessions import RECORD, RECORD_GROUP, SESSION, entry
from support import NOON


class TestRecords:
    def test_are_read_as_they_were_written(self) -> None:
        (written,) = store_record(RECORD_GROUP, StoredRecord(RECORD, 700.0)).changes.values()

        known = parse_record(written, RECORD.id)

        assert known == StoredRecord(RECORD, 700.0)

    def test_of_another_session_are_none(self) -> None:
        (written,) = store_record(RECORD_GROUP, StoredRecord(RECORD, 700.0)).changes.values()

        assert parse_record(written, "cksess_other") is None
        assert parse_record(None, RECORD.id) is None

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
        (written,) = store_record(RECORD_GROUP, StoredRecord(RECORD, 700.0)).changes.values()
        assert written is not None
        told = {**json.loads(written.value), **changes}

        assert parse_record(entry(json.dumps(told)), RECORD.id) is None

    def test_hold_no_secret(self) -> None:
        assert "client_secret" not in {each.name for each in dataclasses.fields(SessionRecord)}

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(RECORD, "status", "cancelled")  # noqa: B010 -- the type checker knows better

    @pytest.mark.parametrize(
        ("status", "may_be_active"),
        [
            ("active", True),
            (None, True),
            ("paused", True),
            ("cancelled", False),
            ("expired", False),
        ],
    )
    def test_tell_whether_the_secret_may_still_work(
        self, status: str | None, *, may_be_active: bool
    ) -> None:
        record = dataclasses.replace(RECORD, status=status)

        assert StoredRecord(record, DAY + 1).may_be_active is may_be_active

    def test_list_sessions_by_their_ids(self) -> None:
        garbage = [entry(value, DAY + 1) for value in (b"\xff", b"", b" ", b"\x00")]
        listed = [entry("a", DAY + 1), None, *garbage, entry("over", DAY)]

        assert session_ids(listed, ended=True) == ["a", "over"]
        assert session_ids(listed, ended=False) == ["a"]

    @pytest.mark.parametrize("session_id", ["sess;1", '"a"', "a…", "a...", "é", "🙂"])
    def test_list_sessions_of_any_id_that_can_be_cancelled(self, session_id: str) -> None:
        assert operations.cancel(session_id).path
        assert session_ids([entry(session_id, DAY + 1)], ended=False) == [session_id]


class TestLifetime:
    def at(self, answered_at: datetime | None, **changes: object) -> ChatKitSessionResponse:
        return SESSION.model_copy(update={"answered_at": answered_at, **changes})

    def test_is_told_by_the_api_s_own_clock(self) -> None:
        session = self.at(NOON + timedelta(seconds=30))

        assert secret_lifetime(session, asked_for=600, elapsed=2.5) == 569 - 2.5

    def test_is_never_more_than_was_asked_for(self) -> None:
        session = self.at(NOON - timedelta(hours=1))

        assert secret_lifetime(session, asked_for=300, elapsed=0) == 299

    def test_is_what_was_asked_for_where_the_api_does_not_tell(self) -> None:
        assert secret_lifetime(self.at(None), asked_for=300, elapsed=1) == 298

    def test_can_be_over_already(self) -> None:
        assert secret_lifetime(self.at(NOON + timedelta(hours=1)), asked_for=300, elapsed=0) < 0

    def test_is_longer_for_what_is_known_so_that_a_sign_out_misses_nothing(self) -> None:
        short = self.at(NOON, expires_at=NOON + timedelta(seconds=5))
        long = self.at(NOON, expires_at=NOON + timedelta(hours=1))
        absurd = self.at(NOON, expires_at=NOON + timedelta(days=10_000))

        assert record_ttl(self.at(None), asked_for=300) == 300 + DAY
        assert record_ttl(short, asked_for=300) == 300 + DAY
        assert record_ttl(long, asked_for=300) == 3600 + DAY
        assert record_ttl(absurd, asked_for=300) == DAY + DAY

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

        assert secret_lifetime(session, asked_for=600, elapsed=elapsed) == lasts - 1 - elapsed
