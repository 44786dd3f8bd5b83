"""The chunks of a PNG, walked without decoding: OpenCV allocates whatever length a chunk claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 200_000  # OpenCV writes one for every 8 KiB


class Chunk(NamedTuple):
    """A chunk's kind, and where its content begins and ends; four bytes of checksum follow."""

    kind: bytes
    start: int
    end: int


def png_chunks(content: bytes) -> Iterator[Chunk]:
    """The chunks from the first to IEND; it ends without IEND where a chunk does not fit into the file."""
    view, at = memoryview(content), len(PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(content):
            return
        start = at + 8
        end = start + int.from_bytes(view[at : at + 4], "big")
        if end + 4 > len(content):
            return
        kind = bytes(view[at + 4 : start])
        yield Chunk(kind, start, end)
        if kind == b"IEND":
            return
        at = end + 4
