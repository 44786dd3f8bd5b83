"""Made data for the detector's tests: small non-square films with two findings, and a network of four convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import detect.loop
from detect.train import DetectTrainConfig
from detect.train import run as train
from weakray.coco import BoxTruth, Predictions, save_results
from weakray.config import validate
from weakray.dataset import Dataset, write_dataset
from weakray.detections import Detections
from weakray.files import write_yaml
from weakray.imaging import write_image
from weakray.taxonomy import Taxonomy

NAMES = ["Disc", "Bar"]
DatasetMaker = Callable[..., Dataset]


@pytest.fixture
def make_dataset(tmp_path: Path) -> DatasetMaker:
    """Writes a dataset: each image holds a bright block for each finding it is labelled with."""

    def make(train: int = 6, tune: int = 3, test: int = 3, name: str = "data", prefix: str = "") -> Dataset:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        rows: list[dict[str, object]] = []
        labels: list[list[float]] = []
        boxes: dict[str, Detections] = {}
        for split, count in (("train", train), ("tune", tune), ("test", test)):
            for number in range(count):
                rng = np.random.default_rng([len(rows), 7])
                height, width = int(rng.integers(40, 56)), int(rng.integers(60, 90))
                image = rng.integers(0, 60, (height, width)).astype(np.uint8)
                present = [number % 3 != 2, number % 3 != 1]
                found: list[tuple[int, int, int, int]] = []
                for class_id, (box_w, box_h) in enumerate([(24, 16), (12, 28)]):
                    if present[class_id]:
                        left = int(rng.integers(0, width - box_w))
                        top = int(rng.integers(0, height - box_h))
                        image[top : top + box_h, left : left + box_w] += np.uint8(90 + 90 * class_id)
                        found.append((left, top, left + box_w, top + box_h))
                image_id = f"{prefix}{split}{number}"
                write_image(root / "images" / f"{len(rows)}.png", image)
                rows.append(
                    {
                        "image_id": image_id,
                        "path": f"images/{len(rows)}.png",
                        "patient_id": f"p{len(rows)}",
                        "study_id": f"s{len(rows)}",
                        "view": "PA",
                        "height": height,
                        "width": width,
                        "split": split,
                        "sha256": str(len(rows)),
                        "source": "made",
                    }
                )
                labels.append([float(value) for value in present])
                boxes[image_id] = Detections(
                    np.array(found, np.float32), np.flatnonzero(present), np.ones(len(found), np.float32)
                )
        images = pd.DataFrame(rows)
        table = pd.DataFrame(labels, columns=NAMES, index=images["image_id"])
        train_ids = {row["image_id"] for row in rows if row["split"] == "train"}
        ceiling = {image_id: found for image_id, found in boxes.items() if image_id in train_ids}
        truth = {image_id: found for image_id, found in boxes.items() if image_id not in train_ids}
        return write_dataset(
            root,
            images=images,
            labels=table,
            taxonomy=Taxonomy.flat(NAMES),
            truth=BoxTruth(truth, frozenset((image_id, c) for image_id in truth for c in range(2))),
            ceiling=BoxTruth(ceiling, frozenset((image_id, c) for image_id in ceiling for c in range(2))),
            rejected=[],
            info={"origin": "made"},
        )

    return make


@pytest.fixture
def tiny_architecture(tmp_path: Path) -> Path:
    """A network of four convolutions and a head at strides 8 and 16: 9,000 weights, some ms a step."""
    path = tmp_path / "tiny.yaml"
    write_yaml(
        path,
        {
            "nc": 80,
            "backbone": [
                [-1, 1, "Conv", [8, 3, 2]],
                [-1, 1, "Conv", [8, 3, 2]],
                [-1, 1, "Conv", [16, 3, 2]],
                [-1, 1, "Conv", [16, 3, 2]],
            ],
            "head": [[[2, 3], 1, "Detect", ["nc"]]],
        },
    )
    return path


@pytest.fixture
def query_architecture(tmp_path: Path) -> Path:
    """An RT-DETR of four convolutions and a decoder of two layers with twenty queries."""
    path = tmp_path / "queries.yaml"
    backbone = [[-1, 1, "Conv", [channels, 3, 2]] for channels in (8, 8, 16, 16)]
    # width, queries, points, attention heads, layers, width between them; no dropout; 20 boxes to be moved back
    decoder = ["nc", 16, 20, 2, 2, 2, 32, 0.0, None, -1, 20]
    write_yaml(path, {"nc": 80, "backbone": backbone, "head": [[[2, 3], 1, "RTDETRDecoder", decoder]]})
    return path


def found_boxes(
    rows: Sequence[Sequence[float]] | np.ndarray[Any, Any], class_id: Sequence[int], score: Sequence[float]
) -> Detections:
    """Detections from plain lists."""
    boxes = np.asarray(rows, np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray(class_id, np.int64), np.asarray(score, np.float32))


def noisy(dataset: Dataset, seed: int = 0) -> Predictions:
    """Pseudo-boxes of train and tune images: the true ones moved a little, and one wrong box an image."""
    rng = np.random.default_rng(seed)
    ceiling = dataset.ceiling_truth()
    assert ceiling is not None
    true = {**ceiling.boxes, **dataset.truth_of("tune").boxes}
    made: Predictions = {}
    for image_id, found in true.items():
        moved = found.boxes_xyxy_px + rng.uniform(-2, 2, (len(found), 1)).astype(np.float32)
        boxes = np.concatenate([moved, np.array([[1, 2, 9, 12]], np.float32)])
        class_id = np.append(found.class_id, rng.integers(0, 2))
        score = np.append(rng.uniform(0.5, 0.9, len(found)), rng.uniform(0.1, 0.4)).astype(np.float32)
        made[image_id] = Detections(boxes, class_id, score)
    return made


@pytest.fixture
def pseudo_boxes(make_dataset: DatasetMaker, tmp_path: Path) -> tuple[Dataset, Path]:
    """A dataset, and the file of its pseudo-boxes."""
    dataset = make_dataset()
    save_results(tmp_path / "boxes.json", noisy(dataset), dataset.image_ids, "recipe")
    return dataset, tmp_path / "boxes.json"


def config_of(dataset: Dataset, out: Path, architecture: Path, **settings: Any) -> DetectTrainConfig:
    small = {
        "steps": 8,
        "batch_size": 3,
        "log_every_steps": 2,
        "checkpoint_every_steps": 2,
        "bf16": False,
        "device": "cpu",
        "threads": 1,
    }
    values = {"data": dataset.root, "out": out, "architecture": str(architecture), "input": {"size_px": 64}}
    return validate(DetectTrainConfig, {"source": "ceiling", **values, **small, **settings})


def train_interrupted(config: DetectTrainConfig, after_steps: int) -> None:
    """A training that is interrupted once it has taken so many steps."""
    real, calls = detect.loop._step, 0

    def interrupted(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after_steps:
            raise KeyboardInterrupt
        real(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(detect.loop, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)


def weights_of(folder: Path) -> bytes:
    return (folder / "detector.safetensors").read_bytes()
