from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from classify.ema import Ema, decay_at
from weakray.stack import silence


def model() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))


def walk(net: torch.nn.Module, seed: int) -> None:
    """Moves weights and running statistics."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=random))
    net(torch.rand(2, 2, 5, 7, generator=random))


def test_by_hand() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    values = [1.0, 2.0, 5.0]
    ema = Ema(net, 0.75, warmup=False)
    for update, value in enumerate(values):
        torch.nn.init.constant_(net.weight, value)
        ema.update(net, update)
    assert ema.model.weight.item() == 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 5
    assert net.weight.item() == 5
    assert decay_at(0.999, True, 0) == 0
    assert decay_at(0.999, True, 7) == pytest.approx(0.75)
    assert decay_at(0.999, True, 124) == pytest.approx(0.96)
    assert decay_at(0.95, True, 124) == 0.95
    assert decay_at(0.95, False, 1) == 0.95


def test_it_is_torchs_average_buffers_too() -> None:
    net = model()
    ema, peer = (
        Ema(net, 0.9, warmup=False),
        AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    )
    for update in range(4):
        walk(net, update)
        ema.update(net, update)
        peer.update_parameters(net)
    for name, value in peer.module.state_dict().items():
        if value.is_floating_point():  # torch averages counters and cuts them to whole numbers
            torch.testing.assert_close(ema.model.state_dict()[name], value, rtol=0, atol=0)
    assert ema.model[1].num_batches_tracked == 4
    assert not ema.model.training
    assert net.training


def test_the_warmup_is_timms() -> None:
    silence()
    from timm.utils import ModelEmaV3

    net = model()
    ema, peer = Ema(net, 0.7, warmup=True), ModelEmaV3(net, decay=0.7, use_warmup=True)
    for update in range(9):  # the decay reaches 0.7 at update 6
        walk(net, update)
        ema.update(net, update)
        peer.update(net, step=update + 1)
    for name, value in peer.module.state_dict().items():
        torch.testing.assert_close(ema.model.state_dict()[name], value)


def test_the_average_is_a_model_of_its_own() -> None:
    net = model()
    ema = Ema(net, 0.9, warmup=True)
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    walk(net, 0)
    assert not torch.equal(next(ema.model.parameters()), next(net.parameters()))
