"""What `fail_next` lets go wrong: other responses, and faults of the connection.

With `reset` and `hang`, the API does not process the request. With `drip`, `truncate` and
`oversize`, it does, but the response arrives damaged: a session may exist that nobody uses.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from chatkit_sessions.service._error_responses import ErrorResponse, default_error
from chatkit_sessions.service._rules import OPERATIONS, Operation, find_call

from .wire import Headers, RecordedRequest, encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Fault: TypeAlias = Literal["reset", "hang", "drip", "truncate", "oversize"]

FAULTS: Final[frozenset[Fault]] = frozenset(get_args(Fault))
LOSES_THE_REQUEST: Final[frozenset[Fault]] = frozenset({"reset", "hang"})

_PADDING: Final = b" " * (1024 * 1024)
_PADDING_PIECES: Final = 64


def length_claimed(body: bytes, fault: Fault | None) -> int:
    """The `content-length` of a response with this fault."""
    return len(body) + len(_PADDING) * _PADDING_PIECES if fault == "oversize" else len(body)


def pieces_sent(body: bytes, fault: Fault | None) -> Iterator[bytes]:
    """The pieces of a body that are sent before the fault occurs.

    An oversized body is followed by 64 MiB of white space, and so is still JSON.
    """
    if fault == "drip":
        for byte in body:
            yield bytes([byte])
    elif fault == "truncate":
        yield body[: len(body) // 2]
    elif fault == "oversize":
        yield body
        for _ in range(_PADDING_PIECES):
            yield _PADDING
    else:
        yield body


@dataclass(slots=True)
class PlannedFailure:
    """A response that replaces the API's, or a fault of the connection.

    Attributes:
        operation: The operation whose requests fail; None: any.
        when: Returns whether such a request fails; None: all do.
        left: How many requests still fail; None: all.
        status_code: The status of the response.
        body: The body of the response.
        headers: The headers of the response, besides the common ones.
        fault: The fault of the connection; None: the response is replaced.
    """

    operation: Operation | None
    when: Callable[[RecordedRequest], bool] | None
    left: int | None
    status_code: int = 503
    body: bytes = b""
    headers: Headers = field(default_factory=Headers)
    fault: Fault | None = None


def make_failure(
    status_code: int | None,
    *,
    fault: Fault | None,
    error: Mapping[str, str | None],
    headers: Mapping[str, str] | None,
    body: bytes | str | None,
    times: int | None,
    operation: Operation | None,
    when: Callable[[RecordedRequest], bool] | None,
) -> PlannedFailure:
    """Make a failure from the arguments of `FakeChatKit.fail_next`.

    Args:
        status_code: As for `fail_next`.
        fault: As for `fail_next`.
        error: `message`, `type`, `code` and `param`.
        headers: As for `fail_next`.
        body: As for `fail_next`.
        times: As for `fail_next`.
        operation: As for `fail_next`.
        when: As for `fail_next`.

    Raises:
        ValueError: An argument is out of bounds, or two arguments exclude each other.
    """
    if times is not None and times < 1:
        raise ValueError(f"times must be 1 or more, not {times}")
    if operation is not None and operation not in OPERATIONS:
        raise ValueError(
            f"operation must be one of {', '.join(sorted(OPERATIONS))}, not {operation!r}"
        )
    if inspect.iscoroutinefunction(when):
        raise ValueError("when must be a plain function, not a coroutine function")
    if fault is not None:
        of_the_response = (status_code, headers, body, *error.values())
        if any(argument is not None for argument in of_the_response):
            raise ValueError("fault goes with times and operation alone")
        if fault not in FAULTS:
            raise ValueError(f"fault must be one of {', '.join(sorted(FAULTS))}, not {fault}")
        return PlannedFailure(operation, when, times, fault=fault)
    if status_code is None:
        raise ValueError("either status_code or fault is needed")
    if not 200 <= status_code <= 599:  # noqa: PLR2004 - HTTP's final statuses
        raise ValueError(f"status_code must be 200 to 599, not {status_code}")
    if body is None:
        content, content_type = _envelope(status_code, error), "application/json"
    else:
        content, content_type = body.encode() if isinstance(body, str) else body, "text/html"
    fields = {"content-type": content_type, **Headers((headers or {}).items())}
    return PlannedFailure(operation, when, times, status_code, content, Headers(fields.items()))


def _envelope(status_code: int, error: Mapping[str, str | None]) -> bytes:
    message, error_type = error["message"], error["type"]
    default_message, default_type = default_error(status_code)
    error_response = ErrorResponse(
        status_code,
        default_message if message is None else message,
        error_type=default_type if error_type is None else error_type,
        code=error["code"],
        param=error["param"],
    )
    return encode_json(error_response.envelope())


def take_failure(failures: list[PlannedFailure], request: RecordedRequest) -> PlannedFailure | None:
    """Return the first failure that applies to this request, and count it; None without one."""
    try:
        operation = find_call(request, OPERATIONS).operation
    except ErrorResponse:
        operation = None
    for index, failure in enumerate(failures):
        if failure.operation not in (None, operation):
            continue
        if failure.when is not None and not failure.when(request):
            continue
        if failure.left is not None:
            failure.left -= 1
            if failure.left == 0:
                del failures[index]
        return failure
    return None
