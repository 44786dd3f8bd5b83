from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from classify.sweep.command import run
from classify.sweep.space import Dimension, applied, parameters
from tests.classify.sweeps import pretend, settings
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"optimizer.rl": {"low": 1, "high": 2}},
            r"space\.optimizer\.rl: `classify train` has no such .*optimizer\.lr\?",
        ),
        ({"epochs.x": {"choices": [1]}}, r"space\.epochs\.x: `classify train` has no such setting"),
        ({"out": {"choices": ["a", "b"]}}, r"space\.out: is the same for all trials"),
        ({"model": {"choices": [{}]}, "model.backbone": {"choices": ["a"]}}, r"model\.backbone lies inside model"),
        ({"hierarchy": {"low": 0, "high": 1}}, r"space\.hierarchy: is no number; expected choices"),
        ({"augment": {"low": 0, "high": 1}}, r"space\.augment: is no number; expected choices"),
        ({"epochs": {"low": 1, "high": 2.5}}, r"space\.epochs: takes whole numbers; got 1, 2\.5"),
        ({"epochs": {"low": 1}}, r"space\.epochs: .*expected choices: \[\.\.\.\], or low and high"),
        ({"epochs": {"low": 3, "high": 3}}, r"expected low < high"),
        ({"epochs": {"choices": [1], "low": 3}}, r"got both"),
        ({"epochs": {"choices": [1, "1"]}}, r"one stands twice"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, r"expected low > 0 where log is true"),
        ({"optimizer.lr": {"low": 1, "high": 2, "log": True, "step": 1}}, r"expected log or step"),
        ({"optimizer.lr": {"low": 0, "high": 1, "step": 0.3}}, r"a whole number of steps; 3\.33333 lie between"),
        ({}, r"space: dictionary should have at least 1 item"),
    ],
)
def test_a_space_that_cannot_be_is_refused_before_any_trial(
    dataset: Dataset, tmp_path: Path, space: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(settings(dataset.root, tmp_path / "m", space=space))
    assert not (tmp_path / "m").exists()


def test_a_base_that_cannot_be_is_refused_before_any_trial(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.epoch: unknown setting"):
        run(settings(dataset.root, tmp_path / "m", train={"epoch": 3}))
    with pytest.raises(ConfigError, match=r"train\.out: is set by the sweep; remove it"):
        run(settings(dataset.root, tmp_path / "m", train={"out": "x"}))
    assert not (tmp_path / "m").exists()


def test_ranges_are_of_the_settings_kind() -> None:
    space = {
        "epochs": {"low": 1, "high": 5.0},  # whole numbers, though one is written as a float
        "optimizer.weight_decay": {"low": 0, "high": 1},  # any number, though both are written as whole ones
        "clip_norm": {"low": 1, "high": 3, "step": 0.5},
        "early_stop.patience_epochs": {"low": 1, "high": 8, "log": True},
        "uncertainty_of.Mass": {"choices": ["zeros", "ones"]},
    }
    found = parameters({path: validate(Dimension, value) for path, value in space.items()})
    assert [one.whole for one in found] == [True, False, False, True, False]


def test_values_go_to_their_places_and_the_base_stays() -> None:
    base = {"optimizer": {"lr": 1.0, "weight_decay": 2.0}, "epochs": 3}
    values = {"optimizer.lr": 0.1, "early_stop.patience_epochs": 4, "model": {"backbone": "x"}}
    assert applied(base, values) == {
        "optimizer": {"lr": 0.1, "weight_decay": 2.0},
        "epochs": 3,
        "early_stop": {"patience_epochs": 4},
        "model": {"backbone": "x"},
    }
    assert base == {"optimizer": {"lr": 1.0, "weight_decay": 2.0}, "epochs": 3}
    with pytest.raises(ConfigError, match=r"space\.epochs\.x: train\.epochs is 3, no section"):
        applied(base, {"epochs.x": 1})


def test_whole_sections_may_vary(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda config: [config.augment.scale])
    space = {"augment": {"choices": [{"scale": 0.3}, {"scale": 0.2, "rotate_deg": 0}]}}
    result = run(settings(dataset.root, tmp_path / "m", space=space, trials=4))
    assert result.best == {"augment": {"scale": 0.3}}
    assert yaml.safe_load((tmp_path / "m/best.yaml").read_text())["augment"]["scale"] == 0.3
