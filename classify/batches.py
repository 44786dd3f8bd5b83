"""The order of an epoch, and batches made ahead of the model by threads.

Order and augmentation depend on (seed, epoch, image row, how often the epoch has shown it before) alone: neither the
number of workers nor an interruption changes what the model sees.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import local
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from classify.augment import AugmentConfig, Augmenter
from classify.images import Images
from weakray.detections import FloatArray
from weakray.imaging import to_batch

Part = TypeVar("Part")
Made = TypeVar("Made")
_ORDER = 0  # stream of random numbers, apart from that of the augmentation


def epoch_order(images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order `(images,)` in which an epoch shows the rows."""
    return np.random.default_rng(np.random.SeedSequence([seed, _ORDER, epoch])).permutation(images)


def turns(batches: Sequence[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """How often each row of each batch of an epoch has come before in it, from 0; in the batches' shapes."""
    seen: Counter[int] = Counter()
    counted = []
    for rows in batches:
        before = []
        for row in rows.tolist():
            before.append(seen[row])
            seen[row] += 1
        counted.append(np.array(before, np.int64))
    return counted


def training_batches(
    images: Images,
    batches: Sequence[npt.NDArray[np.int64]],
    turns: Sequence[npt.NDArray[np.int64]],
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    workers: int,
) -> Iterator[FloatArray]:
    """Augmented batches `(b, c, s, s)` in [0, 1], made ahead by `workers` threads.

    Args:
        images: by row.
        batches: rows of each batch.
        turns: how often the epoch has shown each of them before: an image drawn again is augmented anew.
        augment: the steps.
        seed: of what they draw.
        epoch: from 0.
        workers: threads.
    """
    own = local()

    def make(part: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> FloatArray:
        if not hasattr(own, "augmenter"):
            own.augmenter = Augmenter(augment, seed)
        pairs = zip(*(each.tolist() for each in part), strict=True)
        return to_batch([own.augmenter(images[row], epoch, row, turn) for row, turn in pairs])

    return ahead(make, list(zip(batches, turns, strict=True)), workers)


def plain_batches(images: Images, rows: npt.NDArray[np.int64], batch_size: int, workers: int) -> Iterator[FloatArray]:
    """Images of these rows, in order, `(b, c, s, s)` in [0, 1], unchanged, the last batch possibly smaller."""
    parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return ahead(lambda part: to_batch([images[row] for row in part.tolist()]), parts, workers)


def ahead(make: Callable[[Part], Made], parts: Sequence[Part], workers: int) -> Iterator[Made]:
    """`make(part)` of each part, in order, made by threads that run at most `workers + 1` parts ahead.

    Threads are enough: decoding, warping and what else is slow runs in C, which frees the interpreter.
    """
    with _opencv_on_one_thread(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(make, part))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _opencv_on_one_thread() -> Iterator[None]:
    """OpenCV's own threads would take the cores from torch's, several for an image of a millisecond's work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
