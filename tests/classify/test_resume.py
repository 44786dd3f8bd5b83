"""Killed and resumed equals undisturbed, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

import classify.loop
import classify.train
from classify.checkpoint_files import CheckpointFiles
from classify.sampler import Sampler, SamplerConfig
from classify.settings import TrainConfig
from classify.target_source import FixedTargets
from classify.train import run
from tests.classify.trainings import (
    KilledError,
    assert_same,
    disturb,
    kill_at_call,
    latest_checkpoint,
    result_of,
    rows_of,
    settings,
)
from weakray.dataset import Dataset


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of four batches, undisturbed."""
    out = tmp_path_factory.mktemp("straight") / "member"
    run(settings(dataset.root, out))
    return out


def killed(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    with monkeypatch.context() as patch:
        kill_at_call(patch, call)
        with pytest.raises(KilledError):
            run(config)
    assert not (config.out / "done.json").exists()
    torch.rand(17)  # other work of the new process


@pytest.mark.parametrize(
    ("call", "every"),
    [
        (2, None),  # before any checkpoint
        (5, None),  # at the start of the second epoch (a validation is a call too)
        (8, 1),  # within the second epoch, checkpoints at each step
        (8, 2),
        (14, 3),  # in the last validation
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, every: int | None
) -> None:
    config = settings(dataset.root, tmp_path / "m", checkpoint_every_steps=every)
    killed(config, monkeypatch, call)
    if call == 8:
        progress = latest_checkpoint(tmp_path / "m")["now"]["progress"]
        assert progress["epoch"] == 1
        assert progress["batch"] == {1: 3, 2: 2}[every or 0]
    run(config)
    assert_same(tmp_path / "m", straight)


def test_killed_between_the_figures_and_the_checkpoint(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointFiles.save

    def die_in_epoch_2(files: CheckpointFiles, now: Any, *rest: Any) -> None:
        if now.progress.epoch == 2:
            raise KilledError
        save(files, now, *rest)

    config = settings(dataset.root, tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "save", die_in_epoch_2)
        with pytest.raises(KilledError):
            run(config)
    assert len(rows_of(tmp_path / "m")) == 2
    run(config)
    assert_same(tmp_path / "m", straight)


EMA = {"ema": {"decay": 0.9}}
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "ema": EMA,
    "plateau": {"schedule": {"name": "plateau", "patience_epochs": 0, "drop_factor": 0.5}},
    "sampler": {
        "optimizer": {"name": "rmsprop", "lr": 1e-4},
        "sampler": {"weights": "inverse_frequency", "no_finding_weight": 0.5, "replacement": True},
    },
    "multiclass": {"uncertainty": "multiclass", "second_phase": {"epochs": 1}},
    "moving_labels": {"moving_labels": 0.5},
    "second_phase": {"epochs": 2, "second_phase": {"epochs": 2}, "clip_norm": 0.01},
    "second_phase_unmasked": {"epochs": 1, "second_phase": {"epochs": 2, "child_mask": False, "lr": 0.1}, **EMA},
    "mean_teacher": {"epochs": 2, "mean_teacher": {"weight": 5.0, "ramp_epochs": 1.5}, **EMA},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_whatever_is_trained_resumes(
    name: str, straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed twice: within the second epoch, and in the last validation."""
    whole, parted = (settings(dataset.root, tmp_path / part, **VARIANTS[name]) for part in ("whole", "parted"))
    calls = [0]
    if name == "plateau":
        monkeypatch.setattr("classify.validation.finding_areas", lambda *_: {"macro_auroc": 0.5})

    def count(loss: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return loss

    with monkeypatch.context() as patch:
        disturb(patch, count)
        run(whole)
    stepwise = parted.model_copy(update={"checkpoint_every_steps": 1})
    killed(stepwise, monkeypatch, 7)
    assert latest_checkpoint(tmp_path / "parted")["now"]["progress"]["batch"] == 2
    killed(parted, monkeypatch, calls[0] - 8)  # 7 calls are done
    run(parted)
    assert_same(tmp_path / "parted", tmp_path / "whole")
    assert is_on(name, rows_of(tmp_path / "whole"), rows_of(straight))


def test_fp16_resumes_with_its_loss_scale(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPU, where no user gets it, with a scale so large that the first steps overflow."""
    monkeypatch.setattr(classify.train, "torch_precision", lambda *_: "fp16")
    monkeypatch.setattr(
        classify.loop, "GradScaler", lambda device, enabled: GradScaler(device, init_scale=2.0**24, enabled=enabled)
    )
    whole, parted = (settings(dataset.root, tmp_path / part, epochs=2) for part in ("whole", "parted"))
    run(whole)
    killed(parted.model_copy(update={"checkpoint_every_steps": 1}), monkeypatch, 6)
    now = latest_checkpoint(tmp_path / "parted")["now"]
    assert now["progress"]["overflows"] > 0
    assert now["scaler"]["scale"] == 2.0 ** (24 - now["progress"]["overflows"])
    assert now["progress"]["updates"] + now["progress"]["overflows"] == 5
    run(parted)
    assert result_of(tmp_path / "parted")["fp16_overflows"] >= now["progress"]["overflows"]
    assert_same(tmp_path / "parted", tmp_path / "whole")


def is_on(name: str, rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> bool:
    """Whether the training shows a trace of what it was meant to try."""
    match name:
        case "plateau":
            return [row["lr"] for row in rows] == [1e-3, 1e-3, 5e-4]
        case "second_phase" | "second_phase_unmasked":
            return [row["phase"] for row in rows][-3:] == [1, 2, 2]
        case "mean_teacher":
            return rows[1]["train_disagreement"] > 0
        case _:
            return rows[-1]["val_loss"] != plain[-1]["val_loss"]


def sick_batch(dataset: Dataset, epoch: int, batch: int) -> torch.Tensor:
    """The targets of one batch, by which it is known again."""
    part, _ = classify.train._part(dataset, "train", settings(dataset.root, dataset.root), ["ignore"] * 4)
    rows = Sampler.make(SamplerConfig(), part.full.values, 6, 0).batches(epoch)[batch]
    return FixedTargets(part.counted).targets_for(rows)[0]


def sicken(monkeypatch: pytest.MonkeyPatch, batches: list[torch.Tensor], calls: list[int], kill: int | None) -> None:
    """Gives some batches a loss that is not a number, and may kill the training."""

    def spoil(loss: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == kill:
            raise KilledError
        return loss * float("nan") if any(torch.equal(values, sick) for sick in batches) else loss

    disturb(monkeypatch, spoil)


@pytest.mark.parametrize(("name", "every_steps"), [("plain", 100), ("mean_teacher", 2), ("second_phase", 2)])
def test_a_training_that_went_back_resumes(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, every_steps: int
) -> None:
    """Killed before it went back, on the way, and after; it went back twice in the second epoch."""
    sick = [sick_batch(dataset, 1, 2), sick_batch(dataset, 1, 3)]
    variant = VARIANTS.get(name, {"epochs": 2}) | {"rollback": {"every_steps": every_steps}}
    whole, parted = (settings(dataset.root, tmp_path / part, **variant) for part in ("whole", "parted"))
    with monkeypatch.context() as patch:
        sicken(patch, sick, [0], None)
        run(whole)
    rows = rows_of(tmp_path / "whole")
    events = [row for row in rows if "event" in row]
    assert [event["at"] for event in events] == ["epoch 2, step 3", "epoch 2, step 4"]
    assert [event["rate_factor"] for event in events] == [1.0, 0.5]
    assert {event["back_to"] for event in events} == {f"epoch 2, step {1 if every_steps == 100 else 3}"}
    assert (result_of(tmp_path / "whole")["rollbacks"], result_of(tmp_path / "whole")["left_out_batches"]) == (2, 2)
    stepwise = parted.model_copy(update={"checkpoint_every_steps": 1})
    for kill in (8, 2, 3):
        with monkeypatch.context() as patch:
            sicken(patch, sick, [0], kill)
            with pytest.raises(KilledError):
                run(stepwise)
        torch.rand(3)
    with monkeypatch.context() as patch:
        sicken(patch, sick, [0], None)
        run(stepwise)
    assert_same(tmp_path / "parted", tmp_path / "whole")
