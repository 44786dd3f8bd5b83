from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from classify.compute import autocast, torch_precision
from classify.learner import NotFiniteError
from classify.mean_teacher import MeanTeacherConfig, disagreement, ramped, view_seed
from classify.model import Classifier, ModelConfig
from classify.settings import TrainConfig
from classify.studies import StudyBatch
from tests.classify.trainings import alone, tiny_learner
from weakray.config import validate
from weakray.errors import ConfigError
from weakray.imaging import InputSpec

ROWS = np.array([0, 4, 8])


def images(n: int = 3) -> StudyBatch:
    return alone(np.random.default_rng(n).random((n, 1, 5, 7)).astype(np.float32))


def bias_of(model: Any) -> torch.Tensor:
    bias: torch.Tensor = model.conv.bias
    return bias


def test_the_ramp_and_the_disagreement_by_hand() -> None:
    assert ramped(2.0, 0.0, 4.0) == pytest.approx(2 * math.exp(-5))
    assert ramped(2.0, 2.0, 4.0) == pytest.approx(2 * math.exp(-1.25))
    assert ramped(2.0, 4.0, 4.0) == ramped(2.0, 9.0, 4.0) == 2.0
    three = math.log(3)  # σ = 3/4
    logits = torch.tensor([[three, 0.0]])
    assert disagreement(logits, torch.tensor([[-three, three]])).item() == pytest.approx((0.25 + 0.0625) / 2)
    assert view_seed(3) != view_seed(4)
    assert view_seed(3) == view_seed(3) != 3


def test_the_teacher_pulls_the_student_and_learns_nothing_itself() -> None:
    pulled, alone = (tiny_learner(name="sgd", weight_decay=0.0) for _ in range(2))
    for one, weight in ((pulled, 50.0), (alone, 0.0)):
        assert one.ema is not None
        one.clip_norm = None
        one.model.eval()  # no dropout
        with torch.no_grad():
            bias_of(one.ema.model).add_(4.0)  # the teacher says yes to all
        step = one.learn(ROWS, images(), 0.1, 1, images(), weight)
        assert step.disagreement > 0.1
        assert all(parameter.grad is None for parameter in one.ema.model.parameters())
    assert (bias_of(pulled.model) > bias_of(alone.model)).all()


def test_moving_targets_hear_the_models_own_probabilities() -> None:
    one = tiny_learner()
    one.model.eval()
    before, _ = one.targets.targets_for(ROWS)
    with torch.no_grad():
        said = one.model(torch.from_numpy(images().pixels)).logits.sigmoid()
    one.learn(ROWS, images(), 0.01, 0, None, 0.0)
    after, _ = one.targets.targets_for(ROWS)
    torch.testing.assert_close(after, (before + said) / 2)


@pytest.mark.parametrize("clip_norm", [1.0, None])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_caught_before_the_weights_change(where: str, clip_norm: float | None) -> None:
    one = tiny_learner()
    one.clip_norm = clip_norm
    exact = one.criterion
    if where == "loss":
        one.criterion = lambda *given: exact(*given) * float("inf")
    else:  # the root of 0 is 0, its slope is not finite
        one.criterion = lambda *given: exact(*given) + (given[0] - given[0].detach()).square().sum().sqrt()
    weights = [parameter.detach().clone() for parameter in one.model.parameters()]
    with pytest.raises(NotFiniteError, match=f"the {where} became (inf|nan)"):
        one.learn(ROWS, images(), 0.01, 0, None, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, one.model.parameters(), strict=True))


def test_the_norm_is_clipped() -> None:
    one = tiny_learner(name="sgd", momentum=0.0, weight_decay=0.0)
    one.clip_norm, exact = 0.25, one.criterion
    one.criterion = lambda *given: exact(*given) * 1000
    before = torch.cat([p.detach().flatten().clone() for p in one.model.parameters()])
    one.learn(ROWS, images(), 0.1, 0, None, 0.0)
    after = torch.cat([p.detach().flatten() for p in one.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.1 * 0.25, rel=1e-4)


def test_an_overflow_under_a_loss_scale_lowers_the_scale_and_changes_nothing() -> None:
    one = tiny_learner()
    one.scaler = GradScaler("cpu", init_scale=4.0, growth_interval=2)
    exact, sick = one.criterion, [True]
    one.criterion = lambda *given: exact(*given) * (1e38 if sick[0] else 1.0)
    assert one.ema is not None
    weights = [parameter.detach().clone() for parameter in [*one.model.parameters(), *one.ema.model.parameters()]]
    assert not one.learn(ROWS, images(), 0.01, 0, None, 0.0).updated
    assert one.scaler.get_scale() == 2.0
    now = [*one.model.parameters(), *one.ema.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(weights, now, strict=True))
    sick[0] = False
    for update in range(2):
        assert one.learn(ROWS, images(), 0.01, update, None, 0.0).updated
    assert one.scaler.get_scale() == 4.0
    assert not torch.equal(weights[0], next(one.model.parameters()))


def test_a_loss_scale_does_not_change_the_step() -> None:
    plain, scaled = tiny_learner(), tiny_learner()
    scaled.scaler = GradScaler("cpu", init_scale=1024.0)
    for one in (plain, scaled):
        torch.manual_seed(1)
        one.learn(ROWS, images(), 0.01, 0, None, 0.0)
    for a, b in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_overflow_that_no_scale_cures_is_not_hidden() -> None:
    one = tiny_learner()
    one.scaler = GradScaler("cpu", init_scale=1.0)
    one.criterion = lambda *given: (given[0] - given[0].detach()).square().sum().sqrt()
    assert not one.learn(ROWS, images(), 0.01, 0, None, 0.0).updated
    with pytest.raises(NotFiniteError, match="the gradient became"):
        one.learn(ROWS, images(), 0.01, 0, None, 0.0)


def test_precision_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, model = torch.device("cpu"), Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=48)), 2)
    assert [torch_precision(name, cpu, model) for name in ("fp32", "bf16")] == ["fp32", "bf16"]  # type: ignore[arg-type]
    monkeypatch.setattr("classify.compute.bf16_pays", lambda *_: True)
    assert torch_precision("auto", cpu, model) == "bf16"
    monkeypatch.setattr("classify.compute.bf16_pays", lambda *_: False)
    assert torch_precision("auto", cpu, model) == "fp32"
    assert torch_precision("fp16", torch.device("cuda"), model) == "fp16"
    with pytest.raises(
        ConfigError, match="precision: fp16 needs a CUDA device, got cpu; set precision to bf16 or fp32"
    ):
        torch_precision("fp16", cpu, model)
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast(cpu, name):  # type: ignore[arg-type]
            assert layer(x).dtype == dtype


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean_teacher": {"weight": 1}}, "mean_teacher: .*the teacher is the average of the weights; set ema.decay"),
        (
            {"second_phase": {"epochs": 1, "child_mask": False}, "hierarchy": "minimum"},
            "second_phase: .*drops the mask of hierarchy conditional",
        ),
        (
            {"second_phase": {"epochs": 1, "child_mask": False}, "early_stop": {"metric": "val_loss"}},
            "second_phase: .*val_loss counts other labels than in the first phase",
        ),
        ({"precision": "fp8"}, "precision: .*'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        validate(TrainConfig, {"data": "d", "out": "o"} | given)


def test_settings_that_fit_are_taken() -> None:
    given = {"mean_teacher": {"weight": 1}, "ema": {"decay": 0.99}, "second_phase": {"epochs": 1, "child_mask": False}}
    assert validate(TrainConfig, {"data": "d", "out": "o"} | given).mean_teacher == MeanTeacherConfig(weight=1)
