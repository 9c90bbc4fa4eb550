"""An endpoint's arguments: the value, or a `ConfigurationError` that says what to change."""

import inspect
from typing import Final

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError, SessionNotRecordedError
from chatkit_sessions.models import ChatKitSessionInfo

MAX_RATE_LIMIT: Final = 1_000


def validate_rate_limit(limit: object) -> int | None:
    """Reject an invalid limit.

    Raises:
        ConfigurationError: The limit is not a whole number within the bounds.
    """
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_RATE_LIMIT:
        raise ConfigurationError(
            f"`rate_limit` must be a whole number from 1 to {MAX_RATE_LIMIT:,}, or None for no "
            f"limit, got {safe_repr(limit)}."
        )
    return limit


def validate_client(client: object, expected: type, *, endpoint: str) -> None:
    """Reject an async client where a sync one is expected, and the other way round.

    Raises:
        ConfigurationError: The client is not of that type.
    """
    if inspect.iscoroutine(client):
        client.close()  # nobody will await it
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got a coroutine.",
            hint="Pass the coroutine function itself, as in `chatkit_urls(get_chatkit)`, not a "
            "function that calls it.",
        )
    if not isinstance(client, expected):
        raise ConfigurationError(
            f"{endpoint} needs the client {expected.__name__}, got {safe_repr(client)}."
        )


def validate_function(function: object, argument: str, *, awaits: bool) -> None:
    """Reject what cannot be called for a request, when the endpoint is made.

    Args:
        function: The application's function.
        argument: The argument's name.
        awaits: Whether the endpoint awaits coroutines.

    Raises:
        ConfigurationError: It is not a function, or one whose result would be of no use.
    """
    # Looked up on the type: outside of a request, a proxy raises for everything else.
    is_proxy = hasattr(type(function), "_get_current_object")
    if is_proxy or not callable(function):
        given = f"a {type(function).__name__}" if is_proxy else safe_repr(function)
        raise ConfigurationError(
            f"`{argument}` must be a function, which is called for each request, got {given}.",
            hint=f"Pass a function, such as `{argument}=lambda: …`, with the parameters that your "
            "framework's functions take.",
        )
    if hasattr(function, "cache_info") and is_coroutine_function(inspect.unwrap(function)):
        raise ConfigurationError(
            f"`{argument}` is a coroutine function in `functools.cache`, which returns the "
            "coroutine of the first call again, and a coroutine can be awaited once.",
            hint="Keep the function's result instead of its coroutine, and pass the coroutine "
            "function itself.",
        )
    if not awaits and is_coroutine_function(function):
        raise ConfigurationError(
            f"`{argument}` is a coroutine function, but the endpoint is synchronous.",
            hint="Pass a plain function. With an AsyncChatKitClient, Django's views are "
            "asynchronous.",
        )


def is_coroutine_function(function: object) -> bool:
    """Whether a call returns a coroutine: also of an object with such a `__call__`."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 -- not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def require_owner(info: ChatKitSessionInfo, user: str) -> None:
    """Reveal nothing about another user's session, not even that it exists.

    Raises:
        SessionNotRecordedError: The session is not this user's.
    """
    if info.user != user:
        raise SessionNotRecordedError("The session is not this user's.")
