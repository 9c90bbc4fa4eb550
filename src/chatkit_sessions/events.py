"""What clients and services report to `on_event`, such as for metrics.

An event holds no secret, no user and no id, and takes few values: each can be a metric's label.

| name | outcome |
|---|---|
| `create`, `refresh`, `get`, `cancel`, `sign_out` | `ok`, or the error's class: `NotFoundError` |
| `retry` | the class of the error after which an attempt is repeated |
| `reuse` | `ok`: a session was returned without a request |
| `endpoint_limit` | `rejected`: a user reached the endpoint's own rate limit |
| `store` | `outage` when one begins, `recovered` when it ends |
| `verify` | `ok`, the `reason` of an `InvalidClientSecretError`, or another error's class |
"""

import logging
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

EventName: TypeAlias = Literal[
    "create",
    "refresh",
    "get",
    "cancel",
    "sign_out",
    "retry",
    "reuse",
    "endpoint_limit",
    "store",
    "verify",
]

logger: Final = logging.getLogger("chatkit_sessions")


class Event(NamedTuple):
    """Something that happened. See this module for the values."""

    name: EventName
    outcome: str


OnEvent: TypeAlias = Callable[[Event], object]
"""A function that is called during a call, in its thread or task: it must not block."""


def report(on_event: OnEvent | None, name: EventName, outcome: str) -> None:
    """Call the function, if there is one; log an exception of its own, which fails no call."""
    if on_event is None:
        return
    try:
        on_event(Event(name, outcome))
    except Exception:
        logger.exception("`on_event` raised an exception for %r.", name)
