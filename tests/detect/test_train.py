"""Training: exact steps, the same weights every time, an interrupted run, errors, and silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detect.loop
from detect.batches import batches
from detect.compute import torch_threads
from detect.loop import OptimizerConfig, learning_rate
from detect.predict import DetectPredictConfig
from detect.predict import run as predict
from detect.train import DetectTrainResult
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of, train_interrupted, weights_of
from weakray.coco import load_results
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError, RunError


@pytest.mark.parametrize(("bf16", "threads"), [(False, 2), (True, 2), (True, 1)])
def test_two_trainings_give_the_same_bytes(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, bf16: bool, threads: int
) -> None:
    dataset = make_dataset()
    how = {"bf16": bf16, "threads": threads}
    results = [train(config_of(dataset, tmp_path / name, tiny_architecture, **how)) for name in ("one", "two")]
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    assert results[0] == results[1]
    assert results[0].bf16 is bf16
    assert (tmp_path / "one" / "metrics.jsonl").read_text() == (tmp_path / "two" / "metrics.jsonl").read_text()
    other = train(config_of(dataset, tmp_path / "three", tiny_architecture, **how, seed=1))
    assert other.weights_sha256 != results[0].weights_sha256


@pytest.mark.parametrize(
    ("killed_in_step", "rounds", "continued"),
    [
        *((step, 0, False) for step in (1, 3, 4, 7)),  # phases of 4 and 4 steps
        *((step, 1, False) for step in (3, 4, 5, 7)),  # 2 · 4
        *((step, 2, True) for step in (3, 5, 6, 8)),  # phases of 2, 1, 3 and 3 steps
    ],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    pseudo_boxes: tuple[Dataset, Path],
    tiny_architecture: Path,
    tmp_path: Path,
    killed_in_step: int,
    rounds: int,
    continued: bool,
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 9 if continued else 8}
    settings["course"] = {"tune_share": 0.5, "rounds": rounds, "tune_mixed": 0.2, "continued": continued}
    settings["held_out"] = {"folds": 3}
    settings["augment"] = {"paste": {"probability": 0.5, "largest": 0.5}}
    train(config_of(dataset, tmp_path / "whole", tiny_architecture, **settings))
    config = config_of(dataset, tmp_path / "killed", tiny_architecture, **settings)
    train_interrupted(config, killed_in_step)
    train(config)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    for name in ("metrics.jsonl", "rounds.jsonl", f"held_out/round_{rounds}.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.parametrize(
    ("source", "phases"),
    [("tune", [("tune", 7)]), ("pseudo", [("pseudo", 7)]), ("pseudo_then_tune", [("pseudo", 4), ("tune", 3)])],
)
def test_steps_are_exact_whatever_the_source(
    pseudo_boxes: tuple[Dataset, Path],
    tiny_architecture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    phases: list[tuple[str, int]],
) -> None:
    dataset, boxes = pseudo_boxes
    real, calls = detect.loop._step, 0

    def counted(*args: Any) -> None:
        nonlocal calls
        calls += 1
        real(*args)

    monkeypatch.setattr(detect.loop, "_step", counted)
    given = None if source == "tune" else boxes
    result = train(config_of(dataset, tmp_path / "run", tiny_architecture, source=source, boxes=given, steps=7))
    assert calls == result.steps == 7
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["boxes"], row["step"]) for row in rows if row["step"] == dict(phases)[row["boxes"]]] == phases
    assert {"box_loss", "cls_loss", "dfl_loss", "lr"} < set(rows[0])
    assert list(result.training_sets) == [name for name, _ in phases]
    done = train(config_of(dataset, tmp_path / "run", tiny_architecture, source=source, boxes=given, steps=7))
    assert (done, calls) == (result, 7)


def test_deleting_the_ceiling_boxes_changes_no_other_detector(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 4}
    train(config_of(dataset, tmp_path / "with", tiny_architecture, **settings))
    (dataset.root / "ceiling_boxes.json").unlink()
    train(config_of(dataset, tmp_path / "without", tiny_architecture, **settings))
    assert weights_of(tmp_path / "with") == weights_of(tmp_path / "without")
    with pytest.raises(DataError, match="expected ceiling_boxes.json for source=ceiling"):
        train(config_of(dataset, tmp_path / "ceiling", tiny_architecture))


def test_a_detector_learns_and_predicts_in_image_pixels(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset(train=8)
    augment = {"scale": 0.1, "rotate_deg": 0}
    optimizer = {"lr": 0.01, "warmup_steps": 10, "ema_decay": 0.9, "ema_warmup_steps": 10}
    settings = {
        "steps": 150,
        "batch_size": 8,
        "augment": augment,
        "optimizer": optimizer,
        "checkpoint_every_steps": 150,
    }
    train(config_of(dataset, tmp_path / "run", tiny_architecture, **settings))
    predict(DetectPredictConfig(data=dataset.root, detector=tmp_path / "run", out=tmp_path / "found", splits=("tune",)))
    found = load_results(tmp_path / "found" / "boxes.json")
    assert sorted(found) == dataset.ids_of("tune")
    from weakray.boxes.geometry import iou

    truth = dataset.truth_of("tune").boxes
    best = [
        float(iou(found[i].of_class(c).boxes_xyxy_px[:1], true.of_class(c).boxes_xyxy_px).max(initial=0))
        for i, true in truth.items()
        for c in true.class_id.tolist()
    ]
    assert np.mean(best) > 0.5
    scores = np.concatenate([boxes.score for boxes in found.values()])
    assert len(np.unique(scores)) > 1
    for image_id, boxes in found.items():
        height, width = dataset.size_hw(image_id)
        assert boxes.boxes_xyxy_px.min() >= 0
        assert (boxes.boxes_xyxy_px <= [width, height, width, height]).all()


def test_learning_rate_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, last_lr_fraction=0.1, warmup_steps=2)
    rates = [learning_rate(step, 7, config) for step in range(7)]
    assert rates == pytest.approx(
        [0.5, 1.0, 1.0, 0.1 + 0.9 * (1 + 2**-0.5) / 2, 0.55, 0.1 + 0.9 * (1 - 2**-0.5) / 2, 0.1]
    )
    assert learning_rate(0, 1, config) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "pseudo"}, "boxes: required for source=pseudo; give the boxes.json"),
        ({"source": "tune", "boxes": "boxes.json"}, "boxes: of no use to source=tune; leave it out"),
        ({"source": "pseudo", "boxes": "gone.json"}, "boxes: expected a file, found none at gone.json"),
        ({"own": {"mirrored": True}}, "own.mirrored: of no use to a detector that learns from no mirror image"),
        ({"course": {"first_share": 0.5}}, "course.first_share: of no use without continued; set"),
        ({"course": {"continued": True}}, "course.continued: of no use without rounds; set course.rounds"),
        ({"course": {"rounds": 1}}, "course.rounds: of no use to source=ceiling; leave it out"),
        (
            {"source": "pseudo", "boxes": "boxes.json", "course": {"tune_mixed": 0.2}},
            "course.tune_mixed: of no use to source=pseudo; leave it out, or choose pseudo_then_tune or tune",
        ),
        (
            {"checkpoint_every_steps": 3},
            "checkpoint_every_steps: expected a multiple of log_every_steps \\(2\\), got 3",
        ),
    ],
)
def test_settings_that_contradict_are_refused(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, **settings))


def test_a_loss_that_diverges_is_an_error(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batches

    def poisoned(*args: Any) -> Any:
        for batch in real(*args):
            yield {**batch, "img": batch["img"] * float("nan")}

    monkeypatch.setattr(detect.loop, "batches", poisoned)
    with pytest.raises(RunError, match="the loss became nan at step 1; lower optimizer.lr or set bf16: false"):
        train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, bf16=True))


def test_threads_come_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(1) as count:
        assert count == torch.get_num_threads() == 1
    with torch_threads(None) as count:
        assert count == len(os.sched_getaffinity(0))
    assert torch.get_num_threads() == before


_SCRIPT = """
import json, os, socket, sys, warnings
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import cv2, numpy, torch
from PIL import Image
theirs = ('sympy', 'the matrix subclass')  # torch's own doing, and scipy's
filters = lambda: [row for row in warnings.filters if not any(name in str(row) for name in theirs)]
state = lambda: [torch.get_num_threads(), cv2.getNumThreads(), dict(os.environ), filters(),
                 numpy.get_printoptions()["linewidth"], torch.save is save, Image.open is image_open]
