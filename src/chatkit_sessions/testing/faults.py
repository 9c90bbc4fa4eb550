"""What can go wrong with a response on its way, as plain values.

`reset` and `hang` lose the request: nothing is carried out. With `drip`, `truncate` and `oversize`
the request is carried out and its response does not arrive as it should: a session may exist whose
secret nobody holds.
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
    """The `content-length` of a response that arrives with this fault."""
    return len(body) + len(_PIECE) * _PIECES if fault == "oversize" else len(body)


def pieces_sent(body: bytes, fault: Fault | None) -> Iterator[bytes]:
    """What is sent of a body before the fault takes the rest, piece by piece.

    An oversized one is the body and 64 MiB of white space, which is JSON all the same.
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
