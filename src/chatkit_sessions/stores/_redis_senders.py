"""How commands reach Redis: over redis-py's clients or our connections, alone or in one round trip.

What redis-py raises is translated here, too.
"""

import asyncio
import inspect
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Protocol, TypeAlias, cast

import redis
import redis.asyncio
from redis.client import NEVER_DECODE
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)

from chatkit_sessions._concurrency.single_flight import CompletionEvent
from chatkit_sessions._concurrency.tasks import PerLoop, TaskEvent, running_time_limit
from chatkit_sessions._concurrency.threads import (
    OverdueError,
    PerProcess,
    ThreadEvent,
    ThreadLimiter,
    interrupt_in,
    run_blocking,
)
from chatkit_sessions._redaction import MaskedBytes, redact, without_frames
from chatkit_sessions.errors import SessionStoreError

from ._redis_commands import Argument, Command, pack

THREADS: Final = 8
"""For what a synchronous client does without a time limit; most often, one works."""
MAX_HANGING: Final = 32
"""How many more of them may hang."""
MAX_BATCH: Final = 256
"""Commands in one round trip; more only if one caller has more."""
_MAX_WAITS: Final = 2
"""How many times its limit a round trip may take before another caller sends."""
MAX_REASON: Final = 500
"""Characters of redis-py's own text in an error."""

# A reply as it came, however the client is set to: values are bytes.
AS_BYTES: Final[dict[str, list[object]]] = {NEVER_DECODE: []}


_CODES: Final[dict[type[Exception], str]] = {
    ReadOnlyError: "READONLY",
    BusyLoadingError: "LOADING",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
    MovedError: "MOVED",
    AskError: "ASK",
}
"""The more special class comes first."""
_REPLIED: Final = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)
"""What a server itself said; the last three are connection errors to redis-py."""
_TOO_MANY: Final = (
    "max number of clients reached",
    "Too many connections",
    "No connection available.",
)
"""What a server, or a pool of yours, says in a plain connection error."""
_CODE: Final = re.compile(rf"\b({'|'.join(_CODES.values())}|NOREPLICAS)\b")
_HINT: Final = (
    "Check that Redis runs, uses TLS if and only if the URL begins with `rediss://`, accepts the "
    "user and password, permits the commands and has memory left."
)
_LOGIN_NEEDED: Final = re.compile(
    r"^(?:NOAUTH|WRONGPASS|HELLO must be called|Authentication required|"
    r"invalid username-password|AUTH failed)",
    re.IGNORECASE,
)
_LOGIN: Final = (
    "Redis wants a password, or another one: `rediss://user:password@host:6379/0`, or that of your "
    "client; the user is `default` where Redis has only a password."
)
_A_CLUSTER: Final = (
    "This Redis is a cluster: pass `redis.RedisCluster(host=…)`, or the one of `redis.asyncio`, to "
    "the store instead of a URL or another client."
)
_HINTS: Final = {
    "READONLY": "This server is a replica. Check that the address leads to the primary.",
    "MOVED": _A_CLUSTER,
    "ASK": _A_CLUSTER,
    "CLUSTERDOWN": f"Check that all nodes of the cluster run. {_A_CLUSTER}",
}


class Connection(Protocol):
    """What is used of redis-py's connections; asyncio's are awaited."""

    def send_packed_command(self, command: list[bytes], *, check_health: bool) -> object: ...

    def read_response(self, *, disable_decoding: bool) -> object: ...

    def disconnect(self, **options: bool) -> object: ...


class Pool(Protocol):
    """What is used of redis-py's pools; asyncio's are awaited."""

    def get_connection(self) -> object: ...

    def release(self, connection: Connection) -> object: ...

    def disconnect(self, *, inuse_connections: bool = ...) -> object: ...


