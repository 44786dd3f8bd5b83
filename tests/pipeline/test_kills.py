"""Twenty kills at random moments: too long for `make test`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.conftest import MICRO, finish, kill_when, summary_of


def after(seconds: float) -> Callable[[], bool]:
    """True from so many seconds on."""
    stop = time.monotonic() + seconds
    return lambda: time.monotonic() >= stop


@pytest.mark.soak
def test_killed_at_twenty_random_moments_it_ends_with_the_same_summary(micro: Path, tmp_path: Path) -> None:
    rng = random.Random(20)  # noqa: S311
    out = tmp_path / "run"
    words = ("run", str(MICRO), "--out", str(out))
    kills = 0
    while kills < 20:
        # a stage's first seconds go by with imports, so waits are long enough to get somewhere
        if kill_when(after(rng.uniform(4, 20)), *words):
            kills += 1
        else:  # it came to its end: begin again
            assert summary_of(out) == summary_of(micro)
            out = out.with_name(f"run{kills}")
            words = ("run", str(MICRO), "--out", str(out))
    finish(*words)
    assert summary_of(out) == summary_of(micro)
