"""Commands and scripts over a redis-py client; whatever it raises becomes a SessionStoreError."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, cast

from chatkit_sessions._concurrency.event_loop import PerLoop, under_trio
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
from ._redis_connections import AS_BYTES, AsyncCommands, AsyncPipeline, Commands, Pipeline, failure

T = TypeVar("T")
P = TypeVar("P", Pipeline, AsyncPipeline)


class Execution:
    """Sends commands over a client.

    Args:
        client: A client of redis-py.
    """

    def __init__(self, client: Commands) -> None:
        self._client = client
        self._is_checked = False

    def run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """Run a script, which Redis is given if it does not have it."""
        reply = self.command("EVALSHA", script.sha, *arguments)
        return self.command("EVAL", script.text, *arguments) if reply is None else reply

    def command(self, *command: Argument) -> object:
        """Run one command; None where it names a script that Redis has not been given."""
        return self._raising(lambda: self._client.execute_command(*command, **AS_BYTES))

    def commit(self, arguments: Sequence[Argument]) -> bool:
        """Run `COMMIT`; the first time, look for a setting that lets Redis forget."""
        if self._is_checked:
            return self.run(COMMIT, arguments) == 1
        self._is_checked = True
        committed, info = self.together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return required(committed) == 1

    def commit_to(self, replicas: int, arguments: Sequence[Argument], *, seconds: float) -> bool:
        """Run `COMMIT`; return whether that many replicas have confirmed it within the time."""
        wait = wait_command(replicas, seconds)
        _, confirmed = map(required, self.together([COMMIT.with_text(arguments), wait]))
        return cast("int", confirmed) >= replicas

    def read(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands that are sent in one round trip."""
        return [required(each) for each in self.together(commands)]

    def together(self, commands: Sequence[Command]) -> list[object]:
        """Run commands in one round trip; an error is returned in place of a reply."""
        replies = self._raising(
            lambda: _filled(self._client.pipeline(transaction=False), commands).execute(
                raise_on_error=False
            )
        )
        return replies or []

    def _raising(self, function: Callable[[], T]) -> T | None:
        handled = sys.exception()
        try:
            return function()
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            told = failure(error, handled=handled)
        if told is None:
            return None
        raise told


class AsyncExecution:
    """The same for asyncio.

    Args:
        client: A client of redis-py, or one for each event loop.
        initialize: What a cluster's client needs before its first command.
    """

    def __init__(
        self,
        client: AsyncCommands | PerLoop[AsyncCommands],
        initialize: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self.client: Final = client
        self._initialize = initialize
        self._is_checked = False

    async def run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """As `Execution.run`."""
        reply = await self.command("EVALSHA", script.sha, *arguments)
        return await self.command("EVAL", script.text, *arguments) if reply is None else reply

    async def command(self, *command: Argument) -> object:
        """As `Execution.command`."""
        return await self._raising(lambda client: client.execute_command(*command, **AS_BYTES))

    async def commit(self, arguments: Sequence[Argument]) -> bool:
        """As `Execution.commit`."""
        if self._is_checked:
            return await self.run(COMMIT, arguments) == 1
        self._is_checked = True
        committed, info = await self.together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return required(committed) == 1

    async def commit_to(
        self, replicas: int, arguments: Sequence[Argument], *, seconds: float
    ) -> bool:
        """As `Execution.commit_to`."""
        wait = wait_command(replicas, seconds)
        _, confirmed = map(required, await self.together([COMMIT.with_text(arguments), wait]))
        return cast("int", confirmed) >= replicas

    async def read(self, commands: Sequence[Command]) -> list[object]:
        """As `Execution.read`."""
        return [required(each) for each in await self.together(commands)]

    async def together(self, commands: Sequence[Command]) -> list[object]:
        """As `Execution.together`."""
        replies = await self._raising(
            lambda client: _filled(client.pipeline(transaction=False), commands).execute(
                raise_on_error=False
            )
        )
        return replies or []

    async def _raising(self, function: Callable[[AsyncCommands], Awaitable[T]]) -> T | None:
        if under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        client = await self.client.get() if isinstance(self.client, PerLoop) else self.client
        handled = sys.exception()
        try:
            if self._initialize is not None:
                # Many first commands at once meet a cluster client that is half initialized.
                await self._initialize()
            return await function(client)
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            told = failure(error, handled=handled)
        if told is None:
            return None
        raise told


def _filled(pipeline: P, commands: Sequence[Command]) -> P:
    for command in commands:
        pipeline.execute_command(*command, **AS_BYTES)
    return pipeline


def required(reply: object) -> object:
    """A reply of `together` that is no error.

    Raises:
        SessionStoreError: It is one.
    """
    told = failure(reply) if isinstance(reply, Exception) else None
    if told is not None:
        raise told
    return reply