class Pipeline(Protocol):
    """Commands that are sent together, on one connection."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def execute(self, *, raise_on_error: bool) -> object: ...


class Commands(Protocol):
    """What is used of redis-py's clients, which type it as anything; asyncio's are awaited."""

    def execute_command(self, *arguments: Argument, **options: object) -> object: ...

    def pipeline(self, *, transaction: bool) -> Pipeline: ...

    async def aclose(self) -> None: ...


class Sender:
    """Sends commands over a client of redis-py; over a synchronous one, nothing here suspends.

    Args:
        client: The client.
        asynchronous: Whether it is asyncio's.
    """

    def __init__(self, client: Commands, *, asynchronous: bool) -> None:
        self.client: Final = client
        self.asynchronous: Final = asynchronous

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """The replies to commands, in one round trip; an error takes the place of a reply.

        What redis-py raises loses its frames, which hold what was sent and replied, and so does an
        interrupt.
        """
        handled = sys.exception()
        try:
            return await self._send(commands)
        except Exception as error:  # noqa: BLE001 -- redis-py raises what it happens to meet
            interrupt = interrupt_in(error, handled=handled)
            raised = without_frames(error)
        except BaseException as error:  # an interrupt, which shows replies, too
            if self.asynchronous:  # a cancellation, which shows none, keeps what it is chained to
                raise
            raise without_frames(error)  # noqa: B904 -- as above
        if interrupt is not None:
            raise without_frames(interrupt)
        return [raised] * len(commands)

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        if isinstance(self.client, redis.asyncio.RedisCluster):
            # Many first commands at once meet a cluster client that is half initialized.
            await self.client.initialize()
        if len(commands) == 1:
            return [masked(await self._end(self.client.execute_command(*commands[0], **AS_BYTES)))]
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command, **AS_BYTES)
        return cast("list[object]", masked(await self._end(pipeline.execute(raise_on_error=False))))

    async def send_apart(self, commands: Sequence[Command]) -> list[object]:
        """`send` commands that take long, for which no other caller should wait."""
        return await self.send(commands)

    async def disconnect_idle(self) -> None:
        """Close the connections that no operation uses; a cluster's client does so itself."""
        only: Pool | None = getattr(self.client, "connection", None)  # of a client with one only
        for each in (only, _pool_of(self.client)):
            if each is not None:
                await self._end(_disconnect(each))

    async def aclose(self) -> None:
        """Close the connections, if they are ours."""

    async def _end(self, result: object) -> object:
        return await cast("Awaitable[object]", result) if self.asynchronous else result


class OwnSender(Sender):
    """The same for a client that we made, over connections that stay with us between commands.

    That costs half. Whatever watches redis-py replaces methods of its clients; these are used then.

    Args:
        client: The client.
        asynchronous: Whether it is asyncio's, where whoever sends limits the time.
        seconds: Otherwise, how long connecting may take, and then all replies together.
    """

    def __init__(self, client: Commands, *, asynchronous: bool, seconds: float) -> None:
        super().__init__(client, asynchronous=asynchronous)
        self._seconds = seconds
        self._threads = ThreadLimiter(THREADS, hanging=MAX_HANGING)
        self._pool = cast("Pool", _pool_of(client))
        self._idle = deque[Connection]()

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        if type(self.client).execute_command not in _UNWATCHED:
            return await super()._send(commands)
        connection = _pop(self._idle)
        if connection is not None:
            try:
                return await self._exchange(connection, commands)
            except RedisConnectionError:
                # The server has closed it meanwhile. Every change may be made twice.
                await self.disconnect_idle()
        return await self._exchange(await self._connect(), commands)

    async def _connect(self) -> Connection:
        if self.asynchronous:
            return cast("Connection", await self._end(self._pool.get_connection()))
        is_wanted = True

        def connect() -> Connection:
            connection = cast("Connection", self._pool.get_connection())
            if not is_wanted:
                self._pool.release(connection)
            return connection

        # In another thread, because nothing else ends a name's resolution.
        try:
            connection = self._threads.run(connect, queue_timeout=None, limit=self._seconds)
        except OverdueError:
            pass
        else:
            self._threads.give_up_hanging()
            return connection
        finally:
            is_wanted = False
        raise TimeoutError(f"no connection within {self._seconds:.3g} s")

    async def aclose(self) -> None:
        """See `Sender`."""
        await self.client.aclose()

    async def disconnect_idle(self) -> None:
        """See `Sender`."""
        while (connection := _pop(self._idle)) is not None:
            await self._drop(connection)

    async def _exchange(self, connection: Connection, commands: Sequence[Command]) -> list[object]:
        replies: list[object] = []
        ends = monotonic() + self._seconds
        try:
            sending = connection.send_packed_command([pack(commands)], check_health=False)
            if self.asynchronous:
                await cast("Awaitable[object]", sending)
            for _ in commands:
                self._check_time(ends)
                try:
                    reading = connection.read_response
                    replies.append(masked(await self._end(reading(disable_decoding=True))))
                except ResponseError as error:
                    replies.append(error)
        except BaseException:
            # Also one of a signal handler, or a cancellation: a reply may be left to read.
            await self._drop(connection)
            raise
        self._idle.append(connection)
        return replies

    def _check_time(self, ends: float) -> None:
        # A synchronous connection's own limit is for each piece that arrives.
        if not self.asynchronous and monotonic() > ends:
            raise TimeoutError(f"no reply within {self._seconds:.3g} s")

    async def _drop(self, connection: Connection) -> None:
        await self._end(connection.disconnect(**{"nowait": True} if self.asynchronous else {}))
        await self._end(self._pool.release(connection))


