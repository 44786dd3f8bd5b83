"""What the tests of sweeps share: a small search space, and trainings that only pretend."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import classify.sweep.command
import classify.sweep.trial
from classify.settings import TrainConfig
from classify.sweep.command import SweepConfig
from classify.train import TrainResult
from weakray.config import validate
from weakray.runs import open_run

TRAIN = {
    "model": {"backbone": "test_resnet", "input": {"size_px": 48}},
    "epochs": 1,
    "batch_size": 6,
    "threads": 1,
    "precision": "fp32",
}


SPACE = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "batch_size": {"low": 4, "high": 12, "step": 4},
    "model.output_stride": {"choices": [16, None]},
}


def settings(data: Path, out: Path, **changed: Any) -> SweepConfig:
    plain = {"data": data, "out": out, "train": TRAIN, "space": SPACE, "trials": 4, "startup_trials": 2}
    return validate(SweepConfig, plain | changed)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


Figures = Callable[[TrainConfig], Sequence[float | None]]


def pretend(monkeypatch: pytest.MonkeyPatch, figures: Figures, kill_at: int | None = None) -> list[tuple[int, int]]:
    """Puts in place of training one that has the figures of each epoch ready; returns the (trial, epoch)s it did."""
    did: list[tuple[int, int]] = []

    def fake(config: TrainConfig, watch: Callable[[Mapping[str, Any]], None]) -> TrainResult:
        folder = open_run(config.out, config, {})
        done = folder.finished()
        if done is not None:
            return TrainResult(**done)
        scores = figures(config)
        for epoch in range(len(folder.metrics()) + 1, len(scores) + 1):
            if len(did) == kill_at:
                raise Killed
            did.append((int(config.out.name), epoch))
            score = scores[epoch - 1]
            row = {"epoch": epoch, "val_macro_auroc": score, "val_loss": None if score is None else 1 - score}
            folder.log(**row)
            watch(row)
        best = max(score for score in scores if score is not None)
        result = TrainResult(
            best_epoch=scores.index(best) + 1,
            epochs=len(scores),
            metric="val_macro_auroc",
            score=best,
            lifted_labels=0,
            untaught=[],
            model_sha256="",
        )
        folder.finish(result.model_dump(mode="json"))
        return result

    monkeypatch.setattr(classify.sweep.trial, "train", fake)
    monkeypatch.setattr(classify.sweep.command, "write_plot", lambda *_: None)  # takes longer than all the rest
    return did


def smooth(config: TrainConfig) -> list[float]:
    """Better near a rate of 0.002, with batches of 8; falls after the second epoch."""
    near = 1 / (1 + abs(config.optimizer.lr - 2e-3) * 300) + (config.batch_size == 8) * 0.1
    return [0.5 * near, 0.8 * near, 0.7 * near]


def table(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
