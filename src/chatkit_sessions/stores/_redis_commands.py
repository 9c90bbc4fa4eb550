"""How a group lies in Redis, and the commands that read and change it; no connection here.

A group's keys have one hash tag, so that they lie on one node of a cluster:

    <prefix>:{<group>}:<name>       an entry, with its time to live
    <prefix>:{<group>}              the names of listed entries, by when they end
"""

import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, cast

from chatkit_sessions._redaction import MaskedBytes, safe_repr
from chatkit_sessions.errors import ConfigurationError

from .base import Entry

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Argument, ...]

logger: Final = logging.getLogger("chatkit_sessions")

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:\-]+")


def pack(commands: Sequence[Command]) -> MaskedBytes:
    """The commands as they are sent; redis-py takes several times as long for that.

    See https://redis.io/docs/latest/develop/reference/protocol-spec/, arrays of bulk strings.
    """
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            value = argument if isinstance(argument, bytes) else str(argument).encode()
            parts += (b"$%d\r\n" % len(value), value, b"\r\n")
    return MaskedBytes(b"".join(parts))


class Script(NamedTuple):
    """A Lua script, and the name under which Redis caches it."""

    text: str
    sha: str

    def with_text(self, arguments: Sequence[Argument]) -> Command:
        """The command that runs it, whether Redis has it or not."""
        return "EVAL", self.text, *arguments

    @classmethod
    def of(cls, text: str) -> "Script":
        """The script with that text."""
        # SHA-1 is how Redis names scripts.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


READ: Final = Script.of("""
local time = redis.call('TIME')
local entries = {time[1] * 1000 + math.floor(time[2] / 1000)}
for i, key in ipairs(KEYS) do
  entries[2 * i] = redis.call('GET', key)
  entries[2 * i + 1] = redis.call('PTTL', key)
end
return entries
""")

