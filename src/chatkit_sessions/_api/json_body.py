"""JSON bodies: requests with the same bytes each time, responses read strictly."""

import json
from typing import Final, cast

from pydantic import JsonValue, SecretBytes
from pydantic_core import from_json

_MAX_DEPTH: Final = 64


class UnreadableBodyError(Exception):
    """Why a body is not a JSON document. Holds nothing of the body."""


def encode_json(document: JsonValue) -> SecretBytes:
    """Encode a request's body; names in order, so that the same request has the same bytes."""
    return SecretBytes(_ENCODER.encode(document).encode())


def decode_json(body: bytes) -> JsonValue:
    """Decode a response's body.

    Raises:
        UnreadableBodyError: The body is not UTF-8 or not JSON, or holds what breaks later: a lone
            surrogate, nesting without end, `NaN`.
    """
    if not body:
        raise UnreadableBodyError("it is empty")
    document = _decode_plain(body)
    plain = document is not None
    if not plain:
        document = _decode_strictly(body)
    if not plain or body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        _check(document, depth=0)  # visits every value, which takes its time
    return document


def _decode_plain(body: bytes) -> JsonValue:
    """Decode by pydantic's parser, which is the faster; None leaves it to the other one."""
    try:
        document: JsonValue = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    return document


def _decode_strictly(body: bytes) -> JsonValue:
    try:
        document: JsonValue = _DECODER.decode(body.decode())
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it is not JSON"
    else:
        return document
    raise UnreadableBodyError(problem)


def _reject_constant(name: str) -> float:
    raise ValueError(name)


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_DECODER: Final = json.JSONDecoder(parse_constant=_reject_constant)


def _check(value: object, *, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise UnreadableBodyError("it is nested too deeply")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            _check(item, depth=depth + 1)
    elif isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            _check_text(name)
            _check(item, depth=depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableBodyError("it holds a lone surrogate") from None
