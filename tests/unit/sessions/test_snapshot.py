"""What is made of what a store holds."""

import json

import pytest
from hypothesis import given, strategies as st
from pydantic import SecretStr

from chatkit_sessions import ChatKitSessionResponse, SessionDeletedError
from chatkit_sessions._sessions.records import DAY, parse_record
from chatkit_sessions._sessions.snapshot import (
    UNREACHABLE,
    StoreSnapshot,
    parse_snapshot,
    snapshot_names,
)
from chatkit_sessions._sessions.transactions import publish
from stored_sessions import IDENTITY, RECORD_GROUP, SCOPE, SESSION, created, entry, stored
from support import SECRET, session_json


class TestSessionsInAStore:
    def test_are_read_as_they_were_written(self) -> None:
        what = parse_snapshot(IDENTITY, [stored(), None, None, None])

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
        what = parse_snapshot(IDENTITY, [entry(value), None, None, None])

        assert what.session is None
        assert what.value == value

    @given(value=st.binary())
    def test_of_any_bytes_never_break_anything(self, value: bytes) -> None:
        assert parse_snapshot(IDENTITY, [entry(value), None, None, None]).session is None
        assert parse_record(entry(value), "cksess_new") is None

    def test_of_another_identity_are_none(self) -> None:
        """Nobody gets another user's session, not even if two names were the same."""
        other = SCOPE.identity("user_of_another_name", b"{}")

        assert parse_snapshot(other, [stored(), None, None, None]).session is None

    def test_of_before_the_last_sign_out_are_none(self) -> None:
        """From that very moment on, though they are removed only thereafter."""
        secret = stored(generation=b"1")

        assert parse_snapshot(IDENTITY, [secret, None, None, entry("1")]).session == SESSION
        assert parse_snapshot(IDENTITY, [secret, None, None, entry("2")]).session is None
        assert parse_snapshot(IDENTITY, [stored(), None, None, entry("2")]).session is None
        # … and a sign-out that is a day ago is forgotten.
        assert parse_snapshot(IDENTITY, [secret, None, None, None]).session == SESSION

    def test_are_shown_to_nobody(self) -> None:
        shown = f"{stored()!r} {publish(created(), generation=None)!r} {created()!r}"

        assert SECRET not in shown

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    def test_that_have_run_out_already_are_known_and_not_kept(self, seconds: float) -> None:
        changes = publish(created(seconds=seconds), generation=None).changes

        assert changes[f"secret:{IDENTITY.slot}"] is None
        listed = changes[f"session:{RECORD_GROUP}"]
        assert listed is not None
        assert listed.seconds == DAY + 600
        assert "shared:" not in str([*changes])


class TestStoreSnapshot:
    def test_is_usable_while_it_lasts(self) -> None:
        what = StoreSnapshot(session=SESSION, seconds=60.0)

        assert what.usable(60.0) is SESSION
        assert what.usable(60.1) is None
        assert UNREACHABLE.usable(0.0) is None

    def test_is_not_usable_in_place_of_itself(self) -> None:
        what = StoreSnapshot(session=SESSION, seconds=60.0)

        assert what.usable(0.0, instead_of=SecretStr(SECRET)) is None
        assert what.usable(0.0, instead_of=SecretStr("ek_other")) is SESSION

    def test_tells_what_somebody_else_has_made_meanwhile_whatever_it_has_left(self) -> None:
        before = StoreSnapshot()
        now = StoreSnapshot(session=SESSION, seconds=0.1, value=b"new")

        assert now.newer_than(before, first=before, instead_of=None) is SESSION
        assert now.newer_than(now, first=before, instead_of=None) is None
        assert now.newer_than(before, first=before, instead_of=SecretStr(SECRET)) is None

    def test_a_sign_out_ends_what_was_begun_before(self) -> None:
        first, now = StoreSnapshot(), StoreSnapshot(generation=b"1")

        with pytest.raises(SessionDeletedError):
            now.newer_than(first, first=first, instead_of=None)

    def test_a_sign_out_long_ago_that_is_forgotten_ends_nothing(self) -> None:
        first, now = StoreSnapshot(generation=b"1"), StoreSnapshot()

        assert now.newer_than(first, first=first, instead_of=None) is None

    def test_a_session_was_reused_as_long_as_that_is_remembered(self) -> None:
        assert parse_snapshot(IDENTITY, [None, entry("1"), None, None]).reused
        assert not parse_snapshot(IDENTITY, [None, None, None, None]).reused

    def test_tells_who_holds_the_lease_and_which_sign_out_came_last(self) -> None:
        what = parse_snapshot(IDENTITY, [None, None, entry("me"), entry("2")])

        assert (what.lease, what.generation) == (b"me", b"2")
        assert len(snapshot_names(IDENTITY)) == 4
        assert len(snapshot_names(IDENTITY, SecretStr(SECRET))) == 5
        assert not what.presented_is_shared
        assert parse_snapshot(IDENTITY, [None] * 4 + [entry("1")]).presented_is_shared
