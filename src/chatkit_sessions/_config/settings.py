"""Arguments and environment → one frozen configuration, or a `ConfigurationError` that helps."""

import inspect
import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from chatkit_sessions._redaction import is_masked, shown
from chatkit_sessions.errors import ConfigurationError

from .retry import MAX_SECONDS, RetryPolicy

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_MAX_RETRIES: Final = 2

_KEY_VARIABLE: Final = "OPENAI_API_KEY"
_WORKFLOW_VARIABLE: Final = "OPENAI_CHATKIT_WORKFLOW_ID"
_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*"
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?",
    re.IGNORECASE,
)

KeyCallable = TypeVar("KeyCallable")
Other = TypeVar("Other")


class NotGiven(Enum):
    """The type of `NOT_GIVEN`: an argument that was left out, where None means something else."""

    NOT_GIVEN = "NOT_GIVEN"

    def __repr__(self) -> str:
        return self.value


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Generic[KeyCallable]):
    """What a client knows. `KeyCallable` differs: only the async client can await a key."""

    api_key: SecretStr | KeyCallable = field(repr=False)
    workflow_id: str | None
    base_url: str
    organization: str | None
    project: str | None
    timeout: float | None
    retry_policy: RetryPolicy

    @property
    def host(self) -> str:
        """The host and port that calls go to, for messages."""
        return urlsplit(self.base_url).netloc


def load_config(
    *,
    api_key: SecretStr | KeyCallable | None,
    workflow_id: str | None,
    base_url: str | None,
    organization: str | None,
    project: str | None,
    timeout: float | None,
    max_retries: int | RetryPolicy,
    allow_insecure_http: bool,
    getenv: Callable[[str], str | None] = os.getenv,
) -> Config[KeyCallable]:
    """Take each setting from its argument, else from its variable, else from its default.

    An empty variable counts as one that is not set, as `docker compose` and CI systems leave it.

    Raises:
        ConfigurationError: A setting is missing or malformed. The workflow id is looked at only
            when a call needs it.
    """
    key = api_key if api_key is not None else as_secret(getenv(_KEY_VARIABLE) or None)
    if key is None:
        raise ConfigurationError(
            f"No API key: set {_KEY_VARIABLE} or pass `api_key`.",
            hint="Create one at https://platform.openai.com/api-keys in the workflow's project.",
        )
    url_source = "`base_url`" if base_url is not None else "OPENAI_BASE_URL"
    url = base_url if base_url is not None else getenv("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    return Config(
        api_key=check_key_source(key, "`api_key`" if api_key is not None else _KEY_VARIABLE),
        workflow_id=workflow_id if workflow_id is not None else getenv(_WORKFLOW_VARIABLE) or None,
        base_url=check_base_url(url, url_source, allow_insecure_http=allow_insecure_http),
        organization=_header_setting(organization, "organization", "OPENAI_ORG_ID", getenv),
        project=_header_setting(project, "project", "OPENAI_PROJECT_ID", getenv),
        timeout=check_timeout(timeout),
        retry_policy=as_retry_policy(max_retries),
    )


def as_secret(key: str | Other) -> SecretStr | Other:
    """Wrap a key that is a plain string.

    To be done first of all: local variables are part of tracebacks, and many error reports print
    them. Bytes, which are refused later, lose their content for the same reason.
    """
    if isinstance(key, bytes | bytearray):
        return type(key)()
    return SecretStr(key) if isinstance(key, str) else key


def check_key_source(key: SecretStr | KeyCallable, source: str) -> SecretStr | KeyCallable:
    """Check a key at once; a callable is asked, and its answer checked, at each request."""
    if isinstance(key, SecretStr):
        return check_key(key, source)
    if callable(key):
        return key
    raise ConfigurationError(
        f"{source} must be a string, a SecretStr or a callable that returns one, "
        f"not {type(key).__name__}."
    )


