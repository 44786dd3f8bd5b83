"""Several images a study: one network for each image, the sum of their logits for the study.

A batch is a list of real images, flattened over its studies, and the number of the study that each belongs to. There
is no padding: the network never sees an image that nobody took, and batch norm counts none.

- `images`: every image is a study of its own.
- `sum`: one network for all views; a study's logit is the sum of its images' logits, then comes the sigmoid.
- `frontal`: the same, of the frontal images alone.
- `by_view`: as `sum`, with one network for frontal images and another for the rest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classify.augment import AugmentConfig
from classify.batches import training_batches
from classify.images import Images
from weakray.config import StrictModel
from weakray.dataset import Dataset, Split
from weakray.detections import BoolArray, FloatArray
from weakray.errors import DataError

StudyMode = Literal["images", "sum", "frontal", "by_view"]
MOST_IMAGES = 8  # a study
_FRONTAL = {"PA", "AP", "FRONTAL"}

Rows = npt.NDArray[np.int64]


def is_frontal(view: str) -> bool:
    """Whether a view is frontal: one of its words is PA, AP or frontal (`AP_horizontal`); blank is taken for it."""
    words = {word.upper() for word in re.findall(r"[A-Za-z]+", view)}
    return not words or bool(words & _FRONTAL)


class StudyCounts(StrictModel):
    """What grouping a split's images did.

    Attributes:
        mode: how they were grouped.
        studies: that are left.
        images: that are left, which is what the network sees.
        images_a_study: how many studies have so many images.
        disagreeing: (study, finding) pairs whose images have unlike labels, blank ones aside; the highest counts.
        unnamed_views: images whose view is blank; they are taken for frontal ones.
        not_frontal: images left out because they are not frontal.
        without_frontal: studies left out because no image of theirs is frontal.
        cut_studies: studies of more than `MOST_IMAGES`.
        cut_images: images left out of those; frontal ones stay first.
    """

    mode: StudyMode
    studies: int
    images: int
    images_a_study: dict[str, int]
    disagreeing: int
    unnamed_views: int
    not_frontal: int
    without_frontal: int
    cut_studies: int
    cut_images: int

    @property
    def lines(self) -> list[str]:
        """What was summed, left out or decided, for people; empty where every image stands for itself."""
        if self.mode == "images":
            return []
        found = [f"{self.mode}: {self.studies} studies of {self.images} images, each study read as a whole"]
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
    """The images of a split, study by study; the network sees these and no others.

    Attributes:
        study_ids: a row a study: patient and study id.
        image_ids: a row an image; those of a study stand together.
        study_of: `(images,)`, each image's study row, ascending.
        frontal: `(images,)`.
        labels: `(studies, k)`: 1, 0, -1 uncertain, NaN not mentioned.
        row_of: image id → study row, of the images left out of a study too.
        counts: what the grouping did.
    """

    study_ids: list[tuple[str, str]]
    image_ids: list[str]
    study_of: Rows
    frontal: BoolArray
    labels: FloatArray
    row_of: dict[str, int]
    counts: StudyCounts

    def __len__(self) -> int:
        return len(self.study_ids)

    @cached_property
    def names(self) -> list[str]:
        """A name for each study that no other has: the id of its first image."""
        return [self.image_ids[row] for row in np.unique(self.study_of, return_index=True)[1].tolist()]

    def flatten(self, rows: Rows) -> tuple[Rows, Rows]:
        """Rows of a batch's studies `(b,)` → rows of their images `(n,)` and, in [0, b), each one's study `(n,)`."""
        starts, ends = np.searchsorted(self.study_of, rows), np.searchsorted(self.study_of, rows, side="right")
        none = np.arange(0)  # of no study no image
        images = np.concatenate([none, *(np.arange(start, end) for start, end in zip(starts, ends, strict=True))])
        return images, np.repeat(np.arange(len(rows)), ends - starts)


def group(dataset: Dataset, split: Split | None, mode: StudyMode) -> Studies:
    """Groups the images of a split (None: of all splits) into studies; a study id counts within its patient alone.

    A study's label is the highest of its images', in the order blank < absent < uncertain < present.

    Raises:
        DataError: if no image is left.
    """
    table = dataset.images if split is None else dataset.images.loc[dataset.ids_of(split)]
    image_ids = [str(image_id) for image_id in table.index]
    patients, study_ids, views = (table[name].fillna("").astype(str) for name in ("patient_id", "study_id", "view"))
    told = {view: is_frontal(view) for view in views.unique()}
    frontal = np.array([told[view] for view in views], bool)
    unnamed = ~views.str.contains("[A-Za-z]").to_numpy(bool)
    of_study: dict[tuple[str, str], list[int]] = {}
    for row, (patient, study, image_id) in enumerate(zip(patients, study_ids, image_ids, strict=True)):
        alone = mode == "images" or not study  # without an id: the image alone
        of_study.setdefault((patient, image_id if alone else study), []).append(row)
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
        raise DataError(_nothing_left(dataset, split, sorted(told)))
    order = [row for rows in kept.values() for row in rows]
    # All images of a study say what it shows, those left out too: a report speaks of the whole study.
    every = [of_study[study_id] for study_id in kept]
    labels, disagreeing = _joined(dataset.labels.loc[image_ids].to_numpy(np.float32), every)
    counts = StudyCounts(
        mode=mode,
        studies=len(kept),
        images=len(order),
        images_a_study={str(n): found for n, found in sorted(Counter(map(len, kept.values())).items())},
        disagreeing=disagreeing,
        unnamed_views=int(unnamed[order].sum()),
        not_frontal=int((~frontal).sum()) if mode == "frontal" else 0,
        without_frontal=without_frontal,
        cut_studies=cut_studies,
        cut_images=cut_images,
    )
    return Studies(
        list(kept),
        [image_ids[row] for row in order],
        np.repeat(np.arange(len(kept)), [len(rows) for rows in kept.values()]),
        frontal[order],
        labels,
        {image_ids[row]: study for study, rows in enumerate(every) for row in rows},
        counts,
    )


def _nothing_left(dataset: Dataset, split: Split | None, views: list[str]) -> str:
    where = "" if split is None else f" in split {split}"
    if not views:
        return f"{dataset.root}: expected images{where}, got none; ingest it with images{where}"
    return (
        f"{dataset.root}: expected frontal images{where}, got none (views: {', '.join(views)}); set studies to "
        "sum or images"
    )


def _joined(labels: FloatArray, studies: Sequence[Sequence[int]]) -> tuple[FloatArray, int]:
    """Labels `(n, k)` of images and each study's rows → labels `(studies, k)`, and how many pairs were of two minds."""
    if all(len(rows) == 1 for rows in studies):
        return labels[[rows[0] for rows in studies]], 0
    starts = np.cumsum([0, *map(len, studies)])[:-1]
    ordered = labels[[row for rows in studies for row in rows]]
    blank = np.isnan(ordered)
    rank = np.select([blank, ordered == 0, ordered == -1, ordered == 1], [0, 1, 2, 3], 4)
    highest = np.maximum.reduceat(rank, starts)
    lowest = np.minimum.reduceat(np.where(blank, 5, rank), starts)  # of those that say something
    # What is no label stays none, for `targets` to refuse.
    return np.array([np.nan, 0, -1, 1, np.inf], np.float32)[highest], int((lowest < highest).sum())


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
        turns: how often the epoch has shown each of them before (`classify.batches.turns`).
    """

    images: Images
    studies: Studies
    batches: Sequence[Rows]
    turns: Sequence[Rows]

    def augmented(self, augment: AugmentConfig, seed: int, epoch: int, workers: int) -> Iterator[StudyBatch]:
        """The batches of an epoch; they depend on seed, epoch, image row and turn alone."""
        flat = [self.studies.flatten(rows) for rows in self.batches]
        turns = [turn[index] for turn, (_, index) in zip(self.turns, flat, strict=True)]
        made = training_batches(self.images, [images for images, _ in flat], turns, augment, seed, epoch, workers)
        for (images, index), pixels in zip(flat, made, strict=True):
            yield StudyBatch(pixels, torch.from_numpy(index), torch.from_numpy(self.studies.frontal[images]))
