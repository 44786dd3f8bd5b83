from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from classify.optimizer import OptimizerConfig, OptimizerName, make_optimizer
from weakray.config import validate
from weakray.errors import ConfigError


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 3, 3), torch.nn.Tanh(), torch.nn.Conv2d(3, 1, 1)
    )


def steps(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.rand(3, 2, 5, 7, generator=random)).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize(
    ("settings", "peer", "its"),
    [
        ({"name": "adamw", "beta1": 0.8}, torch.optim.AdamW, {"betas": (0.8, 0.999)}),
        ({"name": "adam", "beta2": 0.9}, torch.optim.Adam, {"betas": (0.9, 0.9)}),
        ({"name": "sgd", "momentum": 0.7}, torch.optim.SGD, {"momentum": 0.7}),
        ({"name": "sgd", "momentum": 0.0}, torch.optim.SGD, {}),
        ({"name": "nesterov"}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ({"name": "adamax", "beta1": 0.8}, torch.optim.Adamax, {"betas": (0.8, 0.999)}),
        ({"name": "rmsprop", "smoothing": 0.9}, torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.9}),
        ({"name": "adagrad"}, torch.optim.Adagrad, {}),
    ],
    ids=lambda value: str(value.get("name", "")) if isinstance(value, dict) else "",
)
def test_each_is_torchs_with_its_settings(settings: dict[str, Any], peer: Any, its: dict[str, Any]) -> None:
    config = OptimizerConfig(lr=0.01, weight_decay=0.1, **settings)
    mine, theirs = model(), model()
    flat = [p for p in theirs.parameters() if p.ndim == 1]
    deep = [p for p in theirs.parameters() if p.ndim > 1]
    other = peer([{"params": flat, "weight_decay": 0.0}, {"params": deep, "weight_decay": 0.1}], lr=0.01, **its)
    for a, b in zip(steps(mine, make_optimizer(mine, config)), steps(theirs, other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_biases_and_norms_do_not_decay_and_frozen_parameters_stay_out(name: OptimizerName) -> None:
    net = model()
    net[1].requires_grad_(False)
    groups = make_optimizer(net, OptimizerConfig(name=name)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.01]
    assert [len(group["params"]) for group in groups] == [3, 1]
    assert groups[1]["params"][0] is net[3].weight


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer.momentum: .*nesterov looks ahead along its momentum"):
        validate(OptimizerConfig, {"name": "nesterov", "momentum": 0}, "optimizer")
