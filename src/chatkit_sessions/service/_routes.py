"""The routes: method and path → operation."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from . import _refusals as refusals
from ._wire import Request

Operation: TypeAlias = Literal["create", "refresh", "sign_out", "get", "cancel"]


@dataclass(frozen=True, slots=True)
class _Route:
    operation: Operation
    method: str
    path: re.Pattern[str]


_ROUTES: Final = (
    _Route("create", "POST", re.compile(r"/v1/chatkit/sessions")),
    _Route("refresh", "POST", re.compile(r"/v1/chatkit/sessions/refresh")),
    _Route("sign_out", "POST", re.compile(r"/v1/chatkit/sessions/cancel")),
    _Route("get", "GET", re.compile(r"/v1/chatkit/sessions/(?!(?:refresh|cancel)\Z)([^/]+)")),
    _Route("cancel", "POST", re.compile(r"/v1/chatkit/sessions/([^/]+)/cancel")),
)
OPERATIONS: Final[frozenset[Operation]] = frozenset(route.operation for route in _ROUTES)
EXTENSIONS: Final[frozenset[Operation]] = OPERATIONS - {"create", "cancel"}
"""Those that OpenAI's API does not have."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request's operation and session.

    Attributes:
        operation: The operation of its method and path.
        session_id: The session id in the path, percent-decoded; empty if the path has none.
    """

    operation: Operation
    session_id: str


def find_call(request: Request, served: Collection[Operation]) -> Call:
    """Find a request's operation.

    Args:
        request: The request; its query is ignored.
        served: The operations that the service offers.

    Raises:
        Refusal: 404 if no offered operation has this path, 405 if one has it with another method.
    """
    path = request.path.partition("?")[0]
    matches = [
        (route, match)
        for route in _ROUTES
        if route.operation in served and (match := route.path.fullmatch(path))
    ]
    if not matches:
        raise refusals.invalid_url(request.method, path)
    for route, match in matches:
        if route.method == request.method:
            return Call(route.operation, unquote("".join(match.groups())))
    allowed = sorted({route.method for route, _ in matches})
    raise refusals.invalid_method(request.method, path, allowed=allowed)
