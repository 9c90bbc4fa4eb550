"""Commands and scripts over a redis-py client; whatever it raises becomes a SessionStoreError."""

from collections.abc import Sequence
from typing import Final, cast

from chatkit_sessions._concurrency.tasks import PerLoop, under_trio
from chatkit_sessions._concurrency.threads import PerProcess
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
from ._redis_connections import Sender, failure, is_unknown_script, leads_nowhere


class Execution:
    """Runs commands and scripts; over a synchronous client, nothing here suspends.

    Args:
        sender: Sends commands: one, or one for each process or event loop.
        asynchronous: Whether it is to be used under asyncio.
    """

    def __init__(
        self, sender: Sender | PerProcess[Sender] | PerLoop[Sender], *, asynchronous: bool
    ) -> None:
        self.sender: Final = sender
        self._asynchronous = asynchronous
        self._is_checked = False

    async def run(self, script: Script, arguments: Sequence[Argument]) -> object:
        """Run a script, which Redis is given if it does not have it."""
        (reply,) = await self._together([("EVALSHA", script.sha, *arguments)])
        if is_unknown_script(reply):
            return await self.command(*script.with_text(arguments))
        return _required(reply)

    async def command(self, *command: Argument) -> object:
        """Run one command."""
        (reply,) = await self._together([command])
        return _required(reply)

    async def commit(self, arguments: Sequence[Argument]) -> object:
        """Run `COMMIT`; the first time, look for a setting that lets Redis forget.

        Returns:
            1 if it has changed the entries; otherwise what `READ` returns, or 0.
        """
        if self._is_checked:
            return await self.run(COMMIT, arguments)
        self._is_checked = True
        committed, info = await self._together([COMMIT.with_text(arguments), INFO])
        warn_of_eviction(info)
        return _required(committed)

    async def commit_to(
        self, replicas: int, arguments: Sequence[Argument], *, seconds: float
    ) -> bool:
        """Run `COMMIT`; return whether that many replicas have confirmed it within the time."""
        wait = wait_command(replicas, seconds)
        replies = await self._together([COMMIT.with_text(arguments), wait], apart=True)
        _, confirmed = map(_required, replies)
        return cast("int", confirmed) >= replicas

    async def read(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands that are sent in one round trip."""
        return [_required(each) for each in await self._together(commands)]

    async def _together(self, commands: Sequence[Command], *, apart: bool = False) -> list[object]:
        """Run commands in one round trip; an error is returned in place of a reply.

        Once more, over new connections, where these lead elsewhere.
        """
        if self._asynchronous and under_trio():
            raise ConfigurationError("AsyncRedisSessionStore works under asyncio, not under trio.")
        sender = self.sender
        if isinstance(sender, PerLoop):
            sender = await sender.get()
        elif isinstance(sender, PerProcess):
            sender = sender.get()
        send = sender.send_apart if apart else sender.send
        replies = await send(commands)
        if leads_nowhere(replies):
            await sender.disconnect_idle()
            replies = await send(commands)
        return replies


def _required(reply: object) -> object:
    """A reply that is no error.

    Raises:
        SessionStoreError: It is one.
    """
    if isinstance(reply, Exception):
        raise failure(reply)
    return reply
