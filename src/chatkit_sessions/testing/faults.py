"""Faults of the connection, as plain values.

With `reset` and `hang`, the API does not process the request. With `drip`, `truncate` and
`oversize`, it does, but the response arrives damaged: a session may exist that nobody uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator

Fault: TypeAlias = Literal["reset", "hang", "drip", "truncate", "oversize"]

FAULTS: Final[frozenset[Fault]] = frozenset(get_args(Fault))
LOSES_THE_REQUEST: Final[frozenset[Fault]] = frozenset({"reset", "hang"})

_PIECE: Final = b" " * (1024 * 1024)
_PIECES: Final = 64


def length_claimed(body: bytes, fault: Fault | None) -> int:
    """The `content-length` of a response with this fault."""
    return len(body) + len(_PIECE) * _PIECES if fault == "oversize" else len(body)


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
        for _ in range(_PIECES):
            yield _PIECE
    else:
        yield body
