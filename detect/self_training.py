"""Self-training: the detector's own boxes on train images, vetoed by their labels, are what it learns from next.

Fine-tuned on the few true boxes, a detector places findings better than the maps that first taught it. Image-level
labels say which of its boxes cannot be (Sui et al., SoS-WSOD, CVPR 2022, split clean from noisy images by loss; here
the labels do: a finding that is present and finds no box is noisy, and is neither an example nor background).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tqdm import tqdm

from detect.detector import Detector
from detect.network import Network
from detect.training_set import PseudoBoxConfig, TrainingBoxes, pseudo_training_boxes
from weakray.coco import Predictions
from weakray.dataset import Dataset
from weakray.imaging import read_image

_LEAST_SCORE = 1e-4
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


def own_boxes(dataset: Dataset, network: Network, config: OwnBoxConfig, batch_size: int, seed: int) -> TrainingBoxes:
    """What a network finds on train images, as boxes to learn from.

    Args:
        dataset: images and labels; of tune's truth only how many boxes a finding has.
        network: finds them.
        config: how they become training boxes.
        batch_size: images at a time.
        seed: which background images are kept.
    """
    network.module.eval()
    detector, found, ids = Detector(network), Predictions(), dataset.ids_of("train")
    for start in tqdm(range(0, len(ids), batch_size), desc="its own boxes", unit="batch", disable=None):
        part = ids[start : start + batch_size]
        images = [read_image(dataset.path_of(image_id)) for image_id in part]
        found |= dict(zip(part, detector.predict(images, _LEAST_SCORE, _IOU_ABOVE, _MAX_BOXES), strict=True))
    return pseudo_training_boxes(dataset, found, config, seed)
