"""The proxy that the environment names: found, checked, and described without its password.

`through_httpx` sends what goes through it.
"""

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from chatkit_sessions._config.validation import is_host, is_loopback
from chatkit_sessions.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx

_ESCAPES: Final = (
    "In a user name or password, write `@` as %40, `:` as %3A, `/` as %2F, `#` as %23 and `?` as "
    "%3F."
)


class Proxy(NamedTuple):
    """A proxy, and how messages describe it."""

    settings: "httpx.Proxy"
    address: str
    """Its host and port."""
    source: str
    """The variable that names it."""

    @property
    def described(self) -> tuple[str, str]:
        """The proxy in an error message."""
        return self.address, self.source


def proxy_for(base_url: str) -> Proxy | None:
    """The proxy that the environment names for a URL, by the usual variables.

    Plain http goes to this machine and through no proxy, which would carry the key off it.

    Raises:
        ConfigurationError: The proxy's URL cannot be used.
    """
    parts = urlsplit(base_url)
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return None
    system_has_settings = sys.platform in {"darwin", "win32"}
    if not system_has_settings and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 -- takes long to import

    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    url = proxies.get(scheme)
    if not url or proxy_bypass(parts.netloc):
        return None
    source = _source(scheme)
    settings = _parse(url if "://" in url else f"http://{url}")
    if settings is None:
        raise ConfigurationError(
            f"{source} names no usable proxy: a URL is needed, such as "
            "http://proxy.example.com:3128, with nothing after host and port.",
            hint=_ESCAPES,
        )
    if settings.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"The proxy that {source} names speaks SOCKS, which needs one more package.",
            hint='Install it: pip install "httpx[socks]".',
        )
    return Proxy(settings, settings.url.netloc.decode(), source)


def _parse(url: str) -> "httpx.Proxy | None":
    """Parse a proxy's URL; None if it is invalid, as the error's text would quote the password."""
    import httpx  # noqa: PLC0415 -- only where there is a proxy

    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        complete = parts.path in {"", "/"} and not parts.query and not parts.fragment
        return httpx.Proxy(url) if complete and "#" not in url and is_host(host) else None
    except (httpx.InvalidURL, ValueError):
        return None


def _source(scheme: str) -> str:
    """The variable that `getproxies` has read; it prefers lower case."""
    lower = f"{scheme}_proxy"
    found = [name for name in (lower, lower.upper()) if os.environ.get(name)]
    return found[0] if found else "the system's proxy settings"
