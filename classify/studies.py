"""Several images a study: one network for each image, the sum of their logits for the study.

A batch is a list of real images, flattened over its studies, and the number of the study that each belongs to. There
is no padding: the network never sees an image that nobody took, and batch norm counts none.

- `sum`: one network for all views; a study's logit is the sum of its images' logits, then comes the sigmoid.
- `frontal`: the same, of the frontal images alone.
- `by_view`: as `sum`, with one network for frontal images and another for the rest (`ByView`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from classify.augment import AugmentConfig
from classify.batches import training_batches
from classify.heads import HeadOutput
from classify.images import Images
from classify.model import Classifier
from weakray.config import StrictModel
from weakray.dataset import Dataset, Split
from weakray.detections import BoolArray, FloatArray
from weakray.errors import DataError

StudyMode = Literal["sum", "frontal", "by_view"]
MOST_IMAGES = 8  # a study
_FRONTAL = {"PA", "AP", "FRONTAL"}

Rows = npt.NDArray[np.int64]


def study_logits(image_logits: Tensor, study_index: Tensor, studies: int) -> Tensor:
    """Logits of images → logits of studies: the sum over each study's images.

    Args:
        image_logits: `(n, k)`, of real images alone.
        study_index: `(n,)` int64 in [0, studies): which study an image belongs to.
        studies: b.

    Returns:
        `(b, k)`; 0, which the sigmoid makes one half, for a study without image.
    """
    return image_logits.new_zeros(studies, image_logits.shape[1]).index_add(0, study_index, image_logits)


def is_frontal(view: str) -> bool:
    """Whether a view is frontal: one of its words is PA, AP or frontal (`AP_horizontal`); blank is taken for it."""
    words = {word.upper() for word in re.findall(r"[A-Za-z]+", view)}
    return not words or bool(words & _FRONTAL)


class StudyCounts(StrictModel):
    """What grouping a split's images did.

    Attributes:
        studies: that are left.
        images: that are left.
        images_a_study: how many studies have so many images.
        disagreeing: (study, finding) pairs whose images have unlike labels, blank ones aside; the highest counts.
        unnamed_views: images whose view is blank; they are taken for frontal ones.
        not_frontal: images left out because they are not frontal.
        without_frontal: studies left out because no image of theirs is frontal.
        cut_studies: studies of more than `MOST_IMAGES`.
        cut_images: images left out of those; frontal ones stay first.
    """

    studies: int
    images: int
    images_a_study: dict[int, int]
    disagreeing: int
    unnamed_views: int
    not_frontal: int
    without_frontal: int
    cut_studies: int
    cut_images: int

    @property
    def lines(self) -> list[str]:
        """What was left out or decided, for people; empty where nothing was."""
        found: list[str] = []
        if self.cut_studies:
            found.append(
                f"{self.cut_studies} studies have more than {MOST_IMAGES} images: {self.cut_images} images are left "
                "out, frontal ones stay first"
            )
        if self.not_frontal:
            found.append(
                f"{self.not_frontal} images are not frontal and left out, and with them {self.without_frontal} studies"
            )
        if self.disagreeing:
            found.append(f"{self.disagreeing} labels differ between the images of a study: the highest counts")
        if self.unnamed_views:
            found.append(f"{self.unnamed_views} images name no view and are taken for frontal ones")
        return found


@dataclass(frozen=True)
class Studies:
    """The images of a split, study by study.

    Attributes:
        study_ids: a row a study: patient and study id.
        image_ids: a row an image; those of a study stand together.
        study_of: `(images,)`, each image's study row, ascending.
        frontal: `(images,)`.
        labels: `(studies, k)`: 1, 0, -1 uncertain, NaN not mentioned.
        counts: what the grouping did.
    """

    study_ids: list[tuple[str, str]]
    image_ids: list[str]
    study_of: Rows
    frontal: BoolArray
    labels: FloatArray
    counts: StudyCounts

    def __len__(self) -> int:
        return len(self.study_ids)

    def flatten(self, rows: Rows) -> tuple[Rows, Rows]:
        """Rows of a batch's studies `(b,)` → rows of their images `(n,)` and, in [0, b), each one's study `(n,)`."""
        starts, ends = np.searchsorted(self.study_of, rows), np.searchsorted(self.study_of, rows, side="right")
        images = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        return images, np.repeat(np.arange(len(rows)), ends - starts)


def group(dataset: Dataset, split: Split, mode: StudyMode) -> Studies:
    """Groups a split's images into studies; a study id counts within its patient alone.

    A study's label is the highest of its images', in the order blank < absent < uncertain < present.

    Raises:
        DataError: if no image is left.
    """
    table = dataset.images.loc[dataset.ids_of(split)]
    patients, study_ids, views = (table[name].fillna("").astype(str) for name in ("patient_id", "study_id", "view"))
    frontal = np.array([is_frontal(view) for view in views], bool)
    of_study: dict[tuple[str, str], list[int]] = {}
    for row, (patient, study, image_id) in enumerate(zip(patients, study_ids, table.index, strict=True)):
        of_study.setdefault((patient, study or str(image_id)), []).append(row)  # without an id: the image alone
    labels = dataset.labels.loc[list(table.index)].to_numpy(np.float32)
    kept: dict[tuple[str, str], list[int]] = {}
    without_frontal = cut_studies = cut_images = 0
    for study_id, rows in of_study.items():
        wanted = [row for row in rows if frontal[row]] if mode == "frontal" else rows
        if not wanted:
            without_frontal += 1
            continue
        cut = len(wanted) - MOST_IMAGES
        if cut > 0:
            cut_studies, cut_images = cut_studies + 1, cut_images + cut
            wanted = sorted(sorted(wanted, key=lambda row: not frontal[row])[:MOST_IMAGES])
        kept[study_id] = wanted
    if not kept:
        raise DataError(
            f"{dataset.root}: expected {'frontal ' if mode == 'frontal' else ''}images in split {split}, got none"
            + (f" (views: {', '.join(sorted(set(views)))}); set studies to sum" if len(views) else "")
        )
    order = [row for rows in kept.values() for row in rows]
    # All images of a study say what it shows, those left out too: a report speaks of the whole study.
    joined = [_highest(labels[of_study[study_id]]) for study_id in kept]
    counts = StudyCounts(
        studies=len(kept),
        images=len(order),
        images_a_study=dict(sorted(Counter(len(rows) for rows in kept.values()).items())),
        disagreeing=sum(_disagreeing(labels[of_study[study_id]]) for study_id in kept),
        unnamed_views=sum(not re.search("[A-Za-z]", views.iloc[row]) for row in order),
        not_frontal=int((~frontal).sum()) if mode == "frontal" else 0,
        without_frontal=without_frontal,
        cut_studies=cut_studies,
        cut_images=cut_images,
    )
    return Studies(
        list(kept),
        [str(table.index[row]) for row in order],
        np.repeat(np.arange(len(kept)), [len(rows) for rows in kept.values()]),
        frontal[order],
        np.stack(joined),
        counts,
    )


def _highest(labels: FloatArray) -> FloatArray:
    """Labels `(n, k)` of a study's images → `(k,)`."""
    rank = np.select([np.isnan(labels), labels == 0, labels == -1], [0, 1, 2], 3).max(0)
    return np.array([np.nan, 0, -1, 1], np.float32)[rank]


