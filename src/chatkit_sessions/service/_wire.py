"""HTTP requests, responses and JSON, as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, Self, TypeAlias

from chatkit_sessions._redaction import MaskedBytes

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


class Headers(Mapping[str, str]):
    """HTTP headers. Look-ups ignore case; iteration returns lower-case names.

    The values of a repeated header are joined by commas. The repr shows the names only: a value
    may be an API key.

    Args:
        fields: Pairs of name and value.
    """

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            known = self._fields.get(name.lower())
            self._fields[name.lower()] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._fields)})"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived.

    Attributes:
        method: The verb, in upper case.
        path: The path, percent-encoded, with the query if there is one.
        headers: The headers.
        body: The body, without transfer coding.
    """

    method: str
    path: str
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        # It may contain a client secret, and tracebacks show local variables.
        object.__setattr__(self, "body", MaskedBytes(self.body))


@dataclass(frozen=True, slots=True)
class Response:
    """A response, ready to be sent.

    Attributes:
        status_code: The HTTP status.
        headers: All headers, except those of the connection.
        body: The complete body.
    """

    status_code: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)

    def with_header(self, name: str, value: str) -> Self:
        """Return the response with another header."""
        return replace(self, headers=Headers([*self.headers.items(), (name, value)]))

    def without_body(self) -> Self:
        """Return the response to HEAD: the same headers, no body."""
        return replace(self, body=b"")


def decode_json(body: bytes) -> JsonValue:
    """Parse `body` as JSON in UTF-8, strictly: no `NaN`, no number that overflows.

    Raises:
        ValueError: The body is not JSON, or nested too deeply.
    """
    try:
        value: JsonValue = json.loads(
            body.decode(), parse_float=_finite_float, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def encode_json(value: JsonValue) -> bytes:
    """Return `value` as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"out of range: {text}")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name}")
