"""Whatever workers do, in any order: sessions are shared, ended and told as they should be.

The same random history goes over a store in memory and over one in Redis; both have to agree with
each other, and with what a user would expect.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatkit_sessions import ChatKitClient, ChatKitSessionResponse
from redis_server import RedisServer, execute
from support import Connect, Kind, Time
from workers import STORE_KINDS, Backend

USERS = st.sampled_from(["user_1", "user_2"])
WORKERS = st.integers(0, 1)
HISTORY = st.sampled_from([None, True])


@dataclass
class World:
    """One backend of two workers, and every session that it was given, in order."""

    backend: Backend
    workers: list[ChatKitClient]
    sessions: list[ChatKitSessionResponse] = field(default_factory=list[ChatKitSessionResponse])

    def remember(self, session: ChatKitSessionResponse) -> int:
        """The session's number, which means the same in both worlds."""
        ids = [each.id for each in self.sessions]
        if session.id not in ids:
            self.sessions.append(session)
            return len(ids)
        return ids.index(session.id)

    def number(self, session_id: str) -> int:
        return [each.id for each in self.sessions].index(session_id)


class Histories(RuleBasedStateMachine):
    """Two worlds with the same history."""

    kind: Kind = "sync"
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        with self.server.client() as client:
            execute(client, "FLUSHALL")
        self.worlds = [self._world(name) for name in STORE_KINDS]

    def _world(self, name: str) -> World:
        connect = Connect(self.kind, "transport", Time(), self._stack)
        server = self.server if name == "redis" else None
        backend = Backend(connect, "redis" if server else "memory", server, self._stack)
        return World(backend, [backend.worker(), backend.worker()])

    def teardown(self) -> None:
        self._stack.close()

    @rule(user=USERS, worker=WORKERS, history=HISTORY)
    def get_or_create(self, user: str, worker: int, history: bool | None) -> None:  # noqa: FBT001 -- drawn
        told = [
            world.remember(world.workers[worker].get_or_create_session(user, history=history))
            for world in self.worlds
        ]

        assert told[0] == told[1]

    @rule(user=USERS, worker=WORKERS)
    def create(self, user: str, worker: int) -> None:
        for world in self.worlds:
            known = len(world.sessions)
            assert world.remember(world.workers[worker].create_session(user)) == known

    @precondition(lambda self: self.worlds[0].sessions)
    @rule(data=st.data(), worker=WORKERS, history=HISTORY)
    def refresh(self, data: st.DataObject, worker: int, history: bool | None) -> None:  # noqa: FBT001 -- drawn
        number = data.draw(st.integers(0, len(self.worlds[0].sessions) - 1))
        told: list[int] = []
        for world in self.worlds:
            presented = world.sessions[number]
            session = world.workers[worker].refresh_session(
                presented.client_secret, user=str(presented.user), history=history
            )
            assert session.client_secret != presented.client_secret
            assert session.user == presented.user
            told.append(world.remember(session))

        assert told[0] == told[1]

    @precondition(lambda self: self.worlds[0].sessions)
    @rule(data=st.data(), worker=WORKERS)
    def delete(self, data: st.DataObject, worker: int) -> None:
        number = data.draw(st.integers(0, len(self.worlds[0].sessions) - 1))
        for world in self.worlds:
            world.workers[worker].delete_session(world.sessions[number].id)

    @rule(user=USERS, worker=WORKERS)
    def sign_out(self, user: str, worker: int) -> None:
        for world in self.worlds:
            world.workers[worker].delete_sessions(user)
            assert all(
                info.status != "active" for info in world.workers[1 - worker].sessions_for(user)
            )

    @rule(seconds=st.sampled_from([50, 200, 500, 3_600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        for world in self.worlds:
            world.backend.advance(seconds)

    @invariant()
    def both_worlds_tell_the_same(self) -> None:
        for user in ("user_1", "user_2"):
            told = [
                sorted(
                    (world.number(info.id), str(info.status))
                    for info in world.workers[0].sessions_for(user)
                )
                for world in self.worlds
            ]
            assert told[0] == told[1]

    @invariant()
    def what_would_be_handed_out_works(self) -> None:
        for world in self.worlds:
            secrets = world.backend.stored()
            for session in world.sessions:
                if session.client_secret.get_secret_value() in secrets:
                    lives = world.backend.fake.sessions[session.id]
                    assert lives.status == "active", session.id


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_any_history_is_the_same_over_both_stores(kind: Kind, redis_server: RedisServer) -> None:
    machine = type("Machine", (Histories,), {"kind": kind, "server": redis_server})
    case = cast("type[RuleBasedStateMachine]", machine).TestCase
    case.settings = settings(max_examples=25, stateful_step_count=15)

    case().runTest()