def _disagreeing(labels: FloatArray) -> int:
    told = [{float(value) for value in column if not np.isnan(value)} for column in labels.T]
    return sum(len(values) > 1 for values in told)


class StudyBatch(NamedTuple):
    """The images of a few studies."""

    pixels: FloatArray  # (n, c, s, s), [0, 1]
    study_index: Tensor  # (n,) int64, [0, b)
    frontal: Tensor  # (n,) bool


@dataclass(frozen=True)
class StudyBatches:
    """Batches of studies for training: augmented, made ahead by threads, in the order of `batches`.

    Attributes:
        images: of `studies.image_ids`, row by row.
        studies: what belongs together.
        batches: study rows of each batch, as `classify.sampler.Sampler.batches` gives them.
    """

    images: Images
    studies: Studies
    batches: Sequence[Rows]

    def augmented(self, augment: AugmentConfig, seed: int, epoch: int, workers: int) -> Iterator[StudyBatch]:
        """The batches of an epoch; they depend on seed, epoch and image row alone."""
        flat = [self.studies.flatten(rows) for rows in self.batches]
        made = training_batches(self.images, [images for images, _ in flat], augment, seed, epoch, workers)
        for (images, index), pixels in zip(flat, made, strict=True):
            yield StudyBatch(pixels, torch.from_numpy(index), torch.from_numpy(self.studies.frontal[images]))


class ByView(nn.Module):
    """Two classifiers behind the face of one: frontal images go to the first, all others to the second.

    Each keeps its own batch-norm statistics, and is an ordinary member on disk.
    """

    def __init__(self, frontal: Classifier, other: Classifier) -> None:
        super().__init__()
        self.frontal = frontal
        self.other = other

    def forward(self, images: Tensor, frontal: Tensor) -> HeadOutput:
        """Images `(n, c, s, s)` in [0, 1], of which `frontal` `(n,)` bool → what each one's classifier makes of it.

        Logits `(n, k)` and maps `(n, k, h, w)` stand in the images' order; a classifier without an image is not
        called, and its weights get no gradient.
        """
        parts = [
            (frontal if model is self.frontal else ~frontal).nonzero()[:, 0] for model in (self.frontal, self.other)
        ]
        made = [model(images[rows]) for model, rows in zip((self.frontal, self.other), parts, strict=True) if len(rows)]
        back = torch.cat(parts).argsort()
        return HeadOutput(
            torch.cat([output.logits for output in made])[back],
            torch.cat([output.logit_maps for output in made])[back],
        )
