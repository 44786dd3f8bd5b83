from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.printing import KeptRows, Row, side_by_side
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
