"""`weakray detect choose`: resumable, complete, and read by `detect train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detect.loop
from detect.choose import ChooseConfig, run, settings_of
from detect.train import DetectTrainConfig
from detect.train import run as train
from eval.box_scores import score_boxes
from tests.detect.conftest import NAMES, DatasetMaker, noisy, weights_of
from weakray.cli import main
from weakray.coco import Predictions, load_results, save_results
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import read_json, read_yaml, write_yaml

CANDIDATES: dict[str, dict[str, Any]] = {
    "few": {"source": "tune"},
    "rounds": {"source": "pseudo_then_tune", "course": {"rounds": 1}},
}


@pytest.fixture
def config(make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path) -> ChooseConfig:
    dataset = make_dataset(train=6, tune=6)
    save_results(tmp_path / "boxes.json", noisy(dataset), dataset.image_ids, "recipe")
    small = {"steps": 8, "batch_size": 3, "log_every_steps": 2, "checkpoint_every_steps": 2, "bf16": False}
    shared = {**small, "threads": 1, "architecture": str(tiny_architecture), "input": {"size_px": 64}}
    shared["course"] = {"tune_share": 0.5}
    values = {"data": dataset.root, "out": tmp_path / "choose", "boxes": tmp_path / "boxes.json", "folds": 2}
    return validate(ChooseConfig, {**values, "train": shared, "candidates": CANDIDATES, "draws": 50})


def changed(config: ChooseConfig, **settings: Any) -> ChooseConfig:
    return validate(ChooseConfig, {**config.model_dump(), **settings})


def counted_steps(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """A list that grows with every training step; past `stop_after` it is as if someone pressed Ctrl-C."""
    real, steps = detect.loop._step, list[int]()

    def counted(*args: Any) -> None:
        if stop_after is not None and len(steps) == stop_after:
            raise KeyboardInterrupt
        steps.append(1)
        real(*args)

    monkeypatch.setattr(detect.loop, "_step", counted)
    return steps


def test_every_tune_image_is_scored_once_by_who_did_not_see_it(config: ChooseConfig) -> None:
    result = run(config)
    content = read_json(config.out / "choice" / "choice.json")
    dataset = Dataset.load(config.data)
    assert (content["images"], content["patients"], content["folds"]) == (6, 6, 2)
    for row in content["candidates"]:
        for of_round in row["rounds"]:
            pooled: Predictions = {}
            for fold in range(2):
                cell = config.out / row["name"] / f"fold_{fold}"
                found = load_results(cell / "held_out" / f"round_{of_round['round']}.json")
                assert not set(found) & set(pooled)
                taught = read_json(cell / "done.json")["result"]["training_sets"]["tune"]["images"]
                assert (taught, len(found)) == (3, 3)
                pooled |= found
            assert sorted(pooled) == dataset.ids_of("tune")
            scores = score_boxes(pooled, dataset.truth_of("tune"), dataset.patients, NAMES, config.draws, config.seed)
            assert of_round["ap50"] == scores["ap50"]
    assert [len(row["rounds"]) for row in content["candidates"]] == [1, 2]
    assert [of_round["steps"] for of_round in content["candidates"][1]["rounds"]] == [4, 8]
    assert (result.best, result.chosen) == (content["best"], content["chosen"])
    assert set(result.ap50) == {"few", "rounds"}
    assert f"Chosen: `{result.chosen}` with {result.rounds} rounds" in (config.out / "choice/choice.md").read_text()
    assert content["settings"] == read_yaml(config.out / "choice" / "chosen.yaml")
    assert not list(config.out.rglob("training_set"))


def test_what_is_done_is_found(config: ChooseConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(config)
    steps = counted_steps(monkeypatch)
    stamp = (config.out / "choice" / "done.json").stat().st_mtime_ns
    assert run(config) == first
    assert (config.out / "choice" / "done.json").stat().st_mtime_ns == stamp
    (config.out / "choice" / "chosen.yaml").unlink()
    assert run(config) == first
    assert (config.out / "choice" / "chosen.yaml").is_file()
    turned = changed(config, candidates=dict(reversed(CANDIDATES.items())))
    assert [row["name"] for row in _candidates(config)] == ["few", "rounds"]
    run(turned)  # another order is another choice, of the same trainings
    assert [row["name"] for row in _candidates(config)] == ["rounds", "few"]
    assert steps == []
    run(changed(config, candidates={**CANDIDATES, "mixed": {"source": "tune", "course": {"rounds": 1}}}))
    assert len(steps) == 16  # two folds of the new one


def _candidates(config: ChooseConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_json(config.out / "choice" / "choice.json")["candidates"]
    return rows


@pytest.mark.parametrize("stop_after", [5, 13, 21])
def test_killed_in_any_training_it_goes_on_there(
    config: ChooseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    killed = changed(config, out=tmp_path / "killed")
    with monkeypatch.context() as patched:
        steps = counted_steps(patched, stop_after)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    assert not (killed.out / "choice" / "done.json").exists()
    with monkeypatch.context() as patched:
        steps = counted_steps(patched)
        after = run(killed)
    assert len(steps) == 32 - stop_after + stop_after % 2  # checkpoints come every second step
    assert run(config) == after
    for name in ("choice.json", "choice.md", "chosen.yaml"):
        assert (killed.out / "choice" / name).read_text() == (config.out / "choice" / name).read_text()


def test_the_choice_is_what_train_learns_by(config: ChooseConfig, tmp_path: Path) -> None:
    result = run(config)
    choice = config.out / "choice" / "chosen.yaml"
    given: dict[str, Any] = {"data": config.data, "boxes": config.boxes, "choice": choice}
    trained = train(validate(DetectTrainConfig, {**given, "out": tmp_path / "one"}))
    assert trained.steps == result.steps
    words = ["detect", "train", str(choice), "--data", str(config.data), "--out", str(tmp_path / "two")]
    boxes = [] if result.chosen == "few" else ["--boxes", str(config.boxes)]
    assert main([*words, *boxes]) == 0
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    assert read_yaml(tmp_path / "one" / "config.yaml")["steps"] == result.steps
    with pytest.raises(ConfigError, match=r"steps: is read from choice \(.*chosen.yaml\); leave it out"):
        train(validate(DetectTrainConfig, {**given, "out": tmp_path / "three", "steps": 7}))


def test_another_choice_is_another_training(config: ChooseConfig, tmp_path: Path) -> None:
    """The settings that are read are part of the run's key, as if they had been given."""
    choice, out = tmp_path / "chosen.yaml", tmp_path / "run"
    given: dict[str, Any] = {"data": config.data, "boxes": config.boxes, "choice": choice, "out": out}
    trained = []
    for own in ({"source": "tune"}, {"source": "tune"}, {"source": "pseudo"}):
        write_yaml(choice, {**config.train, **own})
        trained.append((train(validate(DetectTrainConfig, given)), (out / "done.json").stat().st_mtime_ns))
    assert trained[0] == trained[1]
    assert list(trained[2][0].training_sets) == ["pseudo"]
    write_yaml(choice, {**config.train, "stepz": 1})
    with pytest.raises(ConfigError, match=r"chosen.yaml.stepz: unknown setting"):
        train(validate(DetectTrainConfig, given))


