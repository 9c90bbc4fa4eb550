"""Commands and scripts over a redis-py client; whatever it raises becomes a SessionStoreError."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from chatkit_sessions._concurrency.tasks import PerLoop, under_trio
from chatkit_sessions._concurrency.threads import interrupt_in
from chatkit_sessions._redaction import without_frames
from chatkit_sessions.errors import ConfigurationError

from ._redis_commands import (
    COMMIT,
    INFO,
    Argument,
    Command,
    Script,
    wait_command,
    warn_of_eviction,
)
from ._redis_connections import (
    AS_BYTES,
    Commands,
    disconnecting,
    failure,
    is_unknown_script,
    leads_nowhere,
)


class Execution:
    """Sends commands over a client; over a synchronous one, nothing here suspends.

    Args:
        client: A client of redis-py, or one for each event loop.
        asynchronous: Whether the client is asyncio's.
        initialize: What a cluster's client needs before its first command.
    """

    def __init__(
        self,
        client: Commands | PerLoop[Commands],
        *,
        asynchronous: bool,
        initialize: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.client: Final = client
        self._asynchronous = asynchronous
        self._initialize = initialize
        self._is_checked = False

    async def run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """Run a script, which Redis is given if it does not have it."""
        reply = await self.command("EVALSHA", script.sha, *arguments)
        return await self.command("EVAL", script.text, *arguments) if reply is None else reply

    async def command(self, *command: Argument) -> object:
        """Run one command; None where it names a script that Redis has not been given."""
        return await self._raising(lambda client: client.execute_command(*command, **AS_BYTES))

    async def commit(self, arguments: Sequence[Argument]) -> bool:
        """Run `COMMIT`; the first time, look for a setting that lets Redis forget."""
        if self._is_checked:
            return await self.run(COMMIT, arguments) == 1
        self._is_checked = True
        committed, info = await self._together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return _required(committed) == 1

    async def commit_to(
        self, replicas: int, arguments: Sequence[Argument], *, seconds: float
    ) -> bool:
        """Run `COMMIT`; return whether that many replicas have confirmed it within the time."""
        wait = wait_command(replicas, seconds)
        _, confirmed = map(_required, await self._together([COMMIT.with_text(arguments), wait]))
        return cast("int", confirmed) >= replicas

    async def read(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands that are sent in one round trip."""
        return [_required(each) for each in await self._together(commands)]

    async def _together(self, commands: Sequence[Command]) -> list[object]:
        """Run commands in one round trip; an error is returned in place of a reply."""

        def send(client: Commands) -> object:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command, **AS_BYTES)
            return pipeline.execute(raise_on_error=False)

        return cast("list[object]", await self._raising(send) or [])

    async def _raising(self, function: Callable[[Commands], object]) -> object:
        """What a function returns; once more, over new connections, where these lead elsewhere."""
        if self._asynchronous and under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        client = await self.client.get() if isinstance(self.client, PerLoop) else self.client
        reply = await self._reply(client, function)
        if leads_nowhere(reply):
            for disconnect in disconnecting(client):
                await self._reply(client, disconnect)
            reply = await self._reply(client, function)
        return None if is_unknown_script(reply) else _required(reply)

    async def _reply(self, client: Commands, function: Callable[[Commands], object]) -> object:
        """What a function returns; what redis-py raises instead, without the frames.

        They hold what was sent.
        """
        handled = sys.exception()
        try:
            if self._initialize is not None:
                # Many first commands at once meet a cluster client that is half initialized.
                await self._initialize()
            reply = function(client)
            return await cast("Awaitable[object]", reply) if self._asynchronous else reply
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            interrupt = interrupt_in(error, handled=handled)
            raised = without_frames(error)
        if interrupt is not None:
            raise without_frames(interrupt)
        return raised


def _required(reply: object) -> object:
    """A reply that is no error.

    Raises:
        SessionStoreError: It is one.
    """
    if isinstance(reply, Exception):
        raise failure(reply)
    return reply
