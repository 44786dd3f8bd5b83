"""The size that compressed pixels really have: decoders allocate by it, whatever the DICOM header claims.

JPEG, JPEG lossless and JPEG-LS: the frame header SOFn (ITU-T T.81 B.2.2, T.87 C.2.2). JPEG 2000 and HTJ2K: the SIZ
marker (ITU-T T.800 A.5.1), behind a box header where the stream lies in a JP2 file.
"""

from __future__ import annotations

import struct

_SIZ = b"\xff\x4f\xff\x51"  # start of codestream, then SIZ, which must come first
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # Huffman tables, reserved, arithmetic conditioning
_LS_FRAME = 0xF7
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def frame_size_hw(frame: bytes) -> tuple[int, int] | None:
    """Height and width in pixels that a JPEG, JPEG-LS or JPEG 2000 stream will decode to; None if it says none."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg(frame)
    return _jpeg_2000(frame)


def _jpeg_2000(frame: bytes) -> tuple[int, int] | None:
    at = 0
    if frame[4:8] == b"jP  ":  # a JP2 file: boxes of length, type and content; the codestream is the content of jp2c
        while frame[at + 4 : at + 8] != b"jp2c":
            if at + 8 > len(frame):
                return None
            length = int.from_bytes(frame[at : at + 4], "big")
            if length < 8:  # 0 and 1 stand for other ways to tell a length, which only jp2c needs
                return None
            at += length
        at += 16 if frame[at : at + 4] == b"\0\0\0\1" else 8
    if frame[at : at + 4] != _SIZ or len(frame) < at + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)
    return max(0, bottom - top), max(0, right - left)


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _ALONE:
            at += 2
        elif (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER) or marker == _LS_FRAME:
            height, width = struct.unpack_from(">HH", frame, at + 5)
            return height, width
        else:
            (length,) = struct.unpack_from(">H", frame, at + 2)
            at += 2 + length
    return None
