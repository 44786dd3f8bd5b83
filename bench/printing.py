"""The one form in which a bench answers."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

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


def answer(bench: str, rows: Sequence[Row]) -> None:
    """Prints the JSON object."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"bench": bench, "commit": commit(), "machine": machine, "rows": [asdict(row) for row in rows]}))
