"""Messages between a worker and its slots: a JSON header of known length, then blobs.

    4 bytes, big endian: length of the header · header with "sizes": [n, …] · n bytes · …

The reader takes bytes in pieces of any size. Raises BadFormat for what no peer of ours sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import BadFormat

HEADER_LIMIT = 4 << 20
Frame = tuple[dict[str, Any], list[bytes]]


def frame(header: dict[str, Any], *blobs: bytes) -> list[bytes]:
    """The pieces of one message, to be written one after another."""
    text = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    return [len(text).to_bytes(4, "big") + text, *(blob for blob in blobs if blob)]


class FrameReader:
    """Puts messages together again."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._header: dict[str, Any] | None = None
        self._wanted = 4

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that these bytes complete."""
        self._data += data
        while len(self._data) >= self._wanted:
            if self._header is not None:
                yield self._finish(self._header)
            elif self._wanted == 4:
                self._expect_header()
            else:
                self._header = self._read_header()

    def _expect_header(self) -> None:
        size = int.from_bytes(self._data[:4], "big")
        if not 2 <= size <= HEADER_LIMIT:
            raise BadFormat("a message between worker and slot has a header of impossible length")
        self._wanted = 4 + size

    def _read_header(self) -> dict[str, Any]:
        try:
            header = json.loads(self._take(self._wanted)[4:])
            self._wanted = sum(header["sizes"])
        except (ValueError, KeyError, TypeError):
            raise BadFormat("a message between worker and slot has a torn header") from None
        return header

    def _finish(self, header: dict[str, Any]) -> Frame:
        blobs = [self._take(size) for size in header.pop("sizes")]
        self._header, self._wanted = None, 4
        return header, blobs

    def _take(self, size: int) -> bytes:
        with memoryview(self._data) as view:
            taken = bytes(view[:size])
        del self._data[:size]
        return taken
