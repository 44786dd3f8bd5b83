"""Small trainings for tests, and ways to disturb them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

import classify.train
from classify.ema import Ema
from classify.heads import HeadOutput
from classify.labels import Targets
from classify.learner import Learner
from classify.loss import Criterion, LossConfig, criterion
from classify.optimizer import OptimizerConfig, make_optimizer
from classify.settings import TrainConfig
from classify.studies import StudyBatch
from classify.target_source import MovingTargets
from weakray.config import validate
from weakray.taxonomy import Taxonomy

MODEL = {"backbone": "test_resnet", "input": {"size_px": 48}}


def settings(data: Path, out: Path, **changed: Any) -> TrainConfig:
    plain = {"data": data, "out": out, "model": MODEL, "epochs": 3, "batch_size": 6, "threads": 1, "precision": "fp32"}
    return validate(TrainConfig, plain | changed)


class KilledError(BaseException):
    """Stands for a kill: nothing may catch it."""


Disturbance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # loss, values → loss


def disturb(monkeypatch: pytest.MonkeyPatch, disturbance: Disturbance) -> None:
    """Puts something between the loss and the loop."""
    whole = criterion  # looked up before the patch

    def made(config: LossConfig, counted: Targets, device: torch.device, taxonomy: Taxonomy) -> Criterion:
        exact = whole(config, counted, device, taxonomy)
        return lambda logits, values, *rest: disturbance(exact(logits, values, *rest), values)

    monkeypatch.setattr(classify.train, "criterion", made)


def kill_at_call(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Kills the training when it asks for a loss for this time (from 0); a validation is a call too."""
    calls = iter(range(10_000))

    def kill(loss: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        if next(calls) == call:
            raise KilledError
        return loss

    disturb(monkeypatch, kill)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def result_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "done.json").read_text())["result"])


def latest_checkpoint(out: Path) -> dict[str, Any]:
    return dict(json.loads(max((out / "checkpoints").glob("*.json")).read_text()))


def assert_same(one: Path, other: Path) -> None:
    """The same bytes of model, figures and curves, and the same result."""
    for name in ("model.safetensors", "metrics.jsonl", "model.json", "curves.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert result_of(one) == result_of(other)


def alone(pixels: npt.NDArray[np.float32]) -> StudyBatch:
    """Images that are each a study of its own."""
    return StudyBatch(pixels, torch.arange(len(pixels)), torch.ones(len(pixels), dtype=torch.bool))


class Tiny(nn.Module):
    """Two findings of small images, with dropout and running statistics."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Dropout(0.5))
        self.conv = self.scorer = nn.Conv2d(width, 2, 1)
        self.uncertain = None
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> HeadOutput:
        maps = self.conv(self.body(images))
        return HeadOutput(maps.mean((2, 3)), maps)


def tiny_learner(width: int = 3, **optimizer: Any) -> Learner:
    torch.manual_seed(0)
    model: Any = Tiny(width)
    values = np.random.default_rng(0).integers(0, 2, (9, 2)).astype(np.float32)
    return Learner(
        model,
        make_optimizer(model, OptimizerConfig(**optimizer)),
        Ema(model, 0.9, warmup=True),
        GradScaler("cpu", enabled=False),
        MovingTargets(Targets(values, np.ones((9, 2), bool)), 0.5),
        lambda logits, given, *_: nn.functional.binary_cross_entropy_with_logits(logits, given),
        "fp32",
        1.0,
        torch.device("cpu"),
    )
