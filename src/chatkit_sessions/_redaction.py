"""Remove secrets from messages, logs, reprs, dumps and tracebacks."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Final, ParamSpec, TypeVar, cast
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

MASK: Final = "**********"

# API keys begin with `sk-`, client secrets with `ek_`; the API's own half-masked form of a key
# (`sk-ab****wxyz`) still shows eight of its characters. An escape may stand before either.
_SHAPED_LIKE_A_SECRET = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt])|(?<=\\u[0-9A-Fa-f]{4}))"
    r"(sk-|ek_)[A-Za-z0-9_*.\-]*[A-Za-z0-9_*\-]"
)
_NAMED_LIKE_A_SECRET = re.compile(r"secret|token|key", re.IGNORECASE)
_PERCENT_ESCAPE = re.compile(r"%[0-9A-F]{2}")
# No format has an escape for these characters (RFC 3986, section 2.3).
_WRITTEN_IN_ONE_WAY = re.compile(r"[A-Za-z0-9_.~\-]+")
_BEFORE_THE_HOST = re.compile(r"\A((?:\w+:)?/+)?.*@", re.DOTALL)
_AFTER_THE_PATH = re.compile(r"[?#].*", re.DOTALL)
_MAX_REPR: Final = 60


def without_frames(error: E) -> E:
    """Remove an exception's traceback, cause and context: frames hold local variables."""
    for name in ("__cause__", "__context__"):  # in spite of what a class makes of assignments
        BaseException.__setattr__(error, name, None)
    return error.with_traceback(None)


def hidden_from_tracebacks(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function handle secrets in plain text: no traceback has its frame, nor those below.

    Its arguments have to be masked, because the frame that calls it stays visible.
    """

    @wraps(function)
    def hidden(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 -- and raises it again
            raise without_frames(error)  # noqa: B904 -- as above

    return hidden


def redact(text: str, secrets: Iterable[SecretStr] = ()) -> str:
    """Return `text` without the given secrets and without anything shaped like one."""
    masked = mask(text, secrets)
    if "sk-" not in masked and "ek_" not in masked:  # much faster than the pattern
        return masked
    return _SHAPED_LIKE_A_SECRET.sub(r"\1***", masked)


def mask(text: str, secrets: Iterable[SecretStr]) -> str:
    """Return `text` without the given secrets, in whichever way they are written there."""
    # No spelling is shorter than the secret itself.
    possible = [secret for secret in secrets if len(secret) <= len(text)]
    return _mask(text, possible) if possible else text


@hidden_from_tracebacks
def _mask(text: str, secrets: Iterable[SecretStr]) -> str:
    spellings = {
        spelling for secret in secrets for spelling in _spellings(secret.get_secret_value())
    }
    # The longest first: one may be the beginning of another.
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, MASK)
    return text


def redact_json(value: object, secrets: Iterable[SecretStr] = ()) -> object:
    """Return a copy of JSON with every string redacted and every secret-like name masked."""
    known = tuple(secrets)
    return _rewrite(value, lambda text: redact(text, known), names_a_secret)


def mask_json(value: object, secrets: Iterable[SecretStr]) -> object:
    """Return a copy of JSON without the given secrets."""
    known = tuple(secrets)
    return _rewrite(value, lambda text: mask(text, known), lambda _: False)


def _rewrite(
    value: object, rewrite: Callable[[str], str], is_hidden: Callable[[str], bool]
) -> object:
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return [_rewrite(item, rewrite, is_hidden) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    rewritten: dict[object, object] = {}
    for name, item in cast("dict[object, object]", value).items():
        if not isinstance(name, str):
            rewritten[name] = _rewrite(item, rewrite, is_hidden)
        elif item is not None and is_hidden(name):
            rewritten[rewrite(name)] = MASK
        else:
            rewritten[rewrite(name)] = _rewrite(item, rewrite, is_hidden)
    return rewritten


def names_a_secret(name: str) -> bool:
    """Whether the name of a field suggests a secret."""
    return _NAMED_LIKE_A_SECRET.search(name) is not None


def is_masked(secret: str) -> bool:
    """Whether a text is masked, such as a secret from a dump."""
    return secret != "" and set(secret) == {"*"}


def safe_repr(value: object) -> str:
    """The repr of an argument: short enough for a message, without secrets."""
    if isinstance(value, str):
        shown = redact_url(value) if "://" in value else value[: 2 * _MAX_REPR]
        # ascii(), because a message has to survive every log's encoding.
        text = ascii(redact(shown[: 2 * _MAX_REPR]))
        if len(text) <= _MAX_REPR and len(value) <= _MAX_REPR:
            return text
        return f"{text[:_MAX_REPR]}… ({len(value):,} characters)"
    if not isinstance(value, int | float | None):
        return with_article(type(value).__name__)
    try:
        text = repr(value)
    except ValueError:
        return "an integer of very many digits"
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}…"


def redact_url(url: str) -> str:
    """Return a URL without credentials and query; what is before its host need not be complete."""
    # A slash or the scheme may be missing, and a password may hold `?`, `#` and `@`.
    return _AFTER_THE_PATH.sub(f"?{MASK}", _BEFORE_THE_HOST.sub(rf"\g<1>{MASK}@", url))


def type_of(argument: object) -> str:
    """The type of an argument, for a message that must not quote it."""
    if isinstance(argument, str | SecretStr):  # wrapped for tracebacks
        return "a string"
    return with_article(type(argument).__name__)


def with_article(noun: str) -> str:
    """`a str`, `an object`."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def plain_headers(headers: Mapping[str, str | SecretStr]) -> dict[str, str]:
    """Unwrap what is secret in a request's headers, for the HTTP client."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in headers.items()
    }


class MaskedBytes(bytes):
    """Bytes whose repr shows only their length, such as those of a store or an endpoint.

    A tool that slices or iterates them sees everything. So keep them in no local variable across a
    call, and in no field that a repr shows.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


def _spellings(secret: str) -> set[str]:
    """How a secret may stand in a text: as it is, inside JSON, inside a URL or a form."""
    if not secret:
        return set()
    if _WRITTEN_IN_ONE_WAY.fullmatch(secret):
        return {secret}
    in_json = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_url = {
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
    }
    return (
        in_json
        | {spelling.replace("/", "\\/") for spelling in in_json}
        | in_url
        | {_PERCENT_ESCAPE.sub(lambda escape: escape[0].lower(), url) for url in in_url}
    )