@pytest.mark.parametrize(("best_round", "rounds", "steps"), [(0, 0, 10), (1, 1, 20), (2, 2, 31)])
def test_rounds_that_do_not_raise_the_figure_are_left_out(
    config: ChooseConfig, monkeypatch: pytest.MonkeyPatch, best_round: int, rounds: int, steps: int
) -> None:
    """The boxes of each round are made up: true ones in the best round, none before and after."""
    dataset = Dataset.load(config.data)
    truth = dataset.truth_of("tune").boxes

    def made_up(path: Path) -> Predictions:
        real = load_results(path)
        number = int(path.stem.removeprefix("round_"))
        # rising until the best round: of the true boxes, those of so many of the fold's images
        shown = sorted(real)[: 1 + number if number <= best_round else 0]
        return {
            image_id: truth[image_id].where(np.array([image_id in shown] * len(truth[image_id]))) for image_id in real
        }

    monkeypatch.setattr("detect.choose.load_results", made_up)
    candidates = {"rounds": {"source": "tune", "steps": 31, "course": {"rounds": 2}}}
    result = run(changed(config, boxes=None, candidates=candidates))
    assert (result.chosen, result.rounds, result.steps) == ("rounds", rounds, steps)
    settings = read_yaml(config.out / "choice" / "chosen.yaml")
    assert (settings["course"], settings["steps"]) == ({"tune_share": 0.5, "rounds": rounds}, steps)


def test_rounds_that_are_one_training_are_kept_whole(config: ChooseConfig) -> None:
    candidates = {"one": {"source": "tune", "course": {"rounds": 2, "continued": True, "tune_mixed": 0.4}}}
    result = run(changed(config, boxes=None, candidates=candidates))
    assert (result.chosen, result.rounds) == ("one", 2)
    assert read_yaml(config.out / "choice" / "chosen.yaml")["course"]["rounds"] == 2
    (row,) = _candidates(config)
    assert [of_round["steps"] for of_round in row["rounds"]] == [result.steps]


def test_candidates_change_sections_setting_by_setting(config: ChooseConfig) -> None:
    trained = settings_of(config)
    assert trained["rounds"].course.model_dump()["tune_share"] == 0.5
    assert trained["rounds"].course.rounds == 1
    assert trained["few"].boxes is None
    assert trained["rounds"].boxes == config.boxes
    default = settings_of(ChooseConfig(data=config.data, out=config.out, boxes=config.boxes))
    assert list(default) == ["tune", "pseudo_then_tune", "mixed", "rounds", "tune_continued", "continued"]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"a": {"stepz": 1}}, r"candidates\.a\.stepz: unknown setting"),
        ({"a": {"data": "x"}}, r"candidates\.a\.data: is set by `detect choose`; remove it"),
        ({"a": {"held_out": None}}, r"candidates\.a\.held_out: is set by `detect choose`"),
        ({"a": {"source": "ceiling"}}, r"candidates\.a\.source: the ceiling learns from true boxes of train images"),
        ({"choice": {}}, r"candidates\.choice: is the folder of the choice itself; give it another name"),
        ({"../a": {}}, r"candidates\..*should match pattern"),
        ({}, r"candidates: .*at least 1 item"),
        ({"a": {"source": "pseudo", "course": {"tune_mixed": 0.3}}}, r"course\.tune_mixed: of no use to source=pseudo"),
    ],
)
def test_wrong_candidates_are_refused_before_any_training(
    config: ChooseConfig, candidates: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(changed(config, candidates=candidates))
    assert not config.out.exists()


def test_other_things_that_cannot_be_are_refused_too(config: ChooseConfig) -> None:
    with pytest.raises(ConfigError, match=r"train\.out: is set by `detect choose`"):
        run(changed(config, train={**config.train, "out": "x"}))
    with pytest.raises(ConfigError, match=r"^train\.stepz: unknown setting"):
        run(changed(config, train={"stepz": 3}))
    with pytest.raises(ConfigError, match="boxes: required for source=pseudo_then_tune"):
        run(changed(config, boxes=None))
    with pytest.raises(DataError, match=r"expected at least as many patients on tune as folds \(7\), got 6"):
        run(changed(config, folds=7))
    assert not config.out.exists()
