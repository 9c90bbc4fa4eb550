"""Validating settings and secrets: the value, or an error that says what to change."""

import inspect
import ipaddress
import re
from datetime import datetime
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from chatkit_sessions._redaction import hidden_from_tracebacks, is_masked, safe_repr, with_article
from chatkit_sessions.errors import ConfigurationError, InvalidRequestError

from .retry_policy import MAX_SECONDS, RetryPolicy

_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*"
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?",
    re.IGNORECASE,
)

MAX_URL: Final = 60_000
"""Characters of a base URL: httpx takes few more with a path behind it."""

Other = TypeVar("Other")


def as_secret(key: str | Other) -> SecretStr | Other:
    """Wrap a key that is a plain string.

    Call this function first: local variables are part of tracebacks, and many error reports print
    them. Bytes, which are rejected later, lose their content for the same reason.
    """
    if isinstance(key, bytes | bytearray):
        return type(key)()
    return SecretStr(key) if isinstance(key, str) else key


def concealed(argument: Other) -> Other:
    """Wrap text where an object is expected: it may be a URL with a password.

    As for `as_secret`, tracebacks have the local variables until the argument is rejected.
    """
    return cast("Other", as_secret(argument))


def validate_key_source(key: SecretStr | Other, source: str) -> SecretStr | Other:
    """Validate a key at once; a callable is called, and its result validated, for each request."""
    if isinstance(key, SecretStr):
        return validate_key(key, source)
    if callable(key):
        return key
    raise ConfigurationError(
        f"{source} must be a string, a SecretStr or a callable that returns one, "
        f"not {type(key).__name__}."
    )


def reject_awaitable(result: Other, argument: str, *, owner: str) -> Other:
    """Reject the result of an async function in sync code.

    Args:
        result: What the function returned.
        argument: The argument that the function was passed as.
        owner: The sync class that it was passed to.
    """
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody awaited it
    raise ConfigurationError(
        f"`{argument}` is an async function: {owner} needs a plain one, Async{owner} takes both."
    )


def is_coroutine_function(function: object) -> bool:
    """Whether a call returns a coroutine: also of an object with such a `__call__`."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 -- not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def validate_key(key: object, source: str) -> SecretStr:
    """Reject an invalid key; the message says what is wrong, and never quotes the key.

    Args:
        key: A SecretStr; anything else is rejected.
        source: The argument or variable of the key, for the message.
    """
    if not isinstance(key, SecretStr):
        raise ConfigurationError(
            f"{source} must return a string or a SecretStr, not {type(key).__name__}."
        )
    problem = _problem_with_key(key)
    if problem is not None:
        raise ConfigurationError(f"{source} {problem}.")
    return key


@hidden_from_tracebacks
def _problem_with_key(masked: SecretStr) -> str | None:
    key = masked.get_secret_value()
    problem = _problem_with_spelling(key)
    if problem is not None:
        return problem
    if key.lower().startswith("bearer "):
        return "begins with `Bearer `: pass the key alone, the header is made from it"
    if is_masked(key):
        return "is masked (asterisks only): it was copied from a log or a dump"
    return _problem_with_header(key)


def _problem_with_spelling(value: str) -> str | None:
    """What is wrong with a value that was copied carelessly, or read from a `.env` file."""
    if not value.strip():
        return "is empty"
    if "\n" in value or "\r" in value:
        return "holds a line break: it was probably read from a file without stripping it"
    if value != value.strip():
        return "has white space around it: remove it"
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        return "has quotes around it: they were left in, probably by a `.env` file; remove them"
    if value.endswith(("…", "...")):
        return "ends in dots, as in an example: replace it with your own"
    return None


def _problem_with_header(value: str) -> str | None:
    if value.split() != [value]:
        return "holds white space"
    if not (value.isascii() and value.isprintable()):
        return "holds a control character or one outside ASCII, which no HTTP header can carry"
    return None


def validate_client_secret(client_secret: object) -> SecretStr:
    """Reject a malformed client secret; the message never quotes it."""
    secret = SecretStr(client_secret) if isinstance(client_secret, str) else client_secret
    if not isinstance(secret, SecretStr):
        raise InvalidRequestError(
            "`client_secret` must be the session's current secret as a string or a SecretStr, "
            f"got {with_article(type(secret).__name__)}."
        )
    problem = problem_with_secret(secret)
    if problem is not None:
        raise InvalidRequestError(f"`client_secret` {problem}.")
    return secret


@hidden_from_tracebacks
def problem_with_secret(masked: SecretStr) -> str | None:
    """Why a text is no client secret, or None."""
    secret = masked.get_secret_value()
    if not secret.strip():
        return "is empty: to begin with, create a session"
    if is_masked(secret):
        return "is masked (asterisks only): it was read from a dump; pass the secret itself"
    if secret.lower().startswith("bearer "):
        return "begins with `Bearer `: pass the secret alone"
    if secret.startswith("cksess_"):
        return "is a session's id: pass the secret that the widget holds"
    return None if is_unicode(secret) else "is not valid Unicode text"


def is_unicode(text: str) -> bool:
    """Whether a JSON document can hold a text: not a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def problem_with_id(value: object) -> str | None:
    """What is wrong with an identifier that the user copied from somewhere, or None."""
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}"
    return _problem_with_spelling(value) or (
        None if value.isprintable() else "holds a character that cannot be printed"
    )