def _is_watched(method: object) -> bool:
    module: str = getattr(method, "__module__", "")
    return hasattr(method, "__wrapped__") or not module.startswith("redis.")


_UNWATCHED: Final = [
    method
    for client in (redis.Redis, redis.asyncio.Redis)
    if not _is_watched(method := cast("object", vars(client).get("execute_command")))
]
"""Their own methods, unless something watches them before this module is imported."""


def _pool_of(client: object) -> Pool | None:
    return getattr(client, "connection_pool", None)


def _pop(connections: deque[Connection]) -> Connection | None:
    try:
        return connections.pop()
    except IndexError:
        return None


Send: TypeAlias = Callable[[], Coroutine[object, None, list[object]]]
Limit: TypeAlias = Callable[[Send], Awaitable[list[object]]]
Finish: TypeAlias = Callable[[Callable[[], Coroutine[object, None, None]]], Awaitable[None]]


class BatchSender(Sender):
    """Sends over another sender what several callers want to send, in one round trip.

    Who finds nobody sending sends at once, in its own thread or task. Who comes meanwhile waits,
    and when the round trip has ended, one of those sends for all of them. So no thread and no task
    has to be kept alive, and a command that is alone costs what it costs without this class.

    There is no lock that an interrupt could leave locked: every step is one atomic operation.

    Args:
        sender: Sends a batch.
        new_event: Makes what callers wait for.
        limit: Awaits a function for a limited time; raises OverdueError when that is over. None:
            the sender limits itself.
        seconds: That time.
        finish: Awaits a function that goes on even if whoever awaits it is cancelled. None: nobody
            can be.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        new_event: Callable[[], CompletionEvent],
        limit: Limit | None,
        seconds: float,
        finish: Finish | None = None,
    ) -> None:
        super().__init__(sender.client, asynchronous=sender.asynchronous)
        self._sender = sender
        self._new_event = new_event
        self._limit = limit
        self._seconds = seconds
        self._finish = finish
        self._waiting: deque[_Caller] = deque()
        self._free: deque[None] = deque([None])
        """Empty while somebody sends."""
        self._turn = _Turn()
        """The latest."""
        self._ended = 0
        """How many round trips have ended."""

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """See `Sender`."""
        caller = _Caller(commands)
        try:
            self._waiting.append(caller)
            if _take(self._free):
                caller.turn = self._turn = _Turn()
            while caller.replies is None:
                if caller.turn is None or caller.is_sent:
                    await self._wait(caller)
                elif self._finish is not None and len(self._waiting) > 1:
                    await self._finish(lambda: self._send_batch(caller))
                else:
                    await self._send_batch(caller)
        finally:
            caller.is_gone = True
            if caller.turn is not None and caller.turn.end():
                self._pass_on()
        return caller.replies

    async def send_apart(self, commands: Sequence[Command]) -> list[object]:
        """See `Sender`: on another connection."""
        if self._limit is None:
            return await self._sender.send(commands)
        try:
            return await self._limit(lambda: self._sender.send(commands))
        except OverdueError:
            return self._overdue(commands)

    async def disconnect_idle(self) -> None:
        """See `Sender`."""
        await self._sender.disconnect_idle()

    async def aclose(self) -> None:
        """See `Sender`."""
        await self._sender.aclose()

    async def _wait(self, caller: "_Caller") -> None:
        """Wait for the replies, or for the turn to send."""
        caller.event = event = self._new_event()
        seen, waits = self._progress_of(caller), 0
        while caller.replies is None and (caller.turn is None or caller.is_sent):
            if await event.wait_for(self._seconds):
                continue
            progress = self._progress_of(caller)
            waits = waits + 1 if progress == seen else 0
            seen = progress
            is_lost = not caller.is_sent and self._turn.is_over
            if waits < (1 if is_lost else _MAX_WAITS):
                continue
            if caller.is_sent:
                caller.replies = self._overdue(caller.commands)
            elif is_lost or self._turn.end():
                # Whoever had the turn was interrupted before it was passed on, or hangs.
                caller.turn = self._turn = _Turn()

    def _progress_of(self, caller: "_Caller") -> object:
        """What changes while others send; they say nothing of a round trip that has begun."""
        return True if caller.is_sent else (self._ended, self._turn, self._turn.is_over)

    async def _send_batch(self, caller: "_Caller") -> None:
        """Send what those want whose turn it is; each of them gets replies, whatever happens."""
        batch: list[_Caller] = []
        try:
            self._fill(batch, MAX_BATCH)
            if not caller.is_sent and not caller.is_gone:  # far behind
                caller.is_sent = True
                batch.append(caller)
            if not batch:
                return
            replies = await self.send_apart([each for one in batch for each in one.commands])
            self._ended += 1
            if does_not_respond(replies):
                # Those who wait by now need not find that out one by one.
                self._fill(batch, sum(len(each.commands) for each in tuple(self._waiting)))
                replies = replies[:1] * sum(len(each.commands) for each in batch)
            left = iter(replies)
            for each in batch:
                each.replies = [next(left) for _ in each.commands]
        finally:
            for each in batch:
                if each.replies is None:
                    # Nobody knows what Redis has done, so it is not sent again.
                    each.replies = _failed(each.commands, ConnectionError("interrupted"))
                each.wake()

    def _overdue(self, commands: Sequence[Command]) -> list[object]:
        return _failed(commands, TimeoutError(f"no reply within {self._seconds:.3g} s"))

    def _fill(self, batch: "list[_Caller]", most: int) -> None:
        """Add those whose turn it is, with about so many commands; those who are gone are not."""
        left = most
        while left > 0 and self._waiting:
            added = len(batch)
            # One step, so that an interrupt loses nobody between the two.
            with suppress(IndexError):
                batch.extend(map(_pop_first, (self._waiting,)))
            for caller in batch[added:]:
                if caller.is_gone or caller.is_sent:
                    batch.remove(caller)
                else:
                    caller.is_sent = True
                    left -= len(caller.commands)

    def _pass_on(self) -> None:
        """Let one of those who wait send, or whoever comes next."""
        while True:
            following = self._first_waiting()
            if following is not None:
                following.turn = self._turn = _Turn()
                following.wake()
                return
            self._free.append(None)
            if self._first_waiting() is None or not _take(self._free):
                return

    def _first_waiting(self) -> "_Caller | None":
        for each in tuple(self._waiting):
            if not each.is_gone and not each.is_sent:
                return each
        return None


class _Turn:
    """The right to send, which ends once."""

    __slots__ = ("_lasts",)

    def __init__(self) -> None:
        self._lasts: deque[None] = deque([None])

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return not self._lasts

    def end(self) -> bool:
        """End it; False: it has ended already."""
        return _take(self._lasts)


class _Caller:
    """Whoever wants to send, and what becomes of it."""

    __slots__ = ("commands", "event", "is_gone", "is_sent", "replies", "turn")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands: Final = commands
        self.replies: list[object] | None = None
        self.turn: _Turn | None = None
        self.event: CompletionEvent | None = None
        self.is_sent = False
        self.is_gone = False
        """Whether nobody waits for the replies: what is unsent is not sent."""

    def wake(self) -> None:
        """Let it see its replies, or its turn."""
        event = self.event  # set before it looks for either, and read after they are there
        if event is not None:
            event.set()


_pop_first: Final = deque[_Caller].popleft


def _take(places: deque[None]) -> bool:
    try:
        places.pop()
    except IndexError:
        return False
    return True


def _failed(commands: Sequence[Command], error: Exception) -> list[object]:
    return [error] * len(commands)


_in_progress: Final[set[asyncio.Task[None]]] = set()
"""A loop itself holds its tasks weakly."""


async def finish(send_batch: Callable[[], Coroutine[object, None, None]]) -> None:
    """Await it in a task of its own, which goes on if whoever awaits it is cancelled."""
    task = asyncio.create_task(send_batch())
    _in_progress.add(task)
    task.add_done_callback(_in_progress.discard)
    await asyncio.shield(task)


def for_threads(
    sender: Callable[[], Sender], seconds: float, *, is_own: bool
) -> PerProcess[Sender]:
    """Batches of all threads of a process.

    Args:
        sender: Makes what sends.
        seconds: How long a round trip may take.
        is_own: Whether the connections end it by themselves; otherwise it runs in another thread.
    """

    def make() -> Sender:
        threads = ThreadLimiter(THREADS, hanging=MAX_HANGING)

        async def in_thread(send: Send) -> list[object]:
            replies = threads.run(lambda: run_blocking(send), queue_timeout=None, limit=seconds)
            threads.give_up_hanging()  # where others hang: Redis responds again
            return replies

        limit = None if is_own else in_thread
        return BatchSender(sender(), new_event=ThreadEvent, limit=limit, seconds=seconds)

    return PerProcess(make)


def for_tasks(sender: Callable[[], Sender], seconds: float) -> PerLoop[Sender]:
    """Batches of all tasks of an event loop; the arguments are as above."""

    async def in_running_time(send: Send) -> list[object]:
        async with running_time_limit(seconds):
            return await send()
        raise OverdueError

    def make() -> Sender:
        return BatchSender(
            sender(), new_event=TaskEvent, limit=in_running_time, seconds=seconds, finish=finish
        )

    return PerLoop(make)


# What replies and exceptions mean


def failure(error: Exception) -> SessionStoreError:
    """Translate an exception of redis-py, raised or returned in place of a reply."""
    said = str(error)
    reason = ascii(redact(said[:MAX_REASON]))
    is_silent = not isinstance(error, _REPLIED) and not said.startswith(_TOO_MANY)
    state = "does not respond" if is_silent else "cannot be used"
    hint = _LOGIN if _LOGIN_NEEDED.search(said) else _HINTS.get(_code_of(error) or "", _HINT)
    return SessionStoreError(
        f"The session store {state} ({type(error).__name__}: {reason}).", hint=hint
    )


def masked(reply: object) -> object:
    """A reply without its plain bytes, which may hold a secret: a traceback would show them."""
    if isinstance(reply, list):
        return [masked(each) for each in cast("list[object]", reply)]
    return MaskedBytes(reply) if isinstance(reply, bytes) else reply


def is_unknown_script(reply: object) -> bool:
    """Whether Redis does not have a script yet."""
    return isinstance(reply, NoScriptError)


def does_not_respond(replies: Sequence[object]) -> bool:
    """Whether one error, which is no reply of a server's, stands in place of all replies."""
    first = replies[0]
    failed = isinstance(first, OSError | RedisConnectionError | RedisTimeoutError)
    return failed and first is replies[-1]


def leads_nowhere(replies: Iterable[object]) -> bool:
    """Whether a server says: not here, or not now.

    After a failover, connections stay open to a server that is a replica by then. Whoever connects
    anew may reach another server, to which the name, the proxy or Sentinel leads.
    """
    return any(isinstance(each, Exception) and _code_of(each) is not None for each in replies)


def _code_of(error: Exception) -> str | None:
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    # Redis 6 puts what a command of a script raises behind an `ERR` of the script.
    found = _CODE.search(str(error)) if isinstance(error, ResponseError) else None
    return found and found[0]


def _disconnect(pool: Pool) -> object:
    if "inuse_connections" in inspect.signature(pool.disconnect).parameters:
        return pool.disconnect(inuse_connections=False)
    return pool.disconnect()  # before redis-py 7, a blocking pool takes all, also those in use
