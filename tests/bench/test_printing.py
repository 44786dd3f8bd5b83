from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench.printing import KeptRows, Row, paired, plain, shown, side_by_side
from eval.intervals import Interval
from weakray.runs import commit


def test_speeds_measured_in_turn_by_hand() -> None:
    row = side_by_side("train/x/vs-y", [10.0, 30.0, 22.0], [5.0, 10.0, 20.0], "images/s")
    assert (row.case, row.unit, row.runs) == ("train/x/vs-y", "images/s", 3)
    assert [row.ours, row.peer, row.ratio] == pytest.approx([22.0, 10.0, 2.2])  # medians
    assert [row.low, row.high] == pytest.approx([1.1, 3.0])  # 22 / 20 and 30 / 10


def test_rows_are_kept_when_they_are_measured_and_found_again(tmp_path: Path) -> None:
    path, measured = tmp_path / "rows.jsonl", list[str]()

    def row(case: str) -> Row:
        measured.append(case)
        return Row(case, 2.0, 1.0, "images/s", 2.0, 1.5, 2.5, 3)

    first = KeptRows(path)
    assert first.get("a", lambda: row("a")) == first.get("a", lambda: row("never")) == row("a")
    again = KeptRows(path)
    assert again.get("a", lambda: row("never")).ratio == 2.0
    again.get("b", lambda: row("b"))
    assert measured == ["a", "a", "b"]
    assert [json.loads(line)["row"]["case"] for line in path.read_text().splitlines()] == ["a", "b"]
    assert again.commits == first.commits == commit()


def test_a_ratio_keeps_its_interval_and_is_finite_where_the_peer_finds_nothing() -> None:
    row = paired("ap50/x/vs-y", 0.5, 0.4, "AP50", Interval(1.25, 1.1, 1.5), 3)
    assert (row.ours, row.peer, row.ratio, row.low, row.high, row.runs) == (0.5, 0.4, 1.25, 1.1, 1.5, 3)
    alone = paired("ap50/x/vs-y", 0.5, 0.0, "AP50", Interval(math.nan, math.nan, math.nan, 3), 1)
    assert [alone.ratio, alone.low, alone.high] == pytest.approx([0.5e9] * 3)


def test_intervals_in_tables_and_in_json() -> None:
    interval = Interval(0.25, -0.0625, 0.5)
    assert plain(interval) == {"value": 0.25, "low": -0.0625, "high": 0.5}
    assert plain(Interval(0.25, math.nan, math.nan, 2)) is None
    assert shown(plain(interval), sign=True) == "+0.250 [-0.062, +0.500]"
    assert shown(None) == "–"
