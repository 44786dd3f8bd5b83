"""Candidates on the same held-out images: how many rounds each goes, which is best, and which is simple enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.average_precision import Matches
from eval.box_scores import compare_boxes, macro_intervals
from eval.intervals import Comparison, Interval, PatientDraws


@dataclass(frozen=True)
class Candidate:
    """A way to teach a detector.

    Attributes:
        name: what it is called.
        steps: of the optimizer, up to the end of each round.
        rounds: the boxes found on all tune images after each round, each by a detector that had not seen its patient.
    """

    name: str
    steps: tuple[int, ...]
    rounds: tuple[Matches, ...]


@dataclass(frozen=True)
class Row:
    """A candidate's figures.

    Attributes:
        name: the candidate's.
        steps: up to the end of each round.
        ap30: after each round.
        ap50: after each round.
        kept: rounds after the first that it should go; see `rounds_that_raise`.
        against_best: its AP50 after so many, less that of the best candidate; None for the best.
    """

    name: str
    steps: tuple[int, ...]
    ap30: tuple[Interval, ...]
    ap50: tuple[Interval, ...]
    kept: int
    against_best: Comparison | None

    @property
    def not_worse(self) -> bool:
        """Whether chance alone may put it below the best."""
        return self.against_best is None or self.against_best.interval.high >= 0


@dataclass(frozen=True)
class Choice:
    """The candidates, in their order, the best of them and the chosen one."""

    rows: tuple[Row, ...]
    best: Row
    chosen: Row

    def to_dict(self) -> dict[str, Any]:
        """All figures, for `choice.json`."""
        return {
            "candidates": [
                {
                    "name": row.name,
                    "rounds": [
                        {"round": i, "steps": steps, "ap30": ap30.to_dict(), "ap50": ap50.to_dict()}
                        for i, (steps, ap30, ap50) in enumerate(zip(row.steps, row.ap30, row.ap50, strict=True))
                    ],
                    "kept_round": row.kept,
                    "against_best": None
                    if row.against_best is None
                    else {**row.against_best.interval.to_dict(), "tie": row.against_best.tie},
                }
                for row in self.rows
            ],
            "best": self.best.name,
            "chosen": self.chosen.name,
        }


def choose(candidates: Sequence[Candidate], drawn: PatientDraws) -> Choice:
    """The first candidate that is not worse than the best by more than chance.

    Args:
        candidates: from simple to elaborate, all matched with the same truth.
        drawn: bootstrap draws of its patients.

    Raises:
        DataError: if no finding has a true box, or the candidates were matched with different truths.
    """
    intervals = [[macro_intervals(matches, drawn) for matches in one.rounds] for one in candidates]
    ap50 = [tuple(of_round["ap50"] for of_round in rounds) for rounds in intervals]
    kept = [rounds_that_raise([interval.value for interval in own]) for own in ap50]
    at = [own[number].value for own, number in zip(ap50, kept, strict=True)]
    best = at.index(max(at))
    rows = []
    for index, one in enumerate(candidates):
        against = None
        if index != best:
            against = compare_boxes(one.rounds[kept[index]], candidates[best].rounds[kept[best]], drawn, "ap50")
        ap30 = tuple(of_round["ap30"] for of_round in intervals[index])
        rows.append(Row(one.name, one.steps, ap30, ap50[index], kept[index], against))
    return Choice(tuple(rows), rows[best], next(row for row in rows if row.not_worse))


def rounds_that_raise(values: Sequence[float]) -> int:
    """How many rounds after the first raise a figure, one after the other; what comes after a fall does not count."""
    number = 0
    while number + 1 < len(values) and values[number + 1] > values[number]:
        number += 1
    return number


def as_markdown(choice: Choice, folds: int, images: int, patients: int) -> str:
    """The table to read, and what follows from it."""
    lines = [
        "# How to teach the detector",
        "",
        f"Average precision on {images} tune images of {patients} patients, each scored by a detector that had not",
        f"seen its patient ({folds} folds, boxes pooled), with 95 % intervals by bootstrap over patients.",
        "",
        "| candidate | rounds | steps | AP30 | AP50 | AP50 less the best one's |",
        "|---|---|---|---|---|---|",
    ]
    for row in choice.rows:
        for number, steps in enumerate(row.steps):
            kept = number == row.kept
            mark = "**" if kept and row is choice.chosen else ""
            against = _against(row) if kept else "not kept"
            figures = f"{_told(row.ap30[number])} | {_told(row.ap50[number])}"
            lines.append(f"| {mark}{row.name}{mark} | {number} | {steps} | {figures} | {against} |")
    chosen = choice.chosen
    why = (
        "it has the highest AP50, and none that is simpler ties with it"
        if chosen is choice.best
        else f"the simplest that is not worse than `{choice.best.name}` by more than chance"
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Chosen: `{chosen.name}` with {chosen.kept} rounds after the first: {why}.",
            "A candidate goes as many rounds as its AP50 rises, one after the other.",
            "",
            "The pseudo-boxes' recipe was fitted on all of tune, which flatters what learns from them a little; and",
            "the highest of several figures is no figure to report. Test was not looked at.",
            "",
        ]
    )


def _told(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _against(row: Row) -> str:
    if row.against_best is None:
        return "the best"
    interval = row.against_best.interval
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]{' tie' if row.against_best.tie else ''}"
