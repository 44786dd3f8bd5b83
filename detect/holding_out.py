"""A part of tune that a training does not see, so that its figure there means something.

A detector that has learnt tune's true boxes finds them again; its average precision on tune says nothing. Patients of
tune are dealt into folds; a training that holds one out has neither its boxes to learn from nor its counts to cut
scores by. What still leaks: the recipe that made the pseudo-boxes was fitted on all of tune, held-out images included.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError


class HeldOutConfig(StrictModel):
    """Which part of tune is held out."""

    folds: int = Field(3, ge=2, description="parts that the patients of tune are dealt into")
    fold: int = Field(0, ge=0, description="the part that is held out, from 0")
    seed: int = Field(0, ge=0, description="of the dealing; the same for all parts")

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> HeldOutConfig:
        if self.fold >= self.folds:
            raise ValueError(f"expected fold below folds ({self.folds}), got {self.fold}")
        return self


def held_out_ids(dataset: Dataset, config: HeldOutConfig) -> list[str]:
    """The tune images of the fold, in order.

    Raises:
        DataError: if tune has fewer patients than there are folds.
    """
    fold_of = patient_folds(dataset, config.folds, config.seed)
    return [i for i in dataset.ids_of("tune") if fold_of[dataset.patient_of(i)] == config.fold]


def patient_folds(dataset: Dataset, folds: int, seed: int) -> dict[str, int]:
    """The fold of each patient of tune, every finding's boxes spread as evenly as patients allow.

    Patients are dealt by their rarest finding, rarest first: each to the fold that has fewest boxes of it yet, of those
    to the one with fewest patients. What is equal goes by a seeded draw.

    Raises:
        DataError: if tune has fewer patients than there are folds.
    """
    truth, k = dataset.truth_of("tune"), len(dataset.taxonomy)
    boxes: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
    for image_id in dataset.ids_of("tune"):
        counts = boxes.setdefault(dataset.patient_of(image_id), np.zeros(k, np.int64))
        if image_id in truth.boxes:
            counts += np.bincount(truth.boxes[image_id].class_id, minlength=k)
    if len(boxes) < folds:
        raise DataError(
            f"{dataset.root}: expected at least as many patients on tune as folds ({folds}), got {len(boxes)}; "
            "take fewer folds, or annotate more images"
        )
    total = np.sum(list(boxes.values()), axis=0)
    rarest = {p: int(np.where(own > 0, total, total.max() + 1).argmin()) for p, own in boxes.items() if own.any()}
    draw = np.random.default_rng(seed).permutation(len(boxes))
    shuffled = [list(boxes)[i] for i in draw.tolist()]
    order = sorted(shuffled, key=lambda p: int(total[rarest[p]]) if p in rarest else int(total.max()) + 1)
    dealt, patients = np.zeros((folds, k), np.int64), np.zeros(folds, np.int64)
    fold_of = {}
    for patient in order:
        of_finding = dealt[:, rarest[patient]] if patient in rarest else np.zeros(folds, np.int64)
        fold = int(np.lexsort((patients, of_finding))[0])
        dealt[fold] += boxes[patient]
        patients[fold] += 1
        fold_of[patient] = fold
    return fold_of
