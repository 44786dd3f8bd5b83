"""The one form in which a bench answers."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from weakray.runs import commit


@dataclass(frozen=True)
class Row:
    """A measurement: ours against the peer's or a limit's.

    Attributes:
        case: `WHAT/MODEL/HEAD/vs-PEER`, or `…/vs-limit`.
        ours: our figure.
        peer: the peer's figure, or the limit.
        unit: of both.
        ratio: over 1 is better than the peer; against a limit the fraction reached.
        low: end of the ratio's spread.
        high: other end.
        runs: how many runs the figures come from.
    """

    case: str
    ours: float
    peer: float
    unit: str
    ratio: float
    low: float
    high: float
    runs: int


def at_least(case: str, value: float, limit: float, unit: str, ends: tuple[float, float] | None = None) -> Row:
    """A figure that should reach a limit; `ends` are its interval."""
    low, high = ends or (value, value)
    return Row(f"{case}/vs-limit", value, limit, unit, value / limit, low / limit, high / limit, 1)


def at_most(case: str, value: float, limit: float, unit: str, ends: tuple[float, float] | None = None) -> Row:
    """A figure that should stay below a limit; `ends` are its interval."""
    low, high = ends or (value, value)
    ratio, least, most = (limit / max(each, 1e-9) for each in (value, high, low))
    return Row(f"{case}/vs-limit", value, limit, unit, ratio, least, most, 1)


def side_by_side(case: str, ours: Sequence[float], peers: Sequence[float], unit: str) -> Row:
    """Speeds measured in turn: medians and their ratio, and the least and largest ratio of one turn."""
    mine, other = statistics.median(ours), statistics.median(peers)
    ratios = [own / peer for own, peer in zip(ours, peers, strict=True)]
    return Row(case, mine, other, unit, mine / other, min(ratios), max(ratios), len(ratios))


class KeptRows:
    """Rows by case; with a file, each is kept there when it is measured and found there when the bench runs again.

    Args:
        path: the file, a JSON object a line; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = [] if path is None or not path.is_file() else path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        self._rows = {each["row"]["case"]: Row(**each["row"]) for each in found}
        self._commits = {each["commit"] for each in found}

    def get(self, case: str, measure: Callable[[], Row]) -> Row:
        """The row of a case, measured unless it was kept."""
        if case not in self._rows:
            row = self._rows[case] = measure()
            self._commits.add(commit())
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"commit": commit(), "row": asdict(row)}) + "\n")
        return self._rows[case]

    @property
    def commits(self) -> str:
        """Of the code that the rows were measured with."""
        return " ".join(sorted(self._commits))


def answer(bench: str, rows: Sequence[Row], commits: str | None = None) -> None:
    """Prints the JSON object; `commits` where the rows are not all of the code that stands here."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    told = {"bench": bench, "commit": commits or commit(), "machine": machine, "rows": [asdict(row) for row in rows]}
    print(json.dumps(told))
