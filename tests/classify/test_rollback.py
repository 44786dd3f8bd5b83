from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import classify.loop
import classify.studies
from classify.batches import training_batches
from classify.member import load_member
from classify.sweep.trial import attempt
from classify.train import run
from tests.classify.trainings import disturb, result_of, rows_of, settings
from weakray.dataset import Dataset
from weakray.errors import DivergedError


def sick_at(*calls: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss that is not a number whenever it is asked for these times (from 0)."""
    counted = iter(range(10_000))
    return lambda loss, _: loss * float("nan") if next(counted) in calls else loss


def test_a_loss_that_stays_sick_ends_the_run_with_the_place(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, sick_at(*range(1000)))
    says = (
        r"the loss became nan in epoch 1, step 3, after 2 times back to the last good state; "
        r"lower optimizer\.lr \(now 0\.001\)$"
    )
    with pytest.raises(DivergedError, match=says):
        run(settings(dataset.root, tmp_path / "m", rollback={"limit": 2}))
    with pytest.raises(
        DivergedError, match=r"in epoch 1, step 1, after 0 times .*or set precision to fp32 \(now bf16\)"
    ):
        run(settings(dataset.root, tmp_path / "n", rollback={"limit": 0}, precision="bf16"))


def test_the_sick_batch_is_left_out_and_all_else_is_as_if_it_had_not_been(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third batch of four is sick: training goes back two steps and ends the epoch without it."""
    with monkeypatch.context() as patch:
        disturb(patch, sick_at(2))
        run(settings(dataset.root, tmp_path / "sick", epochs=1))
    with monkeypatch.context() as patch:
        epochs = classify.loop.Trainer._batches
        patch.setattr(
            classify.loop.Trainer, "_batches", lambda *given: (made for made in epochs(*given) if made[0] != 2)
        )
        run(settings(dataset.root, tmp_path / "without", epochs=1))
    for name in ("model.safetensors", "curves.png"):
        assert (tmp_path / "sick" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    event, row = rows_of(tmp_path / "sick")
    assert [row] == rows_of(tmp_path / "without")
    assert event == {
        "event": "rollback",
        "what": "loss",
        "value": "nan",
        "at": "epoch 1, step 3",
        "back_to": "epoch 1, step 1",
        "rate_factor": 1.0,
    }
    result = result_of(tmp_path / "sick")
    assert (result["rollbacks"], result["left_out_batches"]) == (1, 1)


def test_running_statistics_come_back_too(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is not finite itself spoils them before the loss shows it."""
    made, calls = training_batches, iter(range(100))

    def spoil(*given: Any) -> Any:
        for pixels in made(*given):
            yield np.full_like(pixels, np.inf) if next(calls) == 1 else pixels

    monkeypatch.setattr(classify.studies, "training_batches", spoil)
    assert run(settings(dataset.root, tmp_path / "m", epochs=1)).rollbacks == 1
    weights = load_member(tmp_path / "m").model.state_dict()
    assert all(value.isfinite().all() for value in weights.values())


def test_the_rate_falls_when_it_happens_again_from_the_same_state_and_not_when_later(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Epoch 1: batches 0, 1 sick (again from the same state); epoch 2: batch 1, one more from another state.
    disturb(monkeypatch, sick_at(0, 1, 6))
    run(settings(dataset.root, tmp_path / "m", epochs=2, schedule={"name": "constant"}))
    rows = rows_of(tmp_path / "m")
    assert [row.get("rate_factor") for row in rows] == [1.0, 0.5, None, 0.5, None]
    assert [row["lr"] for row in rows if "epoch" in row] == [5e-4, 5e-4]


def test_a_sick_validation_sends_the_epoch_back_at_a_lower_rate(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, sick_at(4))
    result = run(settings(dataset.root, tmp_path / "m", epochs=1))
    event = rows_of(tmp_path / "m")[0]
    assert (event["what"], event["at"], event["rate_factor"]) == ("val loss", "epoch 1, validation", 0.5)
    assert (result.rollbacks, result.left_out_batches) == (1, 0)


def test_states_to_go_back_to_are_at_most_so_many_steps_old(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, sick_at(3))
    run(settings(dataset.root, tmp_path / "m", epochs=1, rollback={"every_steps": 2}))
    assert rows_of(tmp_path / "m")[0]["back_to"] == "epoch 1, step 3"


def test_a_trial_of_a_sweep_takes_events_for_what_they_are(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand in metrics.jsonl beside the epochs, also where a trial is taken up again."""
    reported: list[int] = []
    trial = SimpleNamespace(report=lambda _, epoch: reported.append(epoch))
    given = settings(dataset.root, tmp_path / "m", epochs=2).model_dump(mode="json")
    disturb(monkeypatch, sick_at(0))
    for _ in range(2):
        ended = attempt(trial, given, "val_loss", prune=False)
        assert ended.outcome == "done"
        assert ended.best_epoch == result_of(tmp_path / "m")["best_epoch"]
    assert reported == [1, 2, 1, 2]
    assert [row.get("event") for row in rows_of(tmp_path / "m")] == ["rollback", None, None]
