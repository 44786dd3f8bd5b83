from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as peers

from classify.optimizer import scaled_rate
from classify.schedule import ScheduleConfig, after_epoch, learning_rate, one_cycle

PEAK, PER_EPOCH = 0.02, 6


def rates_of(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """A torch scheduler's rates, a step each."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.3), (7, 0.5), (12, 0.25), (100, 0.05)])
def test_one_cycle_is_torchs(steps: int, warmup: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.02, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )
    for step in range(steps):
        assert one_cycle(step, steps, 0.02, warmup) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        if step < steps - 1:
            optimizer.step()
            schedule.step()


def test_one_cycle_of_few_steps_and_odd_fractions_stays_between_its_bounds() -> None:
    for steps in (1, 2, 3, 5):
        for warmup in (0.0, 0.2, 0.5, 1.0):
            rates = [one_cycle(step, steps, 1.0, warmup) for step in range(steps)]
            assert all(1 / 25 / 1e4 - 1e-12 <= rate <= 1 + 1e-12 for rate in rates), (steps, warmup, rates)


def sequential(optimizer: torch.optim.Optimizer, parts: Sequence[Any], at: int) -> Any:
    return peers.SequentialLR(optimizer, list(parts), milestones=[at])


def warmup_then_cosine(o: torch.optim.Optimizer) -> Any:
    rising = peers.LinearLR(o, start_factor=1 / 11, total_iters=10)  # 10 = a quarter of 40
    return sequential(o, [rising, peers.CosineAnnealingLR(o, T_max=29, eta_min=PEAK * 0.05)], 10)


@pytest.mark.parametrize(
    ("settings", "peer"),
    [
        ({"name": "constant"}, lambda o: peers.ConstantLR(o, factor=1.0)),
        ({"name": "cosine"}, lambda o: peers.CosineAnnealingLR(o, T_max=39, eta_min=PEAK * 0.05)),
        (
            {"name": "cosine_restarts", "cycle_epochs": 1, "cycle_growth": 2},
            lambda o: peers.CosineAnnealingWarmRestarts(o, T_0=6, T_mult=2, eta_min=PEAK * 0.05),
        ),
        (
            {"name": "cosine_restarts", "cycle_epochs": 2},
            lambda o: peers.CosineAnnealingWarmRestarts(o, T_0=12, eta_min=PEAK * 0.05),
        ),
        *(
            (
                {"name": name, "cycle_epochs": 10 / 6},
                lambda o, name=name: peers.CyclicLR(
                    o, PEAK * 0.05, PEAK, step_size_up=5, mode=name, cycle_momentum=False
                ),
            )
            for name in ("triangular", "triangular2")
        ),
        ({"name": "step", "drop_epochs": 2, "drop_factor": 0.3}, lambda o: peers.StepLR(o, 12, gamma=0.3)),
        ({"name": "warmup_cosine", "warmup_fraction": 0.25}, warmup_then_cosine),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_each_course_is_torchs(settings: dict[str, Any], peer: Callable[[torch.optim.Optimizer], Any]) -> None:
    config = ScheduleConfig(lowest_fraction=0.05, **settings)
    mine = [learning_rate(config, PEAK, step, 40, PER_EPOCH) for step in range(40)]
    # torch's closed forms and chained products differ in the last digits
    assert mine == pytest.approx(rates_of(peer, 40), rel=1e-6, abs=1e-9)


def test_by_hand() -> None:
    def rates(steps: int, **settings: Any) -> list[float]:
        config = ScheduleConfig(lowest_fraction=0.1, **settings)
        return [learning_rate(config, 1.0, step, steps, 2) for step in range(steps)]

    assert rates(3, name="cosine") == pytest.approx([1.0, 0.55, 0.1])
    assert rates(6, name="triangular", cycle_epochs=2) == pytest.approx([0.1, 0.55, 1.0, 0.55, 0.1, 0.55])
    assert rates(8, name="triangular2", cycle_epochs=2)[6] == pytest.approx(0.55)
    assert rates(4, name="step", drop_epochs=1, drop_factor=0.5) == [1.0, 1.0, 0.5, 0.5]
    assert rates(4, name="warmup_cosine", warmup_fraction=0.5) == pytest.approx([1 / 3, 2 / 3, 1.0, 0.1])
    assert rates(1, name="cosine") == [1.0]
    assert rates(1, name="warmup_cosine", warmup_fraction=1.0) == [0.5]


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_plateau_is_torchs(patience: int) -> None:
    scores = [0.5, 0.6, 0.6, 0.55, 0.58, 0.59, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    config = ScheduleConfig(name="plateau", patience_epochs=patience, drop_factor=0.5, lowest_fraction=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    peer = peers.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience, threshold=0.0, min_lr=PEAK * 0.1
    )
    waited, drops, best = 0, 0, float("-inf")
    mine, theirs = [], []
    for epoch, score in enumerate(scores):
        waited, drops = after_epoch(config, waited, drops, score > best)
        best = max(best, score)
        peer.step(score)
        mine.append(learning_rate(config, PEAK, 6 * epoch, 78, PER_EPOCH, drops))
        theirs.append(optimizer.param_groups[0]["lr"])
    assert mine == pytest.approx(theirs, rel=1e-12)
    assert mine[0] == PEAK > mine[-1]


def test_the_peak_grows_with_the_images_of_a_step() -> None:
    assert scaled_rate(0.1, None, 64) == 0.1
    assert scaled_rate(0.1, 256, 256) == 0.1
    assert scaled_rate(0.1, 256, 512) == pytest.approx(0.2)