def validate_header(value: object, source: str) -> str:
    """Reject a setting that cannot be sent in a header, such as an organization."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{source} must be a string, not {type(value).__name__}.")
    problem = _problem_with_spelling(value) or _problem_with_header(value)
    if problem is not None:
        raise ConfigurationError(f"{source} {problem}.")
    return value


def validate_base_url(url: object, source: str, *, allow_insecure_http: bool) -> str:
    """Return the URL without a trailing slash; reject one that the key must not be sent to."""
    url = validate_header(url, source)  # a URL holds no more than a header can
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # whose text may quote a password
        raise ConfigurationError(
            f"{source} is not a URL: its host or its port cannot be read."
        ) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(
            f"{source} must begin with https:// and name a host, such as https://api.openai.com/v1."
        )
    if not is_host(host):
        raise ConfigurationError(
            f"{source} names a host that cannot exist: labels have 1 to 63 letters, digits and "
            "hyphens; an international name is written in its `xn--` form."
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{source} holds credentials before the host: the API is called with its key alone."
        )
    if len(url) > MAX_URL:
        raise ConfigurationError(f"{source} cannot be called: it is too long.")
    if "?" in url or "#" in url:
        raise ConfigurationError(f"{source} must not hold a query or a fragment.")
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure_http:
        raise ConfigurationError(
            f"{source} would send the API key over plain http:// to {host}, readable on the way. "
            "Use https://.",
            hint="Inside a private network that you trust, pass allow_insecure_http=True.",
        )
    return url.rstrip("/")


def is_host(host: str) -> bool:
    """Whether a text is a valid host name or address."""
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate_on_event(on_event: object) -> None:
    """Reject what cannot be called for an event; None: there is nothing to call.

    Raises:
        ConfigurationError: It is not a plain function.
    """
    if on_event is not None and (not callable(on_event) or is_coroutine_function(on_event)):
        raise ConfigurationError("`on_event` must be a function, and not a coroutine function.")


def validate_clock(clock: object) -> None:
    """Reject a clock that would fail at its first use.

    Raises:
        ConfigurationError: The clock is not callable, or returns a time without a time zone.
    """
    now: object = clock() if callable(clock) else None
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise ConfigurationError(
            "`clock` must be a function that returns a datetime with a time zone, such as "
            "`lambda: datetime.now(UTC)`."
        )


def validate_timeout(timeout: float | None) -> float | None:
    """Return the timeout in seconds, None for no limit.

    Raises:
        ConfigurationError: The timeout is not a number, not finite, or not more than 0.
    """
    problem = problem_with_timeout(timeout)
    if problem is not None:
        raise ConfigurationError(f"`timeout` {problem}.")
    return timeout


def problem_with_timeout(timeout: object) -> str | None:
    """What is wrong with a timeout, or None."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        return f"must be seconds or None, not {type(timeout).__name__}"
    if not 0 < timeout <= MAX_SECONDS:
        return (
            f"must be more than 0 seconds and finite (at most {MAX_SECONDS:,}; None: no limit), "
            f"got {safe_repr(timeout)}"
        )
    return None


def as_retry_policy(max_retries: int | RetryPolicy) -> RetryPolicy:
    """Return the policy, or the default one with that number of retries."""
    if isinstance(max_retries, RetryPolicy):
        return max_retries
    try:
        return RetryPolicy(max_retries=max_retries)
    except ValueError as error:
        raise ConfigurationError(f"{error}, or a RetryPolicy.") from None
