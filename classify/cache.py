"""Prepared images on disk: decoded once, read through memory mapping by as many processes as like.

A file holds a header (magic, length, JSON with its own checksum, zeros up to a page), then `rows × size² × channels`
bytes of pixels, then a CRC-32 of each image. Its name says which images under which `InputSpec`; the key in its header
says what these were: SHA-256 of each image as ingested, and the versions of what prepares them. Whoever opens one
checks size, header, key, every image's checksum, and prepares a few images anew to compare; a file that fails is made
again. Mapped pages are not the process's memory: the system drops them when it needs room.
"""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from filelock import FileLock
from tqdm import tqdm

from classify.images import PreparedImages
from weakray.config import to_plain
from weakray.dataset import Dataset
from weakray.errors import RunError
from weakray.files import replacing, sha256_json
from weakray.imaging import Image, InputSpec

_MAGIC = b"weakray images\x00\x01"
_PAGE = 4096
_PROBES = 4  # images that are prepared anew when a file is opened
_CHUNK = 64  # images that are made ahead

State = Literal["found", "built", "rebuilt"]


@dataclass(frozen=True)
class CachedImages:
    """Prepared images in a mapped file.

    Attributes:
        path: the file.
        state: found whole, built for the first time, or rebuilt.
        reason: why it was rebuilt, else empty.
        pixels: `(rows, s, s)` or `(rows, s, s, 3)` uint8, read-only.
    """

    path: Path
    state: State
    reason: str
    pixels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> Image:
        """The image of a row, read-only."""
        return self.pixels[row]


def cached_images(
    folder: Path, dataset: Dataset, image_ids: Sequence[str], spec: InputSpec, workers: int
) -> CachedImages:
    """Opens the file of some images in a cache folder, made first where it is missing, stale or damaged.

    Says on standard error what it does, with the bytes, before it writes. Of several processes that ask for one file
    the first makes it and the others wait.

    Args:
        folder: the cache folder, made where missing; runs may share it.
        dataset: where the images come from.
        image_ids: a row each, at least one.
        spec: what the model sees of an image.
        workers: threads that decode and check.

    Raises:
        RunError: if the file does not fit on the disk.
        DataError: if an image cannot be read.
    """
    source = PreparedImages(dataset, image_ids, spec, cache=False)
    wanted = _Layout.of(source)
    identity = {"dataset": str(dataset.root.resolve()), "image_ids": list(image_ids), "input": to_plain(spec)}
    path = folder / f"{spec.size_px}px-{spec.mode}-{sha256_json(identity)[:16]}.pixels"
    with _alone(path):
        reason = _fault(path, wanted, source, workers) if path.exists() else None
        if reason is None and path.exists():
            return CachedImages(path, "found", "", _mapped(path, wanted))
        state: State = "built" if reason is None else "rebuilt"
        why = f" ({reason})" if reason else ""
        tqdm.write(f"{path}: {state}{why}, {len(source):,} images, {wanted.bytes:,} bytes", file=sys.stderr)
        _build(path, wanted, source, workers)
        return CachedImages(path, state, reason or "", _mapped(path, wanted))


@dataclass(frozen=True)
class _Layout:
    """What a file must hold: its header, and where pixels and checksums lie."""

    header: bytes
    shape: tuple[int, ...]  # (rows, s, s) or (rows, s, s, 3)

    @classmethod
    def of(cls, source: PreparedImages) -> _Layout:
        spec, rows = source.spec, len(source)
        hashes = source.dataset.images.loc[list(source.image_ids), "sha256"].tolist()
        versions = {"opencv": cv2.__version__, "numpy": np.__version__}
        key = sha256_json({"input": to_plain(spec), "images": hashes, "versions": versions})
        shape = (rows, spec.size_px, spec.size_px, *((3,) if spec.channels == 3 else ()))
        text = json.dumps({"key": key, "shape": shape}).encode()
        start = _MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text
        return cls(start.ljust(-(-len(start) // _PAGE) * _PAGE, b"\x00"), shape)

    @property
    def image_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def pixel_bytes(self) -> int:
        return self.shape[0] * self.image_bytes

    @property
    def bytes(self) -> int:
        return len(self.header) + self.pixel_bytes + 4 * self.shape[0]


def _build(path: Path, layout: _Layout, source: PreparedImages, workers: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < layout.bytes:
        raise RunError(
            f"{path}: needs {layout.bytes:,} bytes, {free:,} are free; make room, name another cache_folder, "
            "or set it to null and keep the images in memory"
        )
    checksums = np.empty(layout.shape[0], "<u4")
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(layout.header)
            for row, image in enumerate(tqdm(_in_order(source, workers), "cache", len(source), disable=None)):
                checksums[row] = zlib.crc32(image.data)
                file.write(image.data)
            file.write(checksums.tobytes())
    except OSError as error:
        raise RunError(f"{path}: could not write the cache ({error.strerror or error})") from None


def _in_order(source: PreparedImages, workers: int) -> Iterator[Image]:
    rows = range(len(source))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), _CHUNK):
            yield from pool.map(source.__getitem__, rows[start : start + _CHUNK])


def _mapped(path: Path, layout: _Layout) -> npt.NDArray[np.uint8]:
    return np.asarray(np.memmap(path, np.uint8, "r", len(layout.header), layout.shape))


def _fault(path: Path, layout: _Layout, source: PreparedImages, workers: int) -> str | None:
    """Why a file cannot be used, or None."""
    with path.open("rb") as file:
        header = file.read(len(layout.header))
    if header != layout.header:
        return "stale: made from other images, or by another version" if _whole(header) else "damaged: header"
    size = path.stat().st_size
    if size != layout.bytes:
        return f"damaged: {size:,} bytes instead of {layout.bytes:,}"
    pixels = _mapped(path, layout)
    stored = np.fromfile(path, "<u4", layout.shape[0], offset=len(layout.header) + layout.pixel_bytes)
    parts = [slice(start, start + _CHUNK) for start in range(0, len(pixels), _CHUNK)]
    with ThreadPoolExecutor(workers) as pool:
        found = np.concatenate(list(pool.map(lambda part: _checksums(pixels[part]), parts)))
    damaged = int((found != stored).sum())
    if damaged:
        return f"damaged: {damaged} of {len(pixels)} images"
    probes = np.unique(np.linspace(0, len(pixels) - 1, _PROBES).astype(int)).tolist()
    if any(not np.array_equal(source[row], pixels[row]) for row in probes):
        return "stale: images are prepared differently now"
    return None


def _checksums(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return np.array([zlib.crc32(image) for image in pixels], np.uint32)


def _whole(header: bytes) -> bool:
    """Whether bytes begin with a header of ours whose checksum holds."""
    start = len(_MAGIC)
    length, stored = (int.from_bytes(header[at : at + 4], "little") for at in (start, start + 4))
    text = header[start + 8 : start + 8 + length]
    return header[:start] == _MAGIC and len(text) == length and zlib.crc32(text) == stored


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes off a file; whoever has it alone clears what a killed one left half made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be used as a cache folder ({error.strerror or error})") from None
    with lock:
        for left in path.parent.glob(f".{path.name}.*.part{path.suffix}"):
            left.unlink()
        yield
