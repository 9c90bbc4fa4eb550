"""A session as stored, and as passed to the chat server.

Each session has its own group in the store, with these entries:

    session     the record: the digest of its secret, its times, its settings
    requests    how many requests each second of the last minute had
    replacement the id of the session for which a refresh has cancelled it, for a minute

Each user of a project has a group, too:

    requests    the same of all sessions of the user, if the service limits them
    session:…   a session of the user: the generation that it was created in
    generation  a name that each sign-out changes; none if there was no sign-out in the last day
    carried     the requests of a session that was cancelled in the last minute
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

from pydantic import SecretStr

from chatkit_sessions._redaction import MaskedBytes, hidden_from_tracebacks
from chatkit_sessions._sessions.rate_limit import COUNT_IN_REDIS
from chatkit_sessions.stores._redis_commands import Script
from chatkit_sessions.stores.base import Entry

from ._bodies import DEFAULT_REQUESTS_PER_MINUTE, SessionSettings, StateValue

SCHEMA: Final = 1
"""The format's version. Each version has its own groups, so releases never read each other's.

Within a version, releases do: a name may only be added, and with a default.
"""
SESSION: Final = "session"
GENERATION: Final = "generation"
CARRIED: Final = "carried"
REPLACEMENT: Final = "replacement"
RETENTION: Final = 3600.0
"""Seconds for which a session can be read after its expiry."""

SessionStatus: TypeAlias = Literal["active", "expired", "cancelled"]

_DIGITS: Final = 32

# KEYS: a session's record, its requests. ARGV: the digest of a secret; the time in Unix seconds, or
# nothing: by the record's remaining time; the milliseconds of `RETENTION`; nothing, or '=' and the
# project that is accepted; 'any' workflow, or 'of' and those that are accepted.
COUNT: Final = Script.of(f"""{COUNT_IN_REDIS}
local record, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
local is_json, session = pcall(cjson.decode, record)
local settings = is_json and type(session) == 'table' and session.settings
if type(settings) ~= 'table' or session.secret_digest ~= ARGV[1] or session.cancelled ~= false then
  return {{record, left, false}}
end
local is_active = left > tonumber(ARGV[3])
if ARGV[2] ~= '' then is_active = tonumber(ARGV[2]) < (tonumber(session.expires_at) or 0) end
local is_accepted = ARGV[4] == '' or ARGV[4] == '=' .. tostring(session.project)
local has_workflow = ARGV[5] == 'any'
for i = 6, #ARGV do has_workflow = has_workflow or ARGV[i] == settings.workflow_id end
if not (is_active and is_accepted and has_workflow) then return {{record, left, false}} end
local limit = tonumber(settings.max_requests_per_1_minute) or {DEFAULT_REQUESTS_PER_MINUTE}
return {{record, left, string.format('%.6f', count_request(KEYS[2], limit))}}
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecord:
    """A session as stored, without its secret.

    Attributes:
        id: `cksess_` and 48 hexadecimal digits.
        secret_digest: SHA-256 of the client secret, in hexadecimal.
        created_at: When it was created, in Unix seconds.
        expires_at: When it expires, in Unix seconds.
        cancelled: Whether it was cancelled.
        project: The project of the key that it was created with.
        settings: The requested settings, with the defaults for omitted ones.
        refreshed_from: The id of the session that it replaced by a refresh; None without one.
    """

    id: str
    secret_digest: str = field(repr=False)
    created_at: int
    expires_at: int
    cancelled: bool
    project: str
    settings: SessionSettings
    refreshed_from: str | None = None

    def status(self, now: datetime) -> SessionStatus:
        """Return the session's status at that moment."""
        if self.cancelled:
            return "cancelled"
        return "expired" if now.timestamp() >= self.expires_at else "active"

    def has_secret(self, client_secret: SecretStr) -> bool:
        """Whether that is the session's secret, compared in constant time."""
        return hmac.compare_digest(self.secret_digest, digest(client_secret))

    def encode(self) -> MaskedBytes:
        """Return the record as the bytes that are stored."""
        return MaskedBytes(json.dumps(asdict(self), separators=(",", ":")).encode())


