"""What is kept of each round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.course import CourseConfig, course
from detect.holding_out import HeldOutConfig, held_out_ids
from detect.predict import DetectPredictConfig
from detect.predict import run as predict
from detect.rounds import RoundKeeper, round_numbers
from detect.train import run as train
from eval.box_scores import score_boxes
from tests.detect.conftest import DatasetMaker, config_of, weights_of
from weakray.coco import load_results
from weakray.dataset import Dataset

SETTINGS: dict[str, Any] = {"source": "pseudo_then_tune", "steps": 31, "course": {"rounds": 2}, "batch_size": 4}


def test_rounds_of_stretches_by_hand() -> None:
    assert round_numbers(course("pseudo_then_tune", 30, CourseConfig(rounds=2))) == [0, 0, 1, 1, 2, 2]
    assert round_numbers(course("tune", 30, CourseConfig(rounds=2))) == [0, 1, 1, 2, 2]
    assert round_numbers(course("ceiling", 30, CourseConfig())) == [0]


def test_every_round_leaves_a_line(pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path) -> None:
    dataset, boxes = pseudo_boxes
    run = tmp_path / "run"
    result = train(config_of(dataset, run, tiny_architecture, **SETTINGS, boxes=boxes, held_out={"folds": 3}))
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [row.model_dump() for row in result.rounds] == rows
    assert [(row["round"], row["steps"]) for row in rows] == [(0, 10), (1, 20), (2, 31)]
    assert [list(row["boxes"]) for row in rows] == [["pseudo", "tune"], ["own_1", "tune"], ["own_2", "tune"]]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        first, last = row["boxes"]
        assert row["boxes"][first] == result.training_sets[first].boxes
        assert row["cutoffs"] == result.training_sets[first].cutoffs
        assert set(row["losses"]) == {first, last}
        logged = [line for line in metrics if line["phase"] == 2 * row["round"] + 1][-1]
        assert row["losses"][last] == {name: logged[name] for name in ("box_loss", "cls_loss", "dfl_loss")}


def test_the_last_round_is_scored_as_the_detector_that_is_kept(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset(train=8, tune=6)
    settings = {"source": "tune", "steps": 70, "batch_size": 8, "checkpoint_every_steps": 70}
    settings["optimizer"] = {"lr": 0.01, "warmup_steps": 10, "ema_decay": 0.9, "ema_warmup_steps": 10}
    held = HeldOutConfig(folds=2, fold=1)
    (row,) = train(
        config_of(dataset, tmp_path / "run", tiny_architecture, **settings, held_out=held.model_dump())
    ).rounds
    predict(DetectPredictConfig(data=dataset.root, detector=tmp_path / "run", out=tmp_path / "found", splits=("tune",)))
    ids = held_out_ids(dataset, held)
    found = {i: one for i, one in load_results(tmp_path / "found/boxes.json").items() if i in ids}
    kept = load_results(tmp_path / "run/held_out/round_0.json")
    assert sorted(kept) == sorted(ids)
    assert all(len(kept[image_id]) == len(found[image_id]) for image_id in ids)
    scores = score_boxes(found, dataset.truth_of("tune").only(ids), dataset.patients, ["Disc", "Bar"], draws=5)
    assert row.ap50 is not None
    assert row.ap30 is not None
    assert 0 < row.ap50 <= row.ap30  # a figure that says something; on some machines both are alike
    assert (row.ap30, row.ap50) == pytest.approx((scores["ap30"]["value"], scores["ap50"]["value"]), abs=1e-5)


def test_killed_while_it_measures_it_measures_again(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {**SETTINGS, "boxes": boxes, "held_out": {"folds": 3}}
    train(config_of(dataset, tmp_path / "whole", tiny_architecture, **settings))
    real, calls = RoundKeeper._predict, 0

    def interrupted(keeper: RoundKeeper, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(keeper, *args)

    config = config_of(dataset, tmp_path / "killed", tiny_architecture, **settings)
    with monkeypatch.context() as patched:
        patched.setattr(RoundKeeper, "_predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert len((tmp_path / "killed" / "rounds.jsonl").read_text().splitlines()) == 1
    train(config)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert (tmp_path / "killed" / "rounds.jsonl").read_text() == (tmp_path / "whole" / "rounds.jsonl").read_text()
