"""The tables of the report's section on errors: what each source of boxes still gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.box_errors import ERROR_TYPES
from eval.report.charts import figure_axis
from eval.report.sources import Source, scored_sources
from eval.report.tables import PAD_PX, Cell, Shade, figure_cell, shade
from eval.report.wording import Estimate
from weakray.pages.axes import Tick

ERROR_BAR_PX = 118.0
TOLD: dict[str, tuple[str, str]] = {
    "class": ("Class", "on a true box of another finding"),
    "location": ("Location", "right finding, overlap of .1 to .5"),
    "both": ("Both", "near another finding’s box"),
    "duplicate": ("Duplicate", "a second box on a box already found"),
    "background": ("Background", "on nothing"),
    "missed": ("Missed", "a true box that no box is about"),
}
_LOOKED_AT = ("weak_detector", "recipe")  # whose findings are told one by one: the first of these that was scored


@dataclass(frozen=True)
class ErrorRow:
    """A finding's dAP50 of each type."""

    name: str
    shades: list[Shade]


@dataclass(frozen=True)
class ErrorTable:
    """Sources × types of error, dAP50 on one common axis; and one source's findings × types.

    Attributes:
        kinds: heading and explanation of each type.
        sources: the rows.
        cells: their figures.
        ticks: of the common axis.
        of: the source whose findings follow; None where neither weak detector nor recipe was scored.
        rows: its findings.
    """

    kinds: list[tuple[str, str]]
    sources: list[Source]
    cells: list[list[Cell]]
    ticks: list[Tick]
    of: Source | None
    rows: list[ErrorRow]


def errors_by_source(summary: Mapping[str, Any]) -> ErrorTable | None:
    """The section's tables; None where no source's errors were split."""
    scores: Mapping[str, Any] = summary.get("scores", {})
    sources = [source for source in scored_sources(summary) if "errors" in scores[source.key]]
    if not sources:
        return None
    read = [[Estimate.read(scores[source.key]["errors"][kind]) for kind in ERROR_TYPES] for source in sources]
    axis, ticks = figure_axis(max(e.high for row in read for e in row), PAD_PX, ERROR_BAR_PX - PAD_PX)
    by_key = {source.key: source for source in sources}
    of = next((by_key[key] for key in _LOOKED_AT if key in by_key), None)
    rows: list[ErrorRow] = []
    if of is not None:
        per_finding: Mapping[str, Mapping[str, float]] = scores[of.key]["errors"]["per_finding"]
        rows = [ErrorRow(name, [shade(gains[kind]) for kind in ERROR_TYPES]) for name, gains in per_finding.items()]
    cells = [[figure_cell(estimate, axis) for estimate in row] for row in read]
    return ErrorTable([TOLD[kind] for kind in ERROR_TYPES], sources, cells, ticks, of, rows)
