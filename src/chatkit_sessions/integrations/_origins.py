"""Which web pages may call the endpoint: origins, as browsers write them."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?P<host>[a-z0-9._~\-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """A scheme, a host and a port, in the one way of writing that compares equal."""

    scheme: str
    host: str
    port: int | None
    """None: the scheme's own."""


def parse_origin(text: str) -> Origin | None:
    """Read an origin; None where the text is anything else, such as `null` or an address."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, port = match["scheme"].lower(), match["port"] and int(match["port"])
    default = _DEFAULT_PORTS.get(scheme)
    return Origin(scheme, match["host"].lower(), None if port in {None, default} else int(port))


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute URL; None where it has none."""
    scheme, separator, rest = url.partition("://")
    return parse_origin(scheme + separator + re.split(r"[/?#]", rest, maxsplit=1)[0])


def is_same_origin(page: Origin, own: Origin | None) -> bool:
    """Whether a page comes from this server.

    A proxy may have ended TLS in front of it, so that it takes a request for plain http: the page
    may be of https then. The other way round it is another origin.
    """
    if own is None or (page.host, page.port) != (own.host, own.port):
        return False
    return page.scheme == own.scheme or (page.scheme, own.scheme) == ("https", "http")


def validate_allowed_origins(origins: Iterable[str]) -> frozenset[Origin]:
    """Read a setting.

    Raises:
        ConfigurationError: One of them is no origin.
    """
    if isinstance(origins, str):
        raise ConfigurationError("`allowed_origins` must be a list of origins, not one string.")
    allowed: set[Origin] = set()
    for text in origins:
        origin = parse_origin(text)
        if origin is None:
            raise ConfigurationError(
                "`allowed_origins` must be origins such as https://app.example.com, without a path "
                f"or a `*`, got {safe_repr(text)}.",
                hint="List every origin whose pages may get their users' secrets. Names with other "
                "than ASCII letters are written in Punycode, as browsers send them.",
            )
        allowed.add(origin)
    return frozenset(allowed)
