from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import classify.loop
import classify.train
from classify.labels import Targets
from classify.loss import criterion
from classify.member import load_member
from classify.train import run
from tests.classify.trainings import rows_of, settings
from weakray.dataset import Dataset

TWO = {"epochs": 2, "second_phase": {"epochs": 2, "lr": 0.5}}


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Gives the epochs these scores; collects their weights."""
    weights: list[dict[str, torch.Tensor]] = []
    left = iter(scores)

    def figures(learner: Any, *_: Any) -> dict[str, float]:
        weights.append({name: value.clone() for name, value in learner.model.state_dict().items()})
        return {"val_macro_auroc": next(left), "val_loss": 1.0}

    monkeypatch.setattr(classify.loop, "val_figures", figures)
    return weights


def test_only_the_last_layer_moves_and_it_starts_from_the_best_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = scored(monkeypatch, [0.8, 0.7, 0.6, 0.9])
    result = run(settings(dataset.root, tmp_path / "m", **TWO))
    first, _, third, fourth = weights
    for name, value in first.items():  # running statistics too
        assert torch.equal(value, third[name]) is (not name.startswith("conv.")), name
        assert torch.equal(value, fourth[name]) is (not name.startswith("conv.")), name
    assert (result.best_epoch, result.epochs, result.score) == (4, 4, 0.9)
    kept = load_member(tmp_path / "m").model.state_dict()
    assert torch.equal(kept["conv.weight"], fourth["conv.weight"])


def test_the_first_phase_is_kept_where_the_second_gains_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = scored(monkeypatch, [0.7, 0.8, 0.7, 0.75])
    result = run(settings(dataset.root, tmp_path / "m", **TWO))
    assert (result.best_epoch, result.score) == (2, 0.8)
    kept = load_member(tmp_path / "m").model.state_dict()
    assert torch.equal(kept["conv.weight"], weights[1]["conv.weight"])


def test_each_phase_has_its_own_patience_and_course(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, [0.8, 0.7, 0.6, 0.6, 0.6])
    config = {"epochs": 9, "early_stop": {"patience_epochs": 1}, "schedule": {"name": "step", "drop_epochs": 1}}
    run(settings(dataset.root, tmp_path / "m", second_phase={"epochs": 9, "lr": 0.5}, **config))
    rows = rows_of(tmp_path / "m")
    assert [(row["epoch"], row["phase"], row["lr"]) for row in rows] == [
        (1, 1, 1e-3),
        (2, 1, pytest.approx(1e-4)),
        (3, 2, 0.5),
    ]


@pytest.mark.parametrize("child_mask", [True, False])
def test_the_child_mask_stays_or_is_dropped_in_both_splits(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child_mask: bool
) -> None:
    given: list[Targets] = []
    phases: list[Any] = []

    def spy(config: Any, counted: Targets, *rest: Any) -> Any:
        given.append(counted)
        return criterion(config, counted, *rest)

    class Stop(BaseException):
        pass

    def stop(trainer: classify.loop.Trainer) -> None:
        phases.extend(trainer.phases)
        raise Stop

    monkeypatch.setattr(classify.train, "criterion", spy)
    monkeypatch.setattr(classify.loop.Trainer, "fit", stop)
    with pytest.raises(Stop):
        run(settings(dataset.root, tmp_path / "m", second_phase={"epochs": 1, "child_mask": child_mask}))
    assert not given[0].mask[:, 2].all()
    assert [one.mask[:, 2].all() for one in given[1:]] == ([] if child_mask else [True])
    assert (phases[1].targets is phases[0].targets) == child_mask
    assert (phases[1].val.mask == phases[0].val.mask).all() == child_mask
    assert [phase.last_layer_only for phase in phases] == [False, True]