# KEYS: the list of names, those that have to be what they were, those that change, those that are
# read if a condition does not hold.
# ARGV: how many are read; how many conditions, each as 'is' and the value or 'absent' and nothing;
# then the changes, each as name; 'in' and milliseconds, 'at' and the time in milliseconds, or
# nothing and nothing: remove it; value; 'listed' or nothing.
COMMIT: Final = Script.of("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = #KEYS - ARGV[1]
local conditions = tonumber(ARGV[2])
for i = 1, conditions do
  local expected = ARGV[2 * i + 1] == 'is' and ARGV[2 * i + 2]
  if redis.call('GET', KEYS[1 + i]) ~= expected then
    if changed == #KEYS then return 0 end
    local entries = {now}
    for k = changed + 1, #KEYS do
      entries[#entries + 1] = redis.call('GET', KEYS[k])
      entries[#entries + 1] = redis.call('PTTL', KEYS[k])
    end
    return entries
  end
end
local at = 2 * conditions + 3
for i = 2 + conditions, changed do
  local name, ends, milliseconds, value, listed = unpack(ARGV, at, at + 4)
  at = at + 5
  milliseconds = tonumber(milliseconds) or 0
  if ends == 'at' then milliseconds = milliseconds - now end
  if milliseconds <= 0 then
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[1], name)
  else
    redis.call('SET', KEYS[i], value, 'PX', milliseconds)
    if listed == 'listed' then
      redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
      redis.call('ZADD', KEYS[1], now + milliseconds, name)
      if redis.call('PTTL', KEYS[1]) < milliseconds then
        redis.call('PEXPIRE', KEYS[1], milliseconds)
      end
    else
      redis.call('ZREM', KEYS[1], name)
    end
  end
end
return 1
""")


class Keys:
    """The keys of entries, and the arguments of the scripts."""

    def __init__(self, namespace: object, prefix: object) -> None:
        if not isinstance(namespace, str) or not namespace.strip() or not namespace.isprintable():
            raise ConfigurationError(
                "`namespace` must be a string that names the application, its stage and its "
                f"tenant, such as 'shop-production', got {safe_repr(namespace)}."
            )
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"`prefix` must consist of letters, digits and `_.:-`, got {safe_repr(prefix)}."
            )
        self.namespace: Final = namespace
        self._prefix = prefix

    def names_command(self, group: str) -> Command:
        """Read the list of names."""
        return "ZRANGE", self._list_key(group), 0, -1

    def read_arguments(self, group: str, names: Sequence[str]) -> list[Argument]:
        """What follows the script in the command."""
        return [len(names), *self._keys(group, names)]

    def script_arguments(
        self, group: str, names: Sequence[str], arguments: Sequence[Argument]
    ) -> list[Argument]:
        """What follows the script in the command."""
        return [*self.read_arguments(group, names), *arguments]

    def commit_arguments(
        self,
        group: str,
        changes: Mapping[str, Entry | None],
        when: Mapping[str, bytes | None],
        names: Sequence[str] = (),
    ) -> list[Argument]:
        """What follows the script in the command; `names` are read if it changes nothing."""
        arguments: list[Argument] = [
            1 + len(when) + len(changes) + len(names),
            self._list_key(group),
            *self._keys(group, when),
            *self._keys(group, changes),
            *self._keys(group, names),
            len(names),
            len(when),
        ]
        for expected in when.values():
            arguments += ["absent", ""] if expected is None else ["is", expected]
        for name, entry in changes.items():
            if entry is None:
                arguments += [name, "", "", "", ""]
                continue
            ends, milliseconds = "in", math.floor(max(0.001, entry.seconds) * 1000)
            if entry.expires_at is not None:
                ends, milliseconds = "at", round(entry.expires_at * 1000)
            listed = "listed" if entry.listed else ""
            arguments += [name, ends, milliseconds, entry.value, listed]
        return arguments

    def read_commands(self, entries: Sequence[tuple[str, str]]) -> list[Command]:
        """Two commands for each entry, named by its group and its name; no script.

        A script's keys have to be on one node of a cluster.
        """
        commands: list[Command] = []
        for group, name in entries:
            (key,) = self._keys(group, [name])
            commands += [("GET", key), ("PTTL", key)]
        return commands

    def _list_key(self, group: str) -> str:
        return f"{self._prefix}:{{{group}}}"

    def _keys(self, group: str, names: Sequence[str] | Mapping[str, object]) -> list[str]:
        return [f"{self._prefix}:{{{group}}}:{name}" for name in names]


def parse_read(reply: object) -> tuple[list[Entry | None], float]:
    """Parse what `READ` returns: entries, and the time in seconds."""
    now, *entries = cast("list[bytes | int | None]", reply)
    milliseconds = cast("int", now)
    return parse_entries(entries, now=milliseconds), milliseconds / 1000


def parse_entries(reply: object, *, now: int | None = None) -> list[Entry | None]:
    """Parse what `read_commands` return one after the other."""
    replies = cast("list[bytes | int | None]", reply)
    entries: list[Entry | None] = []
    for value, milliseconds in zip(replies[::2], replies[1::2], strict=True):
        if isinstance(value, bytes) and isinstance(milliseconds, int) and milliseconds > 0:
            expires_at = None if now is None else (now + milliseconds) / 1000
            entries.append(Entry(MaskedBytes(value), milliseconds / 1000, expires_at=expires_at))
        else:
            entries.append(None)
    return entries


def parse_names(reply: object) -> list[str]:
    """Parse the list of names; what is none of ours, because it is not ASCII, is left out."""
    names = cast("list[bytes]", reply)
    return [name.decode() for name in names if name.isascii()]


INFO: Final[Command] = ("INFO", "memory")


def wait_command(replicas: int, seconds: float) -> Command:
    """Wait for that many replicas, at least a millisecond: 0 would be without end."""
    return "WAIT", replicas, max(1, int(seconds * 1000))


def warn_of_eviction(reply: object) -> None:
    """Warn if Redis forgets entries before their time, by its reply to `INFO`.

    Who may not ask, or whose server does not say, is not warned.
    """
    policy: object = None
    if isinstance(reply, dict):  # as a client of redis-py parses it
        policy = cast("dict[str, object]", reply).get("maxmemory_policy")
    elif isinstance(reply, bytes):
        found = re.search(rb"^maxmemory_policy:(\S+)", reply, re.MULTILINE)
        policy = found and found[1].decode()
    if isinstance(policy, str) and policy.startswith("allkeys-"):
        logger.warning(
            "Redis evicts any key when its memory is full (maxmemory-policy %s): it may forget "
            "sessions and sign-outs. Set maxmemory-policy to noeviction.",
            policy,
        )
