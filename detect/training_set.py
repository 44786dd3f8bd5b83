"""Which boxes a detector learns from: pseudo-boxes vetoed by labels, tune's true boxes, or the ceiling's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from detect.believing import noisy_pairs, rank_weights
from detect.cutoffs import choose_cutoffs, keep_above, matching_counts
from weakray.boxes.geometry import clip_to_image
from weakray.coco import BoxTruth, Predictions
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.detections import BoolArray, Detections, FloatArray
from weakray.errors import DataError, RunError

Keep = Literal["keep", "drop"]
Whose = Literal["pseudo", "own"]
Weights = Annotated[
    Literal["one", "score", "pooled"],
    Field(
        description="how far boxes are believed: all alike, or as they rank among the kept ones of their finding "
        "(score) or of all findings (pooled); then background outside a finding's boxes as far as the best of them",
    ),
]
_BOXES: dict[Whose, str] = {"pseudo": "pseudo-boxes", "own": "the detector's own boxes"}
_MEND: dict[Whose, str] = {
    "pseudo": "lower pseudo.score_at_least or check the boxes",
    "own": "train it for longer before its first round (steps), lower own.score_at_least, or set course.rounds to 0",
}


class PseudoBoxConfig(StrictModel):
    """How pseudo-boxes become training boxes."""

    score_at_least: float | Literal["tune", "count"] = Field(
        "tune",
        description="lowest score of a pseudo-box that is learnt from; `tune` chooses one a finding on tune, `count` "
        "keeps as many boxes an image with the finding as tune has",
    )
    least_tune_f1: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a finding whose boxes reach no such F1 on tune, at IoU .3, is left to the true boxes alone; for "
        "score_at_least: tune",
    )
    weights: Weights = "one"
    least_weight: float = Field(0.3, ge=0, le=1, description="weight of the lowest one, for weights: score and pooled")
    clean_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a finding's images, those with its best boxes, that count as clean; the others are noisy",
    )
    noisy_weight: float = Field(
        0.3, ge=0, le=1, description="factor on the weight of a finding's boxes, and of background, in a noisy image"
    )
    unplaced: float = Field(
        0.0, ge=0, le=1, description="weight of teaching background where a finding may be present and has no box"
    )
    elsewhere: float = Field(
        1.0, ge=0, le=1, description="weight of teaching background outside the boxes of a finding that is present"
    )
    uncertain: Keep = Field("keep", description="boxes of findings labelled uncertain: keep | drop")
    blank: Keep = Field("drop", description="boxes of findings that the labels do not mention: keep | drop")
    background_share: float = Field(
        0.0, ge=0, lt=1, description="share of images without any finding among the training images, at most"
    )


class BoxCounts(StrictModel):
    """What a training set holds, and what was left out of it."""

    images: int
    backgrounds: int  # of `images`, those without a box
    boxes: int
    boxes_of_finding: dict[str, int]
    below_cutoff: int = 0
    vetoed: int = 0  # boxes of findings that the image's labels exclude; the detector makes none of these of its own
    fused: int = 0  # boxes that both the detector and the recipe found, before veto and cut-off
    clean_pairs: int = 0  # (image, finding) pairs with boxes that are believed as the settings say
    noisy_pairs: int = 0  # those whose boxes, and whose background, count less
    contradicted_pairs: int = 0  # pseudo-boxes: pairs with one above the cut-off that the labels exclude: background
    unplaced: int = 0  # (image, finding) pairs that may be present and have no box, on images with other boxes
    images_left_out: int = 0  # a finding is, or may be, present, but no box is left: neither an example nor background
    backgrounds_left_out: int = 0  # past `background_share`
    clipped: int = 0  # boxes cut at the image's border
    outside: int = 0  # boxes wholly outside their image, dropped
    cutoffs: dict[str, float | None] | None = None  # None: no box of the finding is believed


@dataclass(frozen=True)
class TrainingBoxes:
    """Boxes to learn from.

    Attributes:
        boxes: image_id → boxes, empty for a background image, scored by how far each is believed; in dataset order.
        counts: what they are.
        elsewhere: image_id → `(k,)`, [0, 1], how far it is believed that a finding is nowhere but in its boxes; images
            that are not named count as 1 throughout.
    """

    boxes: dict[str, Detections]
    counts: BoxCounts
    elsewhere: dict[str, FloatArray]


def pseudo_training_boxes(
    dataset: Dataset, predictions: Predictions, config: PseudoBoxConfig, seed: int, whose: Whose = "pseudo"
) -> TrainingBoxes:
    """Pseudo-boxes of train images, vetoed by their labels, plus background images.

    In a background image no finding is labelled present or uncertain (or blank, where blanks may hold boxes). An image
    with such a finding but without a box left is no background: it is left out.

    Args:
        dataset: images and labels; its *tune* truth is read where cut-offs are chosen, nothing else of its boxes.
        predictions: image_id → pseudo-boxes, of train images, and of tune images where cut-offs are chosen.
        config: cut-off, veto and share of backgrounds.
        seed: which background images are kept where there are too many.
        whose: the recipe's boxes or the detector's own, for messages.

    Raises:
        DataError: if no box is left, or one is of a finding that the dataset does not have.
        RunError: if cut-offs are to be chosen and `predictions` hold no tune image.
    """
    names = dataset.taxonomy.names
    _check_classes(predictions, names, whose)
    allowed: dict[str, Detections] = {}
    vetoed_boxes = 0
    for image_id in dataset.ids_of("train"):
        allowed[image_id], count = veto(dataset, image_id, predictions.get(image_id, Detections.empty()), config)
        vetoed_boxes += count
    cutoffs = _cutoffs(dataset, predictions, allowed, config)
    kept: dict[str, Detections] = {}
    below = left_out = clipped = outside = contradicted = 0
    backgrounds: list[str] = []
    for image_id, found in allowed.items():
        above = keep_above(found, cutoffs)
        inside, cut, dropped = clip(above, dataset.size_hw(image_id))
        below, clipped, outside = below + len(found) - len(above), clipped + cut, outside + dropped
        sure = keep_above(predictions.get(image_id, Detections.empty()), cutoffs)
        contradicted += int((_has(sure, len(names)) & ~may_hold(dataset, image_id, config)).sum())
        if len(inside):
            kept[image_id] = inside
        elif _is_background(dataset, image_id, config):
            backgrounds.append(image_id)
        else:
            left_out += 1
    if not kept:
        raise DataError(
            f"{_BOXES[whose]}: expected at least one box on train images, got none ({vetoed_boxes} vetoed by labels, "
            f"{below} below the cut-off, {outside} outside their image); {_MEND[whose]}"
        )
    noisy = noisy_pairs(kept, len(names), config.clean_share)
    believed = _believed(kept, noisy, len(names), config)
    fitting = config.background_share / (1 - config.background_share) * len(kept)
    wanted = min(len(backgrounds), int(fitting + 1e-9))  # 0.6 / 0.4 · 2 is 2.9999999999999996
    chosen = {backgrounds[i] for i in np.random.default_rng(seed).permutation(len(backgrounds))[:wanted]}
    ordered = {
        image_id: believed.get(image_id, Detections.empty())
        for image_id in allowed
        if image_id in believed or image_id in chosen
    }
    elsewhere = {
        image_id: _elsewhere(dataset, image_id, found, noisy[image_id], config) for image_id, found in believed.items()
    }
    pairs = sum(int(_has(found, len(names)).sum()) for found in believed.values())
    noisy_count = sum(int(own.sum()) for own in noisy.values())
    return _counted(
        ordered,
        names,
        below_cutoff=below,
        vetoed=vetoed_boxes,
        clean_pairs=pairs - noisy_count,
        noisy_pairs=noisy_count,
        contradicted_pairs=contradicted,
        unplaced=sum(
            int((may_hold(dataset, image_id, config) & ~_has(found, len(names))).sum())
            for image_id, found in believed.items()
        ),
        images_left_out=left_out,
        backgrounds_left_out=len(backgrounds) - wanted,
        clipped=clipped,
        outside=outside,
        cutoffs=dict(zip(names, (round(c, 6) if math.isfinite(c) else None for c in cutoffs), strict=True)),
        elsewhere=elsewhere,
    )


def tune_training_boxes(dataset: Dataset) -> TrainingBoxes:
    """True boxes of the tune images; one that was looked at and holds no box is a background image.

    Raises:
        DataError: if tune has no box.
    """
    return _from_truth(dataset, dataset.truth_of("tune"), "tune")


def ceiling_training_boxes(dataset: Dataset) -> TrainingBoxes:
    """True boxes of train and tune images: the fully supervised rival's. Nothing else opens `ceiling_boxes.json`.

    Raises:
        DataError: if the dataset has no `ceiling_boxes.json`.
    """
    train = dataset.ceiling_truth()
    if train is None:
        raise DataError(
            f"{dataset.root}: expected ceiling_boxes.json for source=ceiling, found none; "
            "this dataset has no boxes of train images, so it has no fully supervised rival"
        )
    tune = dataset.truth_of("tune")
    both = BoxTruth({**train.only(dataset.ids_of("train")).boxes, **tune.boxes}, train.annotated | tune.annotated)
    return _from_truth(dataset, both, "train and tune")


def veto(dataset: Dataset, image_id: str, found: Detections, config: PseudoBoxConfig) -> tuple[Detections, int]:
    """The boxes that the image's labels allow, and how many they exclude."""
    kept = found.where(may_hold(dataset, image_id, config)[found.class_id])
    return kept, len(found) - len(kept)


