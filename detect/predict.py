"""`weakray detect predict`: a detector's boxes for the images of a dataset. Also the detector itself, as an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from detect.network import Network, load_network
from detect.quiet_import import torch_threads
from weakray.bundle.yolo import decode_yolo
from weakray.coco import Predictions, save_results
from weakray.config import StrictModel
from weakray.dataset import Dataset, Split
from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.files import sha256_file
from weakray.imaging import Image, prepare, read_image, to_batch
from weakray.runs import open_run


@dataclass(frozen=True)
class Detector:
    """A trained network in eval mode, ready to predict."""

    network: Network

    def raw(self, prepared: FloatArray) -> FloatArray:
        """Prepared images `(n, c, size, size)`, [0, 1] → `(n, 4 + k, anchors)`, as `decode_yolo` takes it."""
        with torch.inference_mode():
            batch = torch.from_numpy(prepared).contiguous(memory_format=torch.channels_last)
            outputs = self.network.module(batch)
        return np.asarray(outputs[0].numpy(), np.float32)

    def predict(
        self, images: Sequence[Image], score_above: float = 0.001, iou_above: float = 0.6, max_boxes: int = 100
    ) -> list[Detections]:
        """Boxes of decoded images of any size, in their own pixels, best first; see `decode_yolo`."""
        if not images:
            return []
        prepared = [prepare(image, self.network.spec) for image in images]
        raw = self.raw(to_batch([image for image, _ in prepared]))
        return decode_yolo(raw, [placement for _, placement in prepared], score_above, iou_above, max_boxes)


def load_detector(folder: Path) -> Detector:
    """Reads a detector that `weakray detect train` left in its run folder.

    Raises:
        DataError: if a file is missing or not what it should be.
    """
    network = load_network(folder)
    network.module.eval().requires_grad_(False)
    return Detector(network)


class DetectPredictConfig(StrictModel):
    """Settings of `weakray detect predict`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "detector"})

    data: Path = Field(..., description="dataset folder")
    detector: Path = Field(..., description="run folder of `detect train`")
    out: Path = Field(..., description="run folder; receives boxes.json")
    splits: tuple[Split, ...] = Field(("test",), min_length=1, description="which images: train, val, tune, test")
    score_above: float = Field(0.001, ge=0, lt=1, description="lowest score of a box")
    iou_above: float = Field(0.6, ge=0, le=1, description="overlap at which the worse of two boxes of a finding goes")
    max_boxes: int = Field(100, ge=1, description="boxes kept of an image")
    batch_size: int = Field(16, ge=1, description="images at a time")
    threads: int | None = Field(None, ge=1, description="threads of torch; all cores when not given")


class DetectPredictResult(StrictModel):
    """What was found."""

    images: int
    boxes: int
    images_without_box: int


def run(config: DetectPredictConfig) -> DetectPredictResult:
    """Writes `boxes.json` of the chosen splits."""
    dataset = Dataset.load(config.data)
    if not (config.detector / "detector.json").is_file():
        raise DataError(
            f"{config.detector}: expected a detector (made by `weakray detect train`), found no detector.json"
        )
    about = sha256_file(config.detector / "detector.json")  # holds the hash of the weights
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "detector": about})
    if (done := folder.finished()) is not None:
        return DetectPredictResult.model_validate(done)
    detector = load_detector(config.detector)
    ids = [image_id for image_id in dataset.image_ids if dataset.images.at[image_id, "split"] in config.splits]
    found: Predictions = {}
    with torch_threads(config.threads):
        for start in tqdm(range(0, len(ids), config.batch_size), desc="detector's boxes", unit="batch", disable=None):
            part = ids[start : start + config.batch_size]
            images = [read_image(dataset.path_of(image_id)) for image_id in part]
            boxes = detector.predict(images, config.score_above, config.iou_above, config.max_boxes)
            found |= dict(zip(part, boxes, strict=True))
    save_results(folder.root / "boxes.json", found, dataset.image_ids)
    result = DetectPredictResult(
        images=len(found),
        boxes=sum(map(len, found.values())),
        images_without_box=sum(len(boxes) == 0 for boxes in found.values()),
    )
    folder.finish(result.model_dump(mode="json"))
    return result
