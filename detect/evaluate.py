"""`weakray detect evaluate`: a detector's average precision on tune or test, with intervals and its errors by type."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from detect.compute import DeviceName
from detect.opening import detector_sha256
from detect.predict import DetectPredictConfig
from detect.predict import run as predict
from eval.boxes import BoxesConfig, BoxesResult
from eval.boxes import run as score
from weakray.bundle.runtime import Engine
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.runs import open_run


class DetectEvaluateConfig(StrictModel):
    """Settings of `weakray detect evaluate`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "detector", "device", "threads"})

    data: Path = Field(..., description="dataset folder with true boxes")
    detector: Path = Field(..., description="run folder of `detect train`, an export, or a bundle")
    out: Path = Field(..., description="run folder; receives scores.json and boxes/boxes.json")
    split: Literal["tune", "test"] = Field("test", description="annotated split to score on: tune or test")
    iou_above: float = Field(0.6, ge=0, le=1, description="overlap at which the worse of two boxes of a finding goes")
    max_boxes: int = Field(100, ge=1, description="boxes kept of an image")
    engine: Engine = Field("auto", description="what runs a bundle's detector: auto, onnxruntime, openvino")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="of a detector in torch; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, description="threads of the detector; all cores when not given")


def run(config: DetectEvaluateConfig) -> BoxesResult:
    """Predicts on the split and scores the boxes; a finished run is not done again.

    Raises:
        DataError: if the detector is of other findings than the dataset, or the split has no true box.
    """
    inputs = {"dataset": Dataset.load(config.data).sha256, "detector": detector_sha256(config.detector)}
    folder = open_run(config.out, config, inputs)
    if (done := folder.finished()) is not None:
        return BoxesResult.model_validate(done)
    predict(
        DetectPredictConfig(
            data=config.data,
            detector=config.detector,
            out=folder.root / "boxes",
            splits=(config.split,),
            iou_above=config.iou_above,
            max_boxes=config.max_boxes,
            engine=config.engine,
            batch_size=config.batch_size,
            device=config.device,
            threads=config.threads,
        )
    )
    result = score(
        BoxesConfig(
            data=config.data,
            boxes=folder.root / "boxes" / "boxes.json",
            split=config.split,
            out=folder.root / "scores.json",
            draws=config.draws,
            seed=config.seed,
        )
    )
    folder.finish(result.model_dump(mode="json"))
    return result
