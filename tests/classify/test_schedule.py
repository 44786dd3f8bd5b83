from __future__ import annotations

import pytest
import torch

from classify.schedule import one_cycle


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
