"""Self-training: the detector's own boxes on train images, vetoed by their labels, are what it learns from next.

Fine-tuned on the few true boxes, a detector places findings better than the maps that first taught it; the averaged
weights (EMA) are the teacher. Image-level labels say which of its boxes cannot be. A finding that is present and finds
no box is neither an example nor background; of those that find one, the least sure can be set apart as noisy
(`clean_share`), and the recipe's boxes can have a say in where they lie (`fuse`), as can what the detector finds in the
film's mirror image (`mirrored`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field
from tqdm import tqdm

from detect.detector import BoxModel, predict_boxes
from detect.fusing import fuse_sources, fuse_views
from detect.training_set import PseudoBoxConfig, TrainingBoxes, Weights, may_hold, pseudo_training_boxes
from weakray.coco import Predictions
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.imaging import read_image

_LEAST_SCORE = 1e-3
_IOU_ABOVE = 0.5
_MAX_BOXES = 30


class OwnBoxConfig(PseudoBoxConfig):
    """How the detector's own boxes become training boxes.

    No cut-off is chosen by its scores on tune: those boxes it has learnt.
    """

    score_at_least: float | Literal["count"] = Field(
        "count",
        description="lowest score of a box that is learnt from; `count` keeps as many boxes an image with the finding "
        "as tune has",
    )
    weights: Weights = "pooled"
    mirrored: bool = Field(
        False,
        description="the detector looks at each film and at its mirror image, and boxes of both become one where they "
        "overlap; for a detector that learns from mirror images too (augment.flip)",
    )
    fuse: Literal["none", "recipe"] = Field(
        "none",
        description="recipe: the detector's boxes and the recipe's of the same image and finding become one where they "
        "overlap, scored by their ranks; none: the detector's alone",
    )
    fuse_iou: float = Field(
        0.5, gt=0, lt=1, description="overlap above which boxes become one, for mirrored and for fuse: recipe"
    )


def own_boxes(
    dataset: Dataset,
    model: BoxModel,
    config: OwnBoxConfig,
    batch_size: int,
    seed: int,
    recipe: Predictions | None = None,
) -> TrainingBoxes:
    """What a detector finds on train images, as boxes to learn from.

    Args:
        dataset: images and labels; of tune's truth only how many boxes a finding has.
        model: finds them.
        config: how they become training boxes.
        batch_size: images at a time.
        seed: which background images are kept.
        recipe: image_id → the recipe's boxes, for `fuse: recipe`.

    Raises:
        DataError: if it finds no box that the labels allow, or an image cannot be read.
    """
    found = Predictions()
    allowed = {image_id: may_hold(dataset, image_id, config) for image_id in dataset.ids_of("train")}
    ids = [image_id for image_id, own in allowed.items() if own.any()]
    for start in tqdm(range(0, len(ids), batch_size), desc="its own boxes", unit="batch", disable=None):
        part = ids[start : start + batch_size]
        images = [read_image(dataset.path_of(image_id)) for image_id in part]
        how = (_LEAST_SCORE, _IOU_ABOVE, _MAX_BOXES, np.stack([allowed[image_id] for image_id in part]))
        seen = predict_boxes(model, images, *how)
        if config.mirrored:
            again = predict_boxes(model, [image[:, ::-1] for image in images], *how)
            back = [mirrored(boxes, image.shape[1]) for boxes, image in zip(again, images, strict=True)]
            seen = [fuse_views(views, config.fuse_iou)[0] for views in zip(seen, back, strict=True)]
        found |= dict(zip(part, seen, strict=True))
    if recipe is None:
        return pseudo_training_boxes(dataset, found, config, seed, "own")
    together, of_both = fuse_sources(found, recipe, allowed, config.fuse_iou)
    training = pseudo_training_boxes(dataset, together, config, seed, "own")
    return replace(training, counts=training.counts.model_copy(update={"fused": of_both}))


def mirrored(found: Detections, width_px: int) -> Detections:
    """The same boxes in the image's mirror image, left and right exchanged."""
    boxes = found.boxes_xyxy_px.copy()
    boxes[:, [0, 2]] = width_px - boxes[:, [2, 0]]
    return Detections(boxes, found.class_id, found.score)
