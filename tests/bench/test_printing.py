from __future__ import annotations

import pytest

from bench.printing import side_by_side


def test_speeds_measured_in_turn_by_hand() -> None:
    row = side_by_side("train/x/vs-y", [10.0, 30.0, 22.0], [5.0, 10.0, 20.0], "images/s")
    assert (row.case, row.unit, row.runs) == ("train/x/vs-y", "images/s", 3)
    assert [row.ours, row.peer, row.ratio] == pytest.approx([22.0, 10.0, 2.2])  # medians
    assert [row.low, row.high] == pytest.approx([1.1, 3.0])  # 22 / 20 and 30 / 10
