"""The one form in which a bench answers."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eval.intervals import Interval
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


def paired(case: str, ours: float, peer: float, unit: str, ratio: Interval, runs: int) -> Row:
    """Figures of the same images; their ratio with its interval, which is undefined where the peer's figure is 0."""
    ends = ratio.value, ratio.low, ratio.high
    if not all(map(math.isfinite, ends)):
        ends = (ours / max(peer, 1e-9),) * 3
    return Row(case, ours, peer, unit, *ends, runs)


def plain(interval: Interval) -> dict[str, float] | None:
    """As JSON holds it; None where it is undefined."""
    finite = all(map(math.isfinite, (interval.value, interval.low, interval.high)))
    return interval.to_dict() if finite else None


def shown(interval: Mapping[str, float] | None, *, sign: bool = False) -> str:
    """A figure with its interval, in a table; a dash where it is undefined."""
    if interval is None:
        return "–"
    value, low, high = (f"{interval[end]:{'+' if sign else ''}.3f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def answer(bench: str, rows: Sequence[Row], commits: str | None = None) -> None:
    """Prints the JSON object; `commits` where the rows are not all of the code that stands here."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    told = {"bench": bench, "commit": commits or commit(), "machine": machine, "rows": [asdict(row) for row in rows]}
    print(json.dumps(told))