def refuse_awaitable(key: Other) -> Other:
    """Say it clearly when the synchronous client got an asynchronous function for its key."""
    if not inspect.isawaitable(key):
        return key
    if inspect.iscoroutine(key):
        key.close()  # else Python warns that nobody awaited it
    raise ConfigurationError(
        "`api_key` is an async function: ChatKitClient needs a plain one, AsyncChatKitClient takes "
        "both."
    )


def check_key(key: object, source: str) -> SecretStr:
    """Refuse a key that cannot be one, naming what is wrong with it and never the key itself.

    Args:
        key: A SecretStr; anything else is refused.
        source: Where the key came from, for the message.
    """
    if not isinstance(key, SecretStr):
        raise ConfigurationError(
            f"{source} must give a string or a SecretStr, not {type(key).__name__}."
        )
    flaw = _flaw_of_key(key.get_secret_value())
    if flaw is not None:
        raise ConfigurationError(f"{source} {flaw}.")
    return key


def _flaw_of_key(key: str) -> str | None:
    if not key.strip():
        return "is empty"
    flaw = _flaw_of_spelling(key)
    if flaw is not None:
        return flaw
    if key.lower().startswith("bearer "):
        return "begins with `Bearer `: pass the key alone, the header is made from it"
    if is_masked(key):
        return "is masked (asterisks only): it was copied from a log or a dump"
    return _flaw_of_header(key)


def _flaw_of_spelling(value: str) -> str | None:
    """What a careless copy or a `.env` file leaves around a value."""
    if "\n" in value or "\r" in value:
        return "holds a line break: it was probably read from a file without stripping it"
    if value != value.strip():
        return "has white space around it: remove it"
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        return "has quotes around it: they were left in, probably by a `.env` file; remove them"
    if value.endswith(("…", "...")):
        return "ends in dots, as in an example: put your own in its place"
    return None


def _flaw_of_header(value: str) -> str | None:
    if value.split() != [value]:
        return "holds white space"
    if not (value.isascii() and value.isprintable()):
        return "holds a control character or one outside ASCII, which no HTTP header can carry"
    return None


def check_workflow_id(workflow_id: str | None) -> str:
    """Return the client's workflow id, now that a call needs it.

    Raises:
        ConfigurationError: It is missing or malformed.
    """
    if workflow_id is None:
        raise ConfigurationError(
            f"No workflow id: set {_WORKFLOW_VARIABLE}, or pass `workflow_id` to the client or to "
            "the call.",
            hint="It begins with `wf_` and stands in Agent Builder, beside the published workflow; "
            "a ChatKit-compatible server has its own.",
        )
    flaw = flaw_of_id(workflow_id)
    if flaw is not None:
        raise ConfigurationError(f"{_WORKFLOW_VARIABLE} or the client's `workflow_id` {flaw}.")
    return workflow_id


def flaw_of_id(value: object) -> str | None:
    """What is wrong with an identifier that the user copied from somewhere, or None."""
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}"
    if not value.strip():
        return "is empty"
    return _flaw_of_spelling(value) or (
        None if value.isprintable() else "holds a character that cannot be printed"
    )


def _header_setting(
    value: str | None, name: str, variable: str, getenv: Callable[[str], str | None]
) -> str | None:
    if value is not None:
        return check_header(value, f"`{name}`")
    from_environment = getenv(variable)
    return check_header(from_environment, variable) if from_environment else None


