"""A response's body while it is read: bounded, also if it is compressed.

`Accept-Encoding: identity` is sent, and what comes compressed all the same is inflated step by
step: 64 KiB can hold 64 MiB, so that a bound on what arrives would bound nothing.
"""

import zlib
from collections.abc import Mapping
from typing import Final

from pydantic import SecretBytes

from chatkit_sessions._api.protocol import Response, max_body

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_BROKEN: Final = "its compression is broken"


class Body:
    """Takes a response's chunks until there is enough.

    Args:
        status_code: The response's status, which decides how much of the body is worth reading.
        headers: The response's headers, looked up by names in lower case.
        decoded: Whether chunks come without their content coding, as from a body that somebody has
            read before.
        sent: Bytes of the request's body, which the response may repeat.
    """

    def __init__(
        self, status_code: int, headers: Mapping[str, str], *, decoded: bool, sent: int = 0
    ) -> None:
        self._status_code = status_code
        self._headers = headers
        self._limit = max_body(status_code, sent=sent)
        self._content = bytearray()
        self._error: str | None = None
        self._inflate: _Inflate | None = None
        coding = None if decoded else headers.get("content-encoding")
        if coding:
            self._decode(coding.strip().lower())

    def _decode(self, coding: str) -> None:
        if coding in {"gzip", "x-gzip", "deflate"}:
            self._inflate = _Inflate()
        elif coding not in {"", "identity"}:
            self._error = "it comes in a compression that was not asked for"

    def add(self, chunk: bytes) -> bool:
        """Take a chunk; return whether more is needed."""
        # One byte more than the limit tells that there is more than the limit.
        room = self._limit + 1 - len(self._content)
        if self._error is None and self._inflate is not None:
            try:
                chunk = self._inflate.decode(chunk, room)
            except zlib.error:
                self._error = _BROKEN
        if self._error is None:
            self._content += chunk[:room]
        if len(self._content) > self._limit:
            self._error = f"it is longer than {self._limit:,} bytes"
        return self._error is None

    def response(self) -> Response:
        """The response, as far as it has been read."""
        error = self._error
        if error is None and self._inflate is not None and self._inflate.unfinished:
            error = _BROKEN
        content = SecretBytes(bytes(self._content[: self._limit]))
        return Response(self._status_code, self._headers, content, error)


class _Inflate:
    """gzip, of one member or several, and deflate, which is zlib's format (RFC 9110, 8.4.1)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    @property
    def unfinished(self) -> bool:
        return self._begun and not self._member.eof

    def decode(self, chunk: bytes, most: int) -> bytes:
        content = bytearray()
        while chunk and len(content) < most:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            self._begun = True
            content += self._member.decompress(chunk, most - len(content))
            chunk = self._member.unused_data or self._member.unconsumed_tail
        return bytes(content)
