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
import safetensors.torch
import torch

import detect.loop
from detect.batches import batches
from detect.detector import load_detector
from detect.loop import OptimizerConfig, learning_rate
from detect.network import load_network, new_network
from detect.predict import DetectPredictConfig
from detect.predict import run as predict
from detect.quiet_import import import_ultralytics, torch_threads
from detect.train import DetectTrainConfig, DetectTrainResult
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, noisy
from weakray.coco import load_results, save_results
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError, RunError
from weakray.files import write_json
from weakray.imaging import InputSpec, read_image


def config_of(dataset: Dataset, out: Path, architecture: Path, **settings: Any) -> DetectTrainConfig:
    small = {
        "steps": 8,
        "batch_size": 3,
        "log_every_steps": 2,
        "checkpoint_every_steps": 2,
        "bf16": False,
        "threads": 1,
    }
    values = {"data": dataset.root, "out": out, "architecture": str(architecture), "input": {"size_px": 64}}
    return validate(DetectTrainConfig, {"source": "ceiling", **values, **small, **settings})


def weights_of(folder: Path) -> bytes:
    return (folder / "detector.safetensors").read_bytes()


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
    monkeypatch: pytest.MonkeyPatch,
    killed_in_step: int,
    rounds: int,
    continued: bool,
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 9 if continued else 8}
    settings["course"] = {"tune_share": 0.5, "rounds": rounds, "tune_mixed": 0.2, "continued": continued}
    settings["held_out"] = {"folds": 3}
    train(config_of(dataset, tmp_path / "whole", tiny_architecture, **settings))
    config = config_of(dataset, tmp_path / "killed", tiny_architecture, **settings)
    real, calls = detect.loop._step, 0

    def interrupted(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > killed_in_step:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(detect.loop, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    train(config)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    for name in ("metrics.jsonl", "rounds.jsonl", f"held_out/round_{rounds}.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_rounds_learn_from_boxes_of_their_own(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 31, "log_every_steps": 1}
    result = train(config_of(dataset, tmp_path / "m", tiny_architecture, **settings, course={"rounds": 2}))
    rows = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    order = list(dict.fromkeys((row["phase"], row["boxes"]) for row in rows))
    assert order == [(0, "pseudo"), (1, "tune"), (2, "own_1"), (3, "tune"), (4, "own_2"), (5, "tune")]
    assert [sum(row["phase"] == phase for row in rows) for phase in range(6)] == [6, 4, 6, 4, 7, 4]  # 10, 10, 11
    assert list(result.training_sets) == ["pseudo", "tune", "own_1", "own_2"]
    own = result.training_sets["own_1"]
    labels = dataset.labels.loc[dataset.ids_of("train")]
    assert own.boxes_of_finding == {name: int((labels[name] == 1).sum()) for name in ("Disc", "Bar")}  # tune: one each
    assert own.vetoed == 0  # labels veto its anchors: it makes no box of another finding


def test_rounds_without_any_annotated_image(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = make_dataset(tune=0), tmp_path / "boxes.json"
    save_results(boxes, noisy(dataset), dataset.image_ids, "recipe")
    course = {"rounds": 2, "continued": True, "first_share": 0.5}
    settings = {"source": "pseudo", "pseudo": {"score_at_least": 0.0}, "boxes": boxes, "steps": 12, "course": course}
    result = train(config_of(dataset, tmp_path / "m", tiny_architecture, **settings))
    labels = dataset.labels.loc[dataset.ids_of("train")]
    own = result.training_sets["own_2"]
    assert own.boxes_of_finding == {name: int((labels[name] == 1).sum()) for name in ("Disc", "Bar")}  # one an image


@pytest.mark.parametrize("continued", [False, True])
def test_averaging_warms_up_once(
    pseudo_boxes: tuple[Dataset, Path],
    tiny_architecture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    continued: bool,
) -> None:
    import_ultralytics()
    from ultralytics.utils.torch_utils import ModelEMA

    updates: list[int] = []
    real = ModelEMA.update

    def recorded(self: Any, module: Any) -> None:
        real(self, module)
        updates.append(self.updates)

    monkeypatch.setattr(ModelEMA, "update", recorded)
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 9}
    course = {"rounds": 2, "continued": continued}
    train(config_of(dataset, tmp_path / "m", tiny_architecture, **settings, course=course))
    assert updates == list(range(1, 10))


@pytest.mark.parametrize(
    ("settings", "phases"),
    [
        ({"source": "pseudo", "course": {"rounds": 1}}, [("pseudo", 2), ("own_1", 3)]),
        ({"source": "pseudo_then_tune", "course": {"tune_share": 0, "tune_mixed": 0.4}}, [("pseudo", 5)]),
    ],
)
def test_no_step_need_be_spent_on_tune_boxes_alone(
    pseudo_boxes: tuple[Dataset, Path],
    tiny_architecture: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    phases: list[tuple[str, int]],
) -> None:
    dataset, boxes = pseudo_boxes
    train(config_of(dataset, tmp_path / "m", tiny_architecture, **settings, boxes=boxes, steps=5, log_every_steps=1))
    rows = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    seen = [row["boxes"] for row in rows]
    assert [(name, seen.count(name)) for name in dict.fromkeys(seen)] == phases


def test_no_cut_off_is_chosen_on_boxes_that_were_learnt(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    dataset = make_dataset()
    assert config_of(dataset, tmp_path / "m", tmp_path, own={"elsewhere": 0.3}).own.score_at_least == "count"
    with pytest.raises(ConfigError, match=r"own\.score_at_least"):
        config_of(dataset, tmp_path / "m", tmp_path, own={"score_at_least": "tune"})


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


@pytest.mark.parametrize("count", [1, 3])
def test_a_loaded_detector_predicts_alike_alone_and_in_a_batch(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, count: int
) -> None:
    dataset = make_dataset()
    train(config_of(dataset, tmp_path / "run", tiny_architecture))
    detector = load_detector(tmp_path / "run")
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")[:count]]
    together = detector.predict(images)
    alone = [detector.predict([image])[0] for image in images]
    assert len(together) == count
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.boxes_xyxy_px, b.boxes_xyxy_px, atol=1e-3)
    assert detector.predict([]) == []
    colour = np.repeat(images[0][..., None], 3, axis=2)
    np.testing.assert_array_equal(detector.predict([colour])[0].boxes_xyxy_px, alone[0].boxes_xyxy_px)


def test_weights_are_float32_and_no_pickle_is_left(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, bf16=True))
    weights = safetensors.torch.load(weights_of(tmp_path / "run"))
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}
    left = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {".json", ".jsonl", ".yaml", ".safetensors", ".png", ".txt"}
    assert not (tmp_path / "run" / "checkpoints").exists()
    network = load_network(tmp_path / "run")
    assert (network.names, network.strides, network.spec) == (["Disc", "Bar"], [8, 16], InputSpec(size_px=64))
    about = json.loads((tmp_path / "run" / "detector.json").read_text())
    assert about["training_sets"]["ceiling"]["images"] == 9


def test_rounds_that_are_one_training_keep_weights_optimizer_and_schedule(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, boxes = pseudo_boxes
    real, seen = detect.loop._step, list[tuple[int, float, Any, bytes, bytes]]()

    def watched(state: Any, batch: Any, rate: float, config: Any) -> None:
        before = state.network.model[0].conv.weight.detach().numpy().tobytes()
        real(state, batch, rate, config)
        seen.append(
            (
                state.phase,
                rate,
                state.optimizer,
                before,
                state.network.model[0].conv.weight.detach().numpy().tobytes(),
            )
        )

    monkeypatch.setattr(detect.loop, "_step", watched)
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "steps": 24}
    train(config_of(dataset, tmp_path / "m", tiny_architecture, **settings, course={"rounds": 2, "continued": True}))
    own = [row for row in seen if row[0] >= 2]
    assert [row[0] for row in own] == [2] * 8 + [3] * 8
    assert [row[1] for row in own] == [learning_rate(step, 16, OptimizerConfig()) for step in range(16)]
    assert all(row[2] is own[0][2] for row in own)
    assert own[8][3] == own[7][4]  # not the averaged weights, which made the boxes
    assert own[0][3] != seen[7][4]  # the first of them begins with the averaged ones
    assert own[0][2] is not seen[7][2]


def test_learning_rate_by_hand() -> None:
    config = OptimizerConfig(lr=1.0, last_lr_fraction=0.1, warmup_steps=2)
    rates = [learning_rate(step, 7, config) for step in range(7)]
    assert rates == pytest.approx(
        [0.5, 1.0, 1.0, 0.1 + 0.9 * (1 + 2**-0.5) / 2, 0.55, 0.1 + 0.9 * (1 - 2**-0.5) / 2, 0.1]
    )
    assert learning_rate(0, 1, config) == 1.0


def test_shipped_architectures_have_their_known_sizes() -> None:
    spec, names = InputSpec(size_px=64, channels=3), [str(number) for number in range(80)]
    sizes = {name: new_network(name, names, spec, 0).parameters for name in ("yolo11n.yaml", "yolov8n.yaml")}
    assert sizes == {"yolo11n.yaml": 2_624_080, "yolov8n.yaml": 3_157_200}  # as ultralytics publishes them


@pytest.mark.parametrize(
    ("architecture", "size_px", "message"),
    [
        ("yolo77n.yaml", 64, "expected a YAML that ultralytics ships .* got 'yolo77n.yaml'"),
        ("nowhere.pt", 64, "expected weights at nowhere.pt, found none; nothing is ever downloaded"),
        ("yolo26n.yaml", 64, "expected a detection head with non-maximum suppression.*one-to-one branch"),
        ("rtdetr-resnet50.yaml", 64, "expected a detection head with non-maximum suppression.*got RTDETRDecoder"),
        ("yolo11n.yaml", 72, "input.size_px: expected a multiple of 32, the stride of yolo11n.yaml, got 72"),
    ],
)
def test_unfit_architectures_are_refused(architecture: str, size_px: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_network(architecture, ["A"], InputSpec(size_px=size_px), 0)


def test_weights_of_the_user_are_the_start(tiny_architecture: Path, tmp_path: Path) -> None:
    import_ultralytics()
    started = new_network(str(tiny_architecture), ["Other"], InputSpec(size_px=64, channels=3), 5)
    torch.save({"model": started.module, "train_args": {}}, tmp_path / "user.pt")
    network = new_network(str(tmp_path / "user.pt"), ["A", "B"], InputSpec(size_px=64, channels=3), 0)
    theirs, ours = started.module.state_dict(), network.module.state_dict()
    same = [name for name, value in theirs.items() if ours[name].shape == value.shape and ours[name].equal(value)]
    assert len(same) >= len(theirs) - 20
    assert "model.0.conv.weight" in same
    grey = new_network(str(tmp_path / "user.pt"), ["A", "B"], InputSpec(size_px=64), 0)
    first = theirs["model.0.conv.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.module.state_dict()["model.0.conv.weight"], first)


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


def test_a_detector_whose_files_do_not_match_is_refused(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(config_of(make_dataset(), folder, tiny_architecture))
    (folder / "detector.safetensors").write_bytes(weights_of(folder)[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"detector.safetensors is not the file detector.json speaks of"):
        load_detector(folder)
    (folder / "detector.safetensors").unlink()
    with pytest.raises(DataError, match=r"expected detector.safetensors, found none"):
        load_detector(folder)
    write_json(folder / "detector.json", {"format": 9})
    with pytest.raises(DataError, match="expected a detector of format 1, got 9"):
        load_detector(folder)


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
