"""Rounds on boxes of the detector's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import detect.loop
from detect.loop import OptimizerConfig, learning_rate
from detect.quiet_import import import_ultralytics
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of, noisy
from weakray.coco import save_results
from weakray.dataset import Dataset
from weakray.errors import ConfigError


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


@pytest.mark.parametrize(
    ("continued", "expected"),
    [
        (True, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (False, [1, 2, 1, 1, 2, 1, 1, 2, 1]),
    ],  # rounds of 3 steps, one of them on tune
)
def test_averaging_warms_up_once_in_one_training(
    pseudo_boxes: tuple[Dataset, Path],
    tiny_architecture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    continued: bool,
    expected: list[int],
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
    assert updates == expected


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
