"""Tells a whole, plain PNG or JPEG by its structure, without decoding it.

Nearly every file of a data set is one. Their pixels are then decoded once, by the decoder that later stages use;
what is not plain (palettes, transparency, other formats, anything cut or damaged) goes the slow way, where Pillow says
what it is. A file is never refused here.
"""

from __future__ import annotations

import struct
import zlib

from weakray.png_chunks import PNG_SIGNATURE, png_chunks

_JPEG = b"\xff\xd8\xff"
_ANIMATED_OR_TRANSPARENT = (b"acTL", b"tRNS")
_PLAIN_PNG = {(8, 0), (16, 0), (8, 2)}  # bits a sample, colour type: grey, deep grey, RGB
_SUFFIXES = {"png": (".png",), "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif")}
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOFn
_SCAN = 0xDA
_END = b"\xff\xd9"
_EIGHT_BITS = 8
_PLAIN_COMPONENTS = (1, 3)  # four are printing inks


def plain_size_hw(content: bytes, suffix: str) -> tuple[int, int] | None:
    """Height and width of a PNG or JPEG that is plain, whole as far as its structure tells, and rightly named.

    Args:
        content: the file.
        suffix: of its name, in small letters.

    Returns:
        None for any other file, which may still be fine.
    """
    if content.startswith(PNG_SIGNATURE) and suffix in _SUFFIXES["png"]:
        return _png(content)
    if content.startswith(_JPEG) and suffix in _SUFFIXES["jpeg"]:
        return _jpeg(content)
    return None


def _png(content: bytes) -> tuple[int, int] | None:
    """Every chunk's checksum must hold, the first be IHDR and the last IEND (PNG specification, 5.3)."""
    view, size_hw = memoryview(content), None
    for kind, start, end in png_chunks(content):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return None
        if size_hw is None:
            if kind != b"IHDR" or end - start != 13:
                return None
            width, height, bits, colour = struct.unpack_from(">IIBB", content, start)
            if (bits, colour) not in _PLAIN_PNG:
                return None
            size_hw = (height, width)
        if kind == b"IEND":
            return size_hw
        if kind in _ANIMATED_OR_TRANSPARENT:
            return None
    return None


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """A frame header of 8 bits and one or three components, then a scan, then an end (ITU-T T.81, B.2)."""
    at, size_hw = 2, None
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if length < 2:
            return None
        if marker == _SCAN:
            return size_hw if content.rfind(_END) > at + length else None
        if marker in _FRAMES:
            if size_hw is not None or at + 10 > len(content):
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", content, at + 4)
            if bits != _EIGHT_BITS or components not in _PLAIN_COMPONENTS:
                return None
            size_hw = (height, width)
        at += 2 + length
    return None
