"""What HTTP clients raise, as this library's errors: typed, and without request and key.

The request, and the local variables of the client's frames, hold the API key in plain text.
"""

import contextlib
import importlib
import sys
from traceback import walk_tb
from typing import Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.threads import interrupt_in
from chatkit_sessions._redaction import redact, without_frames
from chatkit_sessions.errors import APIConnectionError, APITimeoutError, ChatKitError

from .body import Body

# Exceptions of Python's own with attributes that no dict shows, and that refer to anything.
_REFERRING: Final = (
    AttributeError, BaseExceptionGroup, ImportError, NameError, StopIteration, SyntaxError,
    UnicodeError,
)  # fmt: skip
# A program or a setting has to change first: a closed client, a host name that cannot be one.
_MISTAKES: Final = (
    AttributeError, ImportError, LookupError, NameError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_HARMLESS: Final = (bool, int, float, type(None))
_OURS, _HERE = "chatkit_sessions", __name__.rpartition(".")[0]
# Packages that make up an HTTP client.
_HTTP: Final = frozenset({
    "anyio", "h11", "h2", "hpack", "httpcore", "httpcore2", "httpx", "httpx2", "hyperframe",
    "socksio",
})  # fmt: skip

_CERTIFICATE: Final = (
    "The certificate does not lead to an authority that this machine trusts; in a company, a proxy "
    "that inspects TLS often shows one of its own. Set SSL_CERT_FILE or SSL_CERT_DIR to the "
    "certificates of its authority (REQUESTS_CA_BUNDLE is not read). Python 3.13 and later also "
    "reject an authority's certificate that lacks what RFC 5280 requires."
)
_PROXY_LOGIN: Final = (
    "Put the proxy's user name and password into {source}: http://user:password@{address}."
)


class _Request(Protocol):
    def __call__(self, method: str, url: str) -> object: ...


class _Family(Protocol):
    """The names of the package `httpx` or `httpx2` that are used here."""

    @property
    def Request(self) -> _Request: ...  # noqa: N802 -- httpx's name
    @property
    def RequestError(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def TimeoutException(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def DecodingError(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def ProxyError(self) -> type[Exception]: ...  # noqa: N802 -- as above
    @property
    def HTTPStatusError(self) -> type[Exception]: ...  # noqa: N802 -- as above


class _RequestError(Protocol):
    request: object


class _Response(Protocol):
    status_code: int
    headers: dict[str, str]

    @property
    def content(self) -> bytes: ...


class HTTPErrors(NamedTuple):
    """What the clients of one family raise where no usable response came.

    Attributes:
        family: The package.
        proxy: The proxy that calls go through, as `host:port`, and the variable that names it.
        supplied: Whether the client is the user's, with whatever hooks and transports it has.
    """

    family: _Family
    proxy: tuple[str, str] | None = None
    supplied: bool = True

    @classmethod
    def of_own_client(cls, proxy: tuple[str, str] | None) -> "HTTPErrors":
        """What a client of this library's own raises."""
        return cls(cast("_Family", importlib.import_module("httpx")), proxy, supplied=False)

    @classmethod
    def of_supplied_client(cls, family: str) -> "HTTPErrors":
        """What the user's clients of `httpx` or `httpx2` raise."""
        return cls(cast("_Family", importlib.import_module(family)))

    def translate(
        self, error: BaseException, request: Request, *, handled: BaseException | None
    ) -> BaseException | Response:
        """Make one of ours of what a client raises.

        Args:
            error: What the client raised.
            request: What was sent.
            handled: The exception in whose handling the call is made.

        Returns:
            The error to raise, without the frames that it comes from. What interrupts the call and
            errors of this library stay what they are. An AssertionError is a test's, such as
            respx's for a call that is not mocked, and keeps its frames too. Where a hook of the
            user's raised for the response's status, the response.
        """
        if isinstance(error, AssertionError):
            return error
        interrupt = interrupt_in(error, handled=handled)
        if interrupt is not None:
            return without_frames(interrupt)
        if (
            isinstance(error, ChatKitError)
            or not isinstance(error, Exception)
            or not self._comes_from_client(error)
        ):
            return without_frames(error)
        if isinstance(error, self.family.HTTPStatusError):
            return _response_of(error)
        text = redact(_text_of(error) or "", request.secrets)
        ours = self._describe(error, text, host=urlsplit(request.url).netloc)
        if self._lose_request(error, text, request):
            ours.__cause__ = error
        return ours

    def _comes_from_client(self, error: Exception) -> bool:
        """Whether the HTTP client raised it, or in a client of the user's: what the client calls.

        A class that the code which was running has not heard of was raised into it from elsewhere,
        such as by `PyThreadState_SetAsyncExc`.
        """
        if isinstance(error, OSError) or _package(type(error).__module__) in _HTTP:
            return True
        modules = [str(frame.f_globals["__name__"]) for frame, _ in walk_tb(error.__traceback__)]
        origin = _package(modules[-1])
        is_pythons = _package(type(error).__module__) in sys.stdlib_module_names
        in_client = origin in _HTTP or origin in sys.stdlib_module_names
        if not self.supplied:
            return is_pythons and in_client  # such as for a host name that cannot be one
        *_, interrupted = (module for module in modules if _package(module) == _OURS)
        is_called = interrupted.startswith(_HERE)
        return is_called and (is_pythons or not (in_client or origin == _OURS))

    def _describe(self, error: Exception, text: str, *, host: str) -> APIConnectionError:
        name = type(error).__name__
        reason = f"{name}: {text}" if text else name
        through = f" through the proxy {self.proxy[0]}" if self.proxy else ""
        if isinstance(error, self.family.TimeoutException | TimeoutError):
            return APITimeoutError(
                f"{host} gave no complete response in time{through} ({reason}).",
                hint=f"Check that this machine reaches {self._peer(host)}, or allow the call more "
                "time.",
            )
        message = f"No complete response came from {host}{through} ({reason})."
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return APIConnectionError(message, hint=_CERTIFICATE, permanent=True)
        if isinstance(error, self.family.ProxyError) and text.startswith("407"):
            address, source = self.proxy or ("proxy.example.com:3128", "the proxy's URL")
            hint = _PROXY_LOGIN.format(address=address, source=source)
            return APIConnectionError(message, hint=hint, permanent=True)
        return APIConnectionError(
            message,
            hint=f"Check that this machine reaches {self._peer(host)} (name resolution, firewall, "
            "proxy settings, certificates), and OPENAI_BASE_URL (or `base_url`).",
            answered=isinstance(error, self.family.DecodingError),
            permanent=isinstance(error, _MISTAKES),
        )

    def _peer(self, host: str) -> str:
        """What has to be reached, for hints."""
        if self.proxy is None:
            return host
        address, source = self.proxy
        return f"the proxy {address}, which {source} names, and that it lets calls to {host} pass"

    def _lose_request(self, error: Exception, text: str, request: Request) -> bool:
        """Take from an error what shows the request; False where something may be left."""
        if isinstance(error, self.family.RequestError):
            bare = self.family.Request(request.method, request.url)
            cast("_RequestError", error).request = bare
        elif isinstance(error, _REFERRING) or _text_of(error) is None or not _is_bare(error):
            return False
        BaseException.__setattr__(error, "args", (text,))
        without_frames(error)
        return True


def _package(module: str) -> str:
    return module.partition(".")[0]


def _text_of(error: Exception) -> str | None:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- somebody else's `__str__`
        return None


def _is_bare(error: Exception) -> bool:
    return all(isinstance(value, _HARMLESS) for value in vars(error).values())


def _response_of(error: Exception) -> Response:
    """The response that a hook raised for, with its body if the hook has read it."""
    response = cast("_Response", vars(error)["response"])
    body = Body(response.status_code, response.headers, decoded=True)
    with contextlib.suppress(RuntimeError):  # it has not been read
        body.add(response.content)
    return body.response()