def check_header(value: object, source: str) -> str:
    """Refuse an organization or a project that no header can carry."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{source} must be a string, not {type(value).__name__}.")
    flaw = "is empty" if not value.strip() else _flaw_of_spelling(value) or _flaw_of_header(value)
    if flaw is not None:
        raise ConfigurationError(f"{source} {flaw}.")
    return value


def check_base_url(url: object, source: str, *, allow_insecure_http: bool) -> str:
    """Return the URL without a slash at its end, or say why the key must not go there."""
    if not isinstance(url, str):
        raise ConfigurationError(f"{source} must be a string, not {type(url).__name__}.")
    flaw = "is empty" if not url.strip() else _flaw_of_spelling(url) or _flaw_of_header(url)
    if flaw is not None:
        raise ConfigurationError(f"{source} {flaw}.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # whose text may quote a password
        raise ConfigurationError(
            f"{source} is not a URL: its host or its port cannot be read."
        ) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(
            f"{source} must begin with https:// and name a host, such as {DEFAULT_BASE_URL}."
        )
    if not _is_host(host):
        raise ConfigurationError(
            f"{source} names a host that cannot exist: labels have 1 to 63 letters, digits and "
            "hyphens; an international name is written in its `xn--` form."
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{source} holds credentials before the host: the API is called with its key alone."
        )
    if "?" in url or "#" in url:
        raise ConfigurationError(f"{source} must not hold a query or a fragment.")
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure_http:
        raise ConfigurationError(
            f"{source} would send the API key over plain http:// to {host}, readable on the way. "
            "Use https://.",
            hint="Inside a private network that you trust, pass allow_insecure_http=True.",
        )
    return url.rstrip("/")


def _is_host(host: str) -> bool:
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this very machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_clock(clock: object) -> None:
    """Refuse a clock at once whose first use, perhaps much later, would fail.

    Raises:
        ConfigurationError: It is not callable, or what it tells has no time zone.
    """
    now: object = clock() if callable(clock) else None
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise ConfigurationError(
            "`clock` must be a function that returns a datetime with a time zone, such as "
            "`lambda: datetime.now(UTC)`."
        )


def check_store(store: object, *, asynchronous: bool) -> None:
    """Refuse what cannot be a store, or is one for the other client.

    Raises:
        ConfigurationError: It lacks a method, or has it in the wrong colour.
    """
    client, other = "ChatKitClient", "AsyncChatKitClient"
    if asynchronous:
        client, other = other, client
    methods = [getattr(store, name, None) for name in ("get", "names", "commit")]
    if not all(callable(method) for method in methods) or isinstance(store, type):
        raise ConfigurationError(
            "`store` must be a session store, such as those of chatkit_sessions.stores, "
            f"not {shown(store)}."
        )
    if any(inspect.iscoroutinefunction(method) != asynchronous for method in methods):
        raise ConfigurationError(
            f"{type(store).__name__} is a store for {other}; {client} needs one whose methods are "
            f"{'async' if asynchronous else 'plain'} functions."
        )
    namespace: object = getattr(store, "namespace", None)
    if not isinstance(namespace, str):
        raise ConfigurationError(
            f"The store's `namespace` must be a string, not {shown(namespace)}."
        )


def check_timeout(timeout: float | None) -> float | None:
    """Return the timeout in seconds, None for no limit.

    Raises:
        ConfigurationError: It is no number of seconds, not finite, or not more than 0.
    """
    flaw = flaw_of_timeout(timeout)
    if flaw is not None:
        raise ConfigurationError(f"`timeout` {flaw}.")
    return timeout


def flaw_of_timeout(timeout: object) -> str | None:
    """What is wrong with a timeout, or None."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        return f"must be seconds or None, not {type(timeout).__name__}"
    if not 0 < timeout <= MAX_SECONDS:
        return (
            f"must be more than 0 seconds and finite (at most {MAX_SECONDS:,}; None: no limit), "
            f"got {shown(timeout)}"
        )
    return None


def as_retry_policy(max_retries: int | RetryPolicy) -> RetryPolicy:
    """Return the policy itself, or the usual one with that number of retries."""
    if isinstance(max_retries, RetryPolicy):
        return max_retries
    try:
        return RetryPolicy(max_retries=max_retries)
    except ValueError as error:
        raise ConfigurationError(f"{error}, or a RetryPolicy.") from None
