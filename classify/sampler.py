"""Which training images an epoch shows, and in which order: drawn from (seed, epoch) alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from classify.batches import epoch_order
from classify.labels import PRESENT_ABOVE
from weakray.config import StrictModel
from weakray.detections import FloatArray
from weakray.errors import ConfigError, DataError

Rows = npt.NDArray[np.int64]
_DRAWS = 3  # stream of random numbers drawn from the seed


class SamplerConfig(StrictModel):
    """Which train images an epoch shows; val and test always show each image once."""

    images_per_epoch: int | None = Field(None, ge=2, description="images an epoch shows; null: as many as can be drawn")
    weights: Literal["uniform", "inverse_frequency"] = Field(
        "uniform", description="how likely an image is drawn: all alike, or as the rarest of its findings is rare"
    )
    no_finding_weight: float = Field(
        1.0, ge=0, description="times the weight of train images without a present finding, e.g. 0.1; 0: never shown"
    )
    replacement: bool = Field(False, description="an image may be drawn again in the same epoch")


def image_weights(config: SamplerConfig, values: FloatArray) -> npt.NDArray[np.float64]:
    """How likely each image is drawn, `(n,)`, at least 0.

    Under `inverse_frequency` an image weighs n / (number of images with its rarest present finding); those without one
    count as a class of their own.

    Args:
        config: the rule.
        values: targets `(n, k)`; above 0.5 the finding is present.
    """
    present = np.asarray(values) > PRESENT_ABOVE
    none = ~present.any(1)
    weights = np.ones(len(present))
    if config.weights == "inverse_frequency":
        classes = np.column_stack([present, none])
        rarity = len(classes) / np.maximum(classes.sum(0), 1)
        weights = np.where(classes, rarity, 0.0).max(1)
    weights[none] *= config.no_finding_weight
    return weights


@dataclass(frozen=True)
class Sampler:
    """Draws the rows of each epoch.

    Attributes:
        weights: `(n,)`, how likely each image is drawn.
        count: images drawn an epoch.
        replacement: whether one may come twice.
        batch_size: images a step.
        seed: of the draws.
    """

    weights: npt.NDArray[np.float64]
    count: int
    replacement: bool
    batch_size: int
    seed: int

    @classmethod
    def make(cls, config: SamplerConfig, values: FloatArray, batch_size: int, seed: int) -> Sampler:
        """A sampler for images with these targets `(n, k)`.

        Raises:
            ConfigError: if more images are asked for than can be drawn, or weights that change nothing.
            DataError: if only one image can be drawn.
        """
        weights = image_weights(config, values)
        can = int((weights > 0).sum())
        if can < 2:
            raise DataError(
                f"train: expected at least 2 images to draw from, got {can} (of {len(weights)}, "
                f"sampler.no_finding_weight {config.no_finding_weight:g}); batch norm cannot learn from one"
            )
        count = can if config.images_per_epoch is None else config.images_per_epoch
        if not config.replacement:
            if count > can:
                raise ConfigError(
                    f"sampler.images_per_epoch: expected at most {can}, as many as there are to draw, got {count}; "
                    "lower it, or set sampler.replacement to true"
                )
            if count == can and np.ptp(weights[weights > 0]) > 0:
                raise ConfigError(
                    f"sampler: weights change nothing where an epoch shows each of the {can} images once; set "
                    "sampler.images_per_epoch lower, or sampler.replacement to true"
                )
        return cls(weights, count, config.replacement, batch_size, seed)

    @property
    def batches_per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(1, self.count // self.batch_size)

    @property
    def left_out(self) -> int:
        """Images drawn for an epoch that fill no batch."""
        return max(0, self.count - self.batches_per_epoch * self.batch_size)

    def order(self, epoch: int) -> Rows:
        """Rows `(count,)` in the order in which an epoch (from 0) shows them."""
        if not self.replacement and np.ptp(self.weights) == 0:
            return epoch_order(len(self.weights), self.seed, epoch)[: self.count]
        random = np.random.default_rng(np.random.SeedSequence([self.seed, _DRAWS, epoch]))
        if self.replacement:
            share = self.weights / self.weights.sum()
            return random.choice(len(share), self.count, replace=True, p=share)
        # The smallest of exponential times with these rates: one row after another drawn by weight from those left.
        times = random.exponential(size=len(self.weights))
        due = np.divide(times, self.weights, out=np.full(len(times), np.inf), where=self.weights > 0)
        return np.argsort(due, kind="stable")[: self.count]

    def batches(self, epoch: int) -> list[Rows]:
        """Rows of each batch of an epoch.

        What does not fill a batch is left out, other rows each epoch: batch norm learns badly from a few images. A set
        smaller than a batch is one batch.
        """
        order, size = self.order(epoch), self.batch_size
        return [order[i * size : (i + 1) * size] for i in range(self.batches_per_epoch)]