@lru_cache(maxsize=1024)  # a page's requests have the secret of one session
@hidden_from_tracebacks
def parse_record(value: bytes) -> ServiceRecord | None:
    """Parse stored bytes; None if they are not a record.

    Names that this release does not know are ignored; those that are missing have a default.
    """
    try:
        values = _known(ServiceRecord, json.loads(value.decode()))
        settings = SessionSettings(**_known(SessionSettings, values.pop("settings")))
        return ServiceRecord(**values, settings=settings)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _known(cls: type[ServiceRecord | SessionSettings], values: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


class StoredSession(NamedTuple):
    """A record, and the entry that it was parsed from."""

    record: ServiceRecord
    entry: Entry

    @property
    def read_at(self) -> datetime:
        """When the store returned the entry, by its own clock: its remaining time shows it."""
        seconds = self.record.expires_at + RETENTION - self.entry.seconds
        return datetime.fromtimestamp(seconds, UTC)

    @property
    def store_time(self) -> float | None:
        """The same by the clock that entries expire by, in seconds; None if the store has none."""
        ends = self.entry.expires_at
        return None if ends is None else ends - self.entry.seconds

    @classmethod
    def parse(cls, entry: Entry | None) -> Self | None:
        """Parse an entry; None if it is not a session."""
        record = None if entry is None else parse_record(entry.value)
        return None if entry is None or record is None else cls(record, entry)


class IssuedSession(NamedTuple):
    """A new session with its secret, which is returned only once."""

    record: ServiceRecord
    client_secret: SecretStr
    issued_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """The session behind a request to your chat server. Nothing in it comes from the browser.

    Attributes:
        session_id: The session's id.
        user: The end user's id, from the backend that created the session.
        workflow_id: The session's workflow.
        workflow_version: The workflow's version; None: the latest.
        state_variables: The backend's values for the workflow; may be empty.
        expires_at: When the session expires, in UTC.
        project: The project of the key that it was created with.
        settings: All settings of the session. Your server must enforce `file_upload`, `history`
            and `automatic_thread_titling`.
    """

    session_id: str
    user: str
    workflow_id: str
    workflow_version: str | None
    state_variables: Mapping[str, StateValue] = field(repr=False)
    expires_at: datetime
    project: str
    settings: SessionSettings = field(repr=False)

    @classmethod
    def of(cls, record: ServiceRecord) -> Self:
        """The context of a record."""
        settings = record.settings
        if settings.state_variables is not None:
            # A copy of its own: other requests get the same record.
            settings = replace(settings, state_variables=dict(settings.state_variables))
        return cls(
            session_id=record.id,
            user=settings.user,
            workflow_id=settings.workflow_id,
            workflow_version=settings.workflow_version,
            state_variables=MappingProxyType(dict(settings.state_variables or {})),
            expires_at=datetime.fromtimestamp(record.expires_at, UTC),
            project=record.project,
            settings=settings,
        )


def digest(secret: SecretStr) -> str:
    """SHA-256 of a client secret or an API key, in hexadecimal."""
    # No variable holds it.
    return hashlib.sha256(secret.get_secret_value().encode("utf-8", "surrogatepass")).hexdigest()


class Groups:
    """The groups of sessions, and of their users, in a store.

    Args:
        namespace: The store's namespace.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._place = hashlib.sha256(json.dumps(["issued", SCHEMA, namespace]).encode())

    def find_user(self, project: str, user: str) -> str:
        """The group of a user, whatever the format: a sign-out ends what any release issued."""
        place = json.dumps(["users of issued", self._namespace, project, user])
        return hashlib.sha256(place.encode()).hexdigest()[:_DIGITS]

    def find(self, id_digits: str) -> str:
        """The group of a session.

        Args:
            id_digits: The first 24 digits of the session's id; its secret has the same ones.
        """
        place = self._place.copy()
        place.update(id_digits.encode("utf-8", "surrogatepass"))
        return place.hexdigest()[:_DIGITS]
