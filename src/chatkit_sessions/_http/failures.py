"""What HTTP clients raise, as this library's errors: typed, and without request and key.

The request, and the local variables of the client's frames, hold the API key in plain text.
"""

import contextlib
import sys
from collections.abc import Awaitable
from traceback import walk_tb
from typing import Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from chatkit_sessions._api.protocol import Request, Response
from chatkit_sessions._concurrency.clocks import Deadline
from chatkit_sessions._concurrency.threads import interrupt_in
from chatkit_sessions._redaction import redact, without_frames
from chatkit_sessions.errors import APIConnectionError, APITimeoutError, ChatKitError

from .exchange import Body

# Python's own exceptions with attributes that `vars` does not show and that may hold anything.
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
_PROXY_LOGIN_HINT: Final = (
    "Put the proxy's user name and password into {source}: http://user:password@{address}."
)


class _Request(Protocol):
    def __call__(self, method: str, url: str) -> object: ...


class _Family(Protocol):
    """The package `httpx` or `httpx2`."""

    @property
    def Request(self) -> _Request: ...  # noqa: N802 -- httpx's name


class _RequestError(Protocol):
    request: object


class _Response(Protocol):
    status_code: int
    headers: dict[str, str]

    @property
    def content(self) -> bytes: ...


class _HTTPClient(Protocol):
    """What sends requests; for threads it never suspends. It returns None after the deadline."""

    def send(self, request: Request, deadline: Deadline) -> Awaitable[Response | None]: ...


class HTTPErrors(NamedTuple):
    """What the clients of one family raise where no usable response came.

    Attributes:
        family: The package's name.
        proxy: The proxy that calls go through, as `host:port`, and the variable that names it.
        supplied: Whether the client is the user's, with whatever hooks and transports it has.
    """

    family: str
    proxy: tuple[str, str] | None = None
    supplied: bool = True

    def is_a(self, error: BaseException, name: str) -> bool:
        """Whether an error is of that class; none is of a package that nobody has imported."""
        kind: type | tuple[()] = getattr(sys.modules.get(self.family), name, ())
        return isinstance(error, kind)

    async def attempt(self, http: _HTTPClient, request: Request, deadline: Deadline) -> Response:
        """Send a request and read its response, or raise an error of this library."""
        response: Response | None = None
        error: BaseException | None = None
        handled = sys.exception()
        try:
            response = await http.send(request, deadline)
        except BaseException as raised:  # noqa: BLE001 -- raised below, or one of ours in its place
            failure = self.translate(raised, request, handled=handled)
            if isinstance(failure, Response):
                response = failure
            else:
                error = failure
        if error is not None or response is None:
            # Raised outside the `except`: the HTTP client's error must not be its context.
            raise error or deadline.error()
        return response

    def translate(
        self, error: BaseException, request: Request, *, handled: BaseException | None
    ) -> BaseException | Response:
        """Translate an HTTP client's exception into an error of this library.

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
        if self.is_a(error, "HTTPStatusError"):
            return _response_of(error)
        text = redact(_text_of(error) or "", request.secrets)
        ours = self._describe(error, text, host=urlsplit(request.url).netloc)
        if self._lose_request(error, text, request):
            ours.__cause__ = error
        return ours

    def _comes_from_client(self, error: Exception) -> bool:
        """Whether the HTTP client raised it, or the hooks and transports of the user's client.

        Otherwise another thread raised it here (`PyThreadState_SetAsyncExc`): then its class is one
        that the interrupted code does not know.
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
        if isinstance(error, TimeoutError) or self.is_a(error, "TimeoutException"):
            return APITimeoutError(
                f"{host} gave no complete response in time{through} ({reason}).",
                hint=f"Check that this machine reaches {self._peer(host)}, or allow the call more "
                "time.",
            )
        message = f"No complete response came from {host}{through} ({reason})."
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return APIConnectionError(message, hint=_CERTIFICATE, permanent=True)
        if self.is_a(error, "ProxyError") and text.startswith("407"):
            address, source = self.proxy or ("proxy.example.com:3128", "the proxy's URL")
            hint = _PROXY_LOGIN_HINT.format(address=address, source=source)
            return APIConnectionError(message, hint=hint, permanent=True)
        return APIConnectionError(
            message,
            hint=f"Check that this machine reaches {self._peer(host)} (name resolution, firewall, "
            "proxy settings, certificates), and OPENAI_BASE_URL (or `base_url`).",
            answered=self.is_a(error, "DecodingError"),
            permanent=isinstance(error, _MISTAKES),
        )

    def _peer(self, host: str) -> str:
        """The host that a call connects to, for hints."""
        if self.proxy is None:
            return host
        address, source = self.proxy
        return f"the proxy {address}, which {source} names, and that it lets calls to {host} pass"

    def _lose_request(self, error: Exception, text: str, request: Request) -> bool:
        """Remove the request from an error; return whether nothing is left of it."""
        if self.is_a(error, "RequestError"):
            package = cast("_Family", sys.modules[self.family])
            bare = package.Request(request.method, request.url)
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