def may_hold(dataset: Dataset, image_id: str, config: PseudoBoxConfig) -> BoolArray:
    """Which findings' boxes the image's labels allow, `(k,)`."""
    labels = _labels(dataset, image_id)
    allowed = labels == 1
    if config.uncertain == "keep":
        allowed |= labels == -1
    if config.blank == "keep":
        allowed |= np.isnan(labels)
    return np.asarray(allowed)


def clip(found: Detections, size_hw: tuple[int, int]) -> tuple[Detections, int, int]:
    """Boxes cut at the image's border, how many were cut, and how many lay outside and are gone."""
    cut = clip_to_image(found.boxes_xyxy_px, size_hw)
    inside = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    changed = inside & (cut != found.boxes_xyxy_px).any(axis=1)
    kept = Detections(cut[inside], found.class_id[inside], found.score[inside])
    return kept, int(changed.sum()), int((~inside).sum())


def _cutoffs(dataset: Dataset, predictions: Predictions, allowed: Predictions, config: PseudoBoxConfig) -> list[float]:
    if config.score_at_least == "count":
        images = sum(may_hold(dataset, image_id, config).astype(np.int64) for image_id in allowed)
        return matching_counts(allowed, np.asarray(images), dataset.truth_of("tune"))
    if config.score_at_least != "tune":
        return [config.score_at_least] * len(dataset.taxonomy)
    on_tune = {image_id: predictions[image_id] for image_id in dataset.ids_of("tune") if image_id in predictions}
    if not on_tune:
        raise RunError(
            "pseudo.score_at_least=tune: expected pseudo-boxes of tune images too, found none; "
            "generate them for the splits train and tune, or give a number"
        )
    vetoed = {image_id: veto(dataset, image_id, found, config)[0] for image_id, found in on_tune.items()}
    return choose_cutoffs(vetoed, dataset.truth_of("tune"), len(dataset.taxonomy), config.least_tune_f1)


