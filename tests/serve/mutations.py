"""Broken films from a seed: cut, flipped, lying, nested, joined, huge."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from tests.dicom import makers
from tests.serve.films import jpeg, noise, png

KINDS = ("png", "png16", "jpeg", "dicom")


def seeds_of(kind: str) -> list[bytes]:
    """Whole films of a kind to begin with, none square."""
    match kind:
        case "png":
            return [png(noise(40, 56)), png(noise(33, 20))]
        case "png16":
            return [png(makers.light(3)), png(makers.light(4, 21, 40, 16))]
        case "jpeg":
            return [jpeg(noise(40, 56)), jpeg(noise(24, 65))]
        case _:
            syntaxes = ("explicit", "implicit", "deflated", "jpeg_2000", "jpeg_ls", "rle", "jpeg_lossless")
            return [makers.content(makers.dataset(makers.light(n)), syntax) for n, syntax in enumerate(syntaxes)]


def mutated(kind: str, seed: int, whole: list[bytes]) -> bytes:
    """A broken film; now and then one that can still be read."""
    draw = random.Random(f"{kind} {seed}")  # noqa: S311 - a seeded test
    film = draw.choice(whole)
    changes: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flipped, _lying, _nested, _joined, _huge, _zeroed]
    for change in draw.sample(changes, draw.choice([1, 1, 1, 2])):
        film = change(film, draw)
    return film


def _cut(film: bytes, draw: random.Random) -> bytes:
    return film[: draw.randrange(len(film))]


def _flipped(film: bytes, draw: random.Random) -> bytes:
    changed = bytearray(film)
    for _ in range(draw.choice([1, 3, 30])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _lying(film: bytes, draw: random.Random) -> bytes:
    """Numbers of the head made large, small or negative."""
    changed = bytearray(film)
    lies = [
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        bytes(4),
        b"\x00\x00\xff\xff",
        b"\xff\xff",
        b"\x00\x01",
        b"\x80\x00",
    ]
    for _ in range(draw.randint(1, 4)):
        lie, start = draw.choice(lies), 0 if draw.random() < 0.2 else 8
        at = draw.randrange(start, max(start + 1, min(len(changed), 1200)))
        changed[at : at + len(lie)] = lie
    return bytes(changed)


def _nested(film: bytes, draw: random.Random) -> bytes:
    """A film within a film: at some place another begins."""
    at = draw.randrange(len(film) + 1)
    return film[:at] + film + film[at:]


def _joined(film: bytes, draw: random.Random) -> bytes:
    other = draw.choice([png(noise(9, 7)), jpeg(noise(9, 7)), b"PK\x03\x04" + bytes(60), b"%PDF-1.7\n" * 20])
    return other[: draw.randrange(len(other) + 1)] + film[draw.randrange(len(film)) :]


def _huge(film: bytes, draw: random.Random) -> bytes:
    """Says that it is a giant, or really inflates to one."""
    if film.startswith(b"\x89PNG"):
        side = draw.choice([3_000, 20_000, 60_000, 2**31 - 1])
        head = struct.pack(">IIBBBBB", side, side, draw.choice([8, 16]), 0, 0, 0, 0)
        rows = zlib.compress(bytes(draw.choice([10, 10**6])))
        return film[:8] + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    for marker in (b"\xff\xc0", b"\xff\xc3", b"\xff\xf7"):
        at = film.find(marker)
        if at > 0:
            return (
                film[: at + 5] + struct.pack(">HH", *(draw.choice([1, 65_535, 9_000]) for _ in "hw")) + film[at + 9 :]
            )
    return film.replace(b"\x28\x00\x10\x00", b"\x28\x00\x10\x00\xff\xff", 1)


def _zeroed(film: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(film))
    length = draw.choice([4, 64, 1000])
    return film[:at] + bytes(min(length, len(film) - at)) + film[at + length :]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
