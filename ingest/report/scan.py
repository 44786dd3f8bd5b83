"""One pass over the images: a perceptual hash of each, and the mean image.

Memory does not grow with their number, but for 32 bytes an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ingest.report.duplicates import Hashes, perceptual_hash
from weakray.errors import DataError
from weakray.imaging import Image, read_image, to_channels

MEAN_PX = 96
_AT_ONCE = 64  # images in flight


@dataclass(frozen=True)
class Scan:
    """What the pass found.

    Attributes:
        rows: rows of the images that could be read, in order.
        hashes: `(len(rows), 4)`.
        mean: `(MEAN_PX, MEAN_PX)` grey: all images, each stretched to the square; None where none could be read.
        unread: row → why it could not be read.
    """

    rows: npt.NDArray[np.int64]
    hashes: Hashes
    mean: Image | None
    unread: dict[int, str]


def scan_images(paths: Sequence[Path], workers: int) -> Scan:
    """Reads every image once; any number of workers gives the same result."""
    rows: list[int] = []
    hashes: list[Hashes] = []
    unread: dict[int, str] = {}
    total = np.zeros((MEAN_PX, MEAN_PX), np.int64)
    for row, seen in enumerate(tqdm(_seen(paths, workers), "looking at images", len(paths), unit="file", disable=None)):
        if isinstance(seen, str):
            unread[row] = seen
        else:
            rows.append(row)
            hashes.append(seen[0])
            total += seen[1]
    mean = np.asarray(np.rint(total / len(rows)), np.uint8) if rows else None
    stacked = np.stack(hashes) if hashes else np.zeros((0, 4), np.uint64)
    return Scan(np.array(rows, np.int64), stacked, mean, unread)


def _seen(paths: Sequence[Path], workers: int) -> Iterator[tuple[Hashes, Image] | str]:
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(paths), _AT_ONCE):  # in pieces, or the pool would hold a result for every image
            yield from pool.map(_look, paths[start : start + _AT_ONCE])


def _look(path: Path) -> tuple[Hashes, Image] | str:
    try:
        grey = to_channels(read_image(path), 1)
    except DataError as error:
        return str(error)
    small = cv2.resize(grey, (MEAN_PX, MEAN_PX), interpolation=cv2.INTER_AREA)
    return perceptual_hash(grey), np.asarray(small, np.uint8)