def _check_classes(predictions: Predictions, names: Sequence[str], whose: Whose) -> None:
    for image_id, found in predictions.items():
        if len(found) and found.class_id.max() >= len(names):
            raise DataError(
                f"{_BOXES[whose]}: expected class ids below {len(names)} for the findings {list(names)}, got "
                f"{int(found.class_id.max())} for image {image_id!r}; they are of other findings than the dataset's"
            )


def _believed(
    kept: Mapping[str, Detections], noisy: Mapping[str, BoolArray], classes: int, config: PseudoBoxConfig
) -> dict[str, Detections]:
    """The same boxes, scored by their weight in training."""
    ranked = None
    if config.weights != "one":
        ranked = rank_weights(kept, classes, config.least_weight, config.weights == "pooled")
    believed = {}
    for image_id, found in kept.items():
        weight = np.ones(len(found)) if ranked is None else ranked[image_id]
        weight = weight * np.where(noisy[image_id][found.class_id], config.noisy_weight, 1.0)
        believed[image_id] = Detections(found.boxes_xyxy_px, found.class_id, np.asarray(weight, np.float32))
    return believed


def _elsewhere(
    dataset: Dataset, image_id: str, found: Detections, noisy: BoolArray, config: PseudoBoxConfig
) -> FloatArray:
    """How far it is believed that a finding is nowhere but in its boxes, `(k,)`.

    Where its boxes are noisy it may well be elsewhere: background is believed as little as they are.
    """
    may, has = may_hold(dataset, image_id, config), _has(found, len(dataset.taxonomy))
    outside = np.where(noisy, config.elsewhere * config.noisy_weight, config.elsewhere)
    if config.weights == "pooled":
        outside = np.zeros(len(has))
        np.maximum.at(outside, found.class_id, config.elsewhere * found.score)
    return np.where(may, np.where(has, outside, config.unplaced), 1.0).astype(np.float32)