save, image_open = torch.save, Image.open
os.environ.pop("OMP_NUM_THREADS", None)
from weakray.stack import silence
silence()
before = state()
from detect.train import DetectTrainConfig, run
from weakray.config import validate
result = run(validate(DetectTrainConfig, json.loads(sys.argv[1])))
assert state() == before, [pair for pair in zip(before, state()) if pair[0] != pair[1]]
assert "ultralytics" in sys.modules and "wandb" not in sys.modules and "albumentations" not in sys.modules
print(result.weights_sha256)
"""


def test_training_is_silent_and_keeps_to_its_folder(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    """In a process of its own, for what ultralytics does at import it does once a process."""
    folders = {name: tmp_path / "outside" / name for name in ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    cwd = tmp_path / "outside" / "cwd"
    for folder in (*folders.values(), cwd):
        folder.mkdir(parents=True)
    dataset = make_dataset()
    config = config_of(dataset, tmp_path / "run", tiny_architecture, steps=2)
    before = sorted(path for path in dataset.root.rglob("*"))
    unset = {"YOLO_CONFIG_DIR", "OMP_NUM_THREADS", "YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_VERBOSE"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {name: str(folder) for name, folder in folders.items()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _SCRIPT, config.model_dump_json()],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in (tmp_path / "outside").rglob("*") if path.is_file()] == []
    assert sorted(path for path in dataset.root.rglob("*")) == before
    result = DetectTrainResult.model_validate(json.loads((tmp_path / "run" / "done.json").read_text())["result"])
    assert done.stdout.strip() == result.weights_sha256  # not a word of ultralytics' own


def test_predictions_of_an_unknown_detector_are_refused(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    config = DetectPredictConfig(data=make_dataset().root, detector=tmp_path / "none", out=tmp_path / "found")
    with pytest.raises(
        DataError, match="expected a detector .made by `weakray detect train`., an export or a bundle .*, found no"
    ):
        predict(config)


def test_an_image_without_boxes_is_listed(make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path) -> None:
    dataset = make_dataset()
    train(config_of(dataset, tmp_path / "run", tiny_architecture))
    config = DetectPredictConfig(
        data=dataset.root, detector=tmp_path / "run", out=tmp_path / "found", splits=("tune", "test"), score_above=0.999
    )
    result = predict(config)
    assert (result.images, result.boxes, result.images_without_box) == (6, 0, 6)
    found = load_results(tmp_path / "found" / "boxes.json")
    assert {image_id: len(boxes) for image_id, boxes in found.items()} == dict.fromkeys(
        dataset.ids_of("tune") + dataset.ids_of("test"), 0
    )
    assert predict(config) == result
