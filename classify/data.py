"""Prepared images, augmentation and batches for training.

Order and augmentation depend on (seed, epoch, image row) alone: neither the number of workers nor an interruption
changes what the model sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.detections import FloatArray
from weakray.imaging import Image, InputSpec, prepare, read_image, to_batch
from weakray.stack import silence

_ORDER, _AUGMENT = 0, 1  # streams of random numbers drawn from one seed


class AugmentConfig(StrictModel):
    """Random changes of the training images, drawn anew for each image and epoch; 0 turns one off."""

    translate: float = Field(0.05, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    rotate_deg: float = Field(10.0, ge=0, le=180, description="largest rotation either way, degrees")
    scale: float = Field(0.1, ge=0, lt=1, description="largest relative change of size")
    brightness_contrast: float = Field(0.1, ge=0, le=1, description="largest relative change of either")
    horizontal_flip: bool = Field(False, description="mirror half of the images; wrong where side matters")


@dataclass
class PreparedImages:
    """Images of a dataset as the model sees them, by row; kept in memory once prepared, or decoded at each use.

    Attributes:
        dataset: where they come from.
        image_ids: a row each.
        spec: what the model sees.
        cache: keep `rows × size² × channels` bytes in memory.
    """

    dataset: Dataset
    image_ids: Sequence[str]
    spec: InputSpec
    cache: bool
    _kept: dict[int, Image] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> Image:
        """The image of a row, `(s, s)` or `(s, s, 3)` uint8; not to be written into."""
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        image, _ = prepare(read_image(self.dataset.path_of(self.image_ids[row])), self.spec)
        if self.cache:
            self._kept[row] = image
        return image


class Augmenter:
    """Applies an `AugmentConfig` by albumentations. One instance serves one thread at a time."""

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        silence()
        import albumentations

        self._seed = seed
        steps: list[Any] = []
        if config.translate or config.rotate_deg or config.scale:
            steps.append(
                albumentations.Affine(
                    translate_percent=(-config.translate, config.translate),
                    rotate=(-config.rotate_deg, config.rotate_deg),
                    scale=(1 - config.scale, 1 + config.scale),
                    p=1.0,
                )
            )
        if config.brightness_contrast:
            limit = (-config.brightness_contrast, config.brightness_contrast)
            steps.append(albumentations.RandomBrightnessContrast(brightness_limit=limit, contrast_limit=limit, p=1.0))
        if config.horizontal_flip:
            steps.append(albumentations.HorizontalFlip(p=0.5))
        self._compose = albumentations.Compose(steps) if steps else None

    def __call__(self, image: Image, epoch: int, row: int) -> Image:
        """A changed copy of `image` `(s, s)` or `(s, s, 3)`; the same for the same seed, epoch and row."""
        if self._compose is None:
            return image
        self._compose.set_random_seed(int(_stream(self._seed, _AUGMENT, epoch, row).integers(2**31)))
        changed: Image = self._compose(image=image)["image"]
        return changed


def epoch_order(images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order `(images,)` in which an epoch shows the rows."""
    return _stream(seed, _ORDER, epoch).permutation(images)


def _stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, *place]))


def epoch_batches(images: int, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each batch of an epoch.

    What does not fill a batch is left out, other rows each epoch: batch norm learns badly from a few images. A set
    smaller than a batch is one batch.
    """
    order = epoch_order(images, seed, epoch)
    full = max(1, images // batch_size)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(full)]


def training_batches(
    images: PreparedImages,
    batches: Sequence[npt.NDArray[np.int64]],
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    workers: int,
) -> Iterator[FloatArray]:
    """Augmented batches `(b, c, s, s)` in [0, 1], made ahead by `workers` threads (decoding frees the interpreter)."""
    own = local()

    def make(rows: npt.NDArray[np.int64]) -> FloatArray:
        if not hasattr(own, "augmenter"):
            own.augmenter = Augmenter(augment, seed)
        return to_batch([own.augmenter(images[row], epoch, row) for row in rows.tolist()])

    return ahead(make, batches, workers)


def plain_batches(images: PreparedImages, batch_size: int, workers: int) -> Iterator[FloatArray]:
    """All images in row order, `(b, c, s, s)` in [0, 1], unchanged, the last batch possibly smaller."""
    rows = np.arange(len(images))
    parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return ahead(lambda part: to_batch([images[row] for row in part.tolist()]), parts, workers)


def ahead(
    make: Callable[[npt.NDArray[np.int64]], FloatArray], parts: Sequence[npt.NDArray[np.int64]], workers: int
) -> Iterator[FloatArray]:
    """`make(part)` of each part, in order, made by threads that run at most `workers + 1` parts ahead."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[FloatArray]] = deque()
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
