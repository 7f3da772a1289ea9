"""A gzip body (RFC 1952), taken in piece by piece: never more of it is unpacked than it may hold."""

import zlib
from typing import Final

from metering.api.bodies import CLOSING, too_large
from metering.errors import MalformedEncoding

GZIP: Final = frozenset({b"gzip", b"x-gzip"})
"""How Content-Encoding says it (RFC 9110 8.4.1.3)."""

MEMBERS_MAX: Final = 64
"""Members of one body: bgzip makes one of 64 KiB. Each costs a decompressor, however little is in it."""

_GZIP_BITS: Final = 31  # zlib's word for: a gzip header, the largest window


class Gunzip:
    """Takes at most `bytes_max` bytes in and unpacks at most as many. A sink for `read_body`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = self._room = self._line = bytes_max
        self._parts: list[bytes] = []
        self._members = 0
        self._member = zlib.decompressobj(_GZIP_BITS)
        self._begun = False

    def take(self, piece: bytes) -> None:
        """Unpack one more piece of the body. Raises MalformedEncoding, or TooLarge when more comes out than may."""
        self._line -= len(piece)
        while piece:
            if self._member.eof:
                self._next_member()
            self._begun = True
            try:
                part = self._member.decompress(piece, self._room + 1)
            except zlib.error:
                raise MalformedEncoding("the body is not gzip", headers=CLOSING) from None
            self._room -= len(part)
            if self._room < 0 or self._line < 0:
                raise too_large(self._bytes_max, CLOSING)
            self._parts.append(part)
            piece = self._member.unused_data

    def whole(self) -> bytes:
        """All that was unpacked. Raises MalformedEncoding where the end of it is missing."""
        if not self._begun or not self._member.eof:
            raise MalformedEncoding("the gzip body is cut off")
        return b"".join(self._parts)

    def _next_member(self) -> None:
        self._members += 1
        if self._members >= MEMBERS_MAX:
            raise MalformedEncoding(f"the gzip body has more than {MEMBERS_MAX} members", headers=CLOSING)
        self._member = zlib.decompressobj(_GZIP_BITS)
