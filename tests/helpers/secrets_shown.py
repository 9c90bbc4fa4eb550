"""What somebody sees of an error who prints all there is of it."""

import dataclasses
import json
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import httpx

import chatkit_sessions
from chatkit_sessions.integrations import EndpointRequest
from support import KEY, NEW_SECRET, SECRET, refused, session_json

PACKAGE = str(Path(chatkit_sessions.__file__).parent)
SECRETS = (KEY, SECRET, NEW_SECRET)
PARTS = tuple(secret[-12:] for secret in SECRETS)
"""Not even these may be seen."""
ECHO = f"You sent {KEY} and {SECRET} and got {NEW_SECRET}"


def everything_shown(error: BaseException) -> Iterator[str]:
    """All that handlers, loggers and error trackers can show of an error, and of its causes.

    Local variables are those of this library's frames and of the HTTP client's, were any left.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield from (repr(current), str(current), repr(vars(current)))
        # Without the lines of source: to find them takes most of the time, and they are no secret.
        yield from traceback.format_exception(current, limit=0)
        frames = traceback.walk_tb(current.__traceback__)
        summary = traceback.StackSummary.extract(frames, lookup_lines=False, capture_locals=True)
        for frame in summary:
            if PACKAGE in frame.filename or "site-packages/http" in frame.filename:
                yield f"{frame.name}: {frame.locals}"
        pending += [current.__cause__, current.__context__]


def assert_silent(texts: Iterable[str], parts: Iterable[str] = PARTS) -> None:
    for text in texts:
        for part in parts:
            assert part not in text


def everything_walked(error: BaseException) -> Iterator[str]:
    """What tools show that walk through the local variables of this library's frames.

    They slice texts and bytes, iterate, walk through mappings and show the fields of dataclasses
    that are part of the repr.
    """
    walk = Walk()
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            for name, value in frame.f_locals.items():
                for text in walk.through(value, 6):
                    yield f"{frame.f_code.co_qualname}:{line} {name}: {text}"


class Walk:
    """Goes through what frames have in common once."""

    def __init__(self) -> None:
        self._walked: dict[int, tuple[int, object]] = {}
        """How deep into which object; kept, so that no other one gets its id."""

    def through(self, value: object, depth: int) -> Iterator[str]:
        if self._walked.get(id(value), (-1, None))[0] >= depth:
            return
        self._walked[id(value)] = depth, value
        yield repr(value)
        if isinstance(value, str):
            yield str.__str__(value)
        elif isinstance(value, bytes | bytearray):
            yield bytes(value).decode(errors="replace")
        elif depth > 0:
            for part in parts_of(value):
                yield from self.through(part, depth - 1)


def parts_of(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).items()
    if isinstance(value, list | tuple | set | frozenset):
        return cast("Iterable[object]", value)
    if isinstance(value, type):
        return ()
    if dataclasses.is_dataclass(value):
        shown = [field.name for field in dataclasses.fields(value) if field.repr]
        return [getattr(value, name, None) for name in shown]
    rich: object = getattr(value, "__rich_repr__", None)
    return cast("Iterable[object]", rich()) if callable(rich) else ()


def created(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=session_json(note=ECHO))


def failed(_: httpx.Request) -> httpx.Response:
    return refused(400, ECHO, headers={"x-request-id": ECHO})


def bad(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=session_json(expires_at="soon", note=ECHO))


def create_request() -> EndpointRequest:
    return EndpointRequest(
        method="POST",
        path="/session",
        url="http://shop.test/api/chatkit/session",
        headers={"content-type": "application/json"},
        body=b"{}",
    )


def refresh_request() -> EndpointRequest:
    return EndpointRequest(
        method="POST",
        path="/session/refresh",
        url="http://shop.test/api/chatkit/session/refresh",
        headers={"content-type": "application/json"},
        body=json.dumps({"currentClientSecret": SECRET}).encode(),
    )