def _has(found: Detections, classes: int) -> BoolArray:
    return np.bincount(found.class_id, minlength=classes) > 0


def _is_background(dataset: Dataset, image_id: str, config: PseudoBoxConfig) -> bool:
    labels = _labels(dataset, image_id)
    absent = (labels == 0) | (np.isnan(labels) if config.blank == "drop" else False)
    return bool(absent.all())


def _labels(dataset: Dataset, image_id: str) -> FloatArray:
    return np.asarray(dataset.labels.loc[[image_id]].to_numpy()[0], np.float32)


def _from_truth(dataset: Dataset, truth: BoxTruth, what: str) -> TrainingBoxes:
    looked_at = {*truth.boxes, *truth.image_ids}
    boxes: dict[str, Detections] = {}
    clipped = outside = 0
    for image_id in dataset.image_ids:
        if image_id in looked_at:
            found = truth.boxes.get(image_id, Detections.empty())
            boxes[image_id], cut, dropped = clip(found, dataset.size_hw(image_id))
            clipped, outside = clipped + cut, outside + dropped
    if not any(len(found) for found in boxes.values()):
        raise DataError(
            f"{dataset.root}: expected at least one box on {what} images, got none; "
            "annotate some images and ingest the dataset again"
        )
    return _counted(boxes, dataset.taxonomy.names, clipped=clipped, outside=outside)


def _counted(
    boxes: Mapping[str, Detections],
    names: Sequence[str],
    cutoffs: dict[str, float | None] | None = None,
    elsewhere: dict[str, FloatArray] | None = None,
    **counts: int,
) -> TrainingBoxes:
    together = Detections.concat(boxes.values())
    of_class = np.bincount(together.class_id, minlength=len(names)).tolist()
    totals = BoxCounts(
        images=len(boxes),
        backgrounds=sum(len(found) == 0 for found in boxes.values()),
        boxes=len(together),
        boxes_of_finding=dict(zip(names, of_class, strict=True)),
        cutoffs=cutoffs,
        **counts,
    )
    return TrainingBoxes(dict(boxes), totals, elsewhere or {})
