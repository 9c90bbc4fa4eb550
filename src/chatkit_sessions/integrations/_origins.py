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
    """A scheme, a host and a port, normalised so that equal origins compare equal."""

    scheme: str
    host: str
    port: int | None
    """None: the scheme's own."""


def parse_origin(text: str) -> Origin | None:
    """Parse an origin; None for any other text, such as `null` or a URL with a path."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, port = match["scheme"].lower(), match["port"] and int(match["port"])
    default = _DEFAULT_PORTS.get(scheme)
    return Origin(scheme, match["host"].lower(), None if port in {None, default} else int(port))


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute URL; None if it has none."""
    scheme, separator, rest = url.partition("://")
    return parse_origin(scheme + separator + re.split(r"[/?#]", rest, maxsplit=1)[0])


def is_same_origin(page: Origin, own: Origin | None) -> bool:
    """Whether a page comes from this server.

    If a proxy ends TLS, the server sees plain http, but the page is https, and the `Host` header
    may have the proxy's port. An http page of an https server is cross-origin.
    """
    if own is None or page.host != own.host:
        return False
    if page.scheme == own.scheme:
        return page.port == own.port
    return (page.scheme, own.scheme) == ("https", "http") and own.port in {
        page.port,
        _DEFAULT_PORTS["https"] if page.port is None else page.port,
    }


class AllowedOrigins:
    """The origins whose pages may call the endpoint, besides the server's own.

    Args:
        origins: The setting: origins, and patterns whose first label is `*`.

    Raises:
        ConfigurationError: An element is neither.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        if isinstance(origins, str):
            raise ConfigurationError("`allowed_origins` must be a list of origins, not one string.")
        self._exact: set[Origin] = set()
        self._patterns: set[Origin] = set()
        for text in origins:
            is_pattern = "://*." in text
            origin = parse_origin(text.replace("://*.", "://", 1))
            # One label after the star would allow every site of a top-level domain.
            if origin is None or (is_pattern and not _HOST_BELOW.fullmatch(origin.host)):
                raise ConfigurationError(
                    "`allowed_origins` must be origins such as https://app.example.com, without a "
                    "path, or with a first label `*` such as https://*.preview.example.com, got "
                    f"{safe_repr(text)}.",
                    hint="List every origin whose pages may get their users' secrets. Names with "
                    "other than ASCII letters are written in Punycode, as browsers send them.",
                )
            (self._patterns if is_pattern else self._exact).add(origin)

    def __contains__(self, text: str) -> bool:
        origin = parse_origin(text)
        if origin is None:
            return False
        first, _, rest = origin.host.partition(".")
        return origin in self._exact or (
            first != "" and origin._replace(host=rest) in self._patterns
        )


_HOST_BELOW: Final = re.compile(r"[^.\[]+(\.[^.]+)+")
