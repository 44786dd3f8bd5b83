"""The points of the curve: finished cells, pooled over seeds, as rows, as a table and as a picture.

A cell's file alone is enough: it holds its AP50 on every bootstrap draw of patients, and cells of one seed share the
draws. Intervals tell of the films that are scored, not of the chance in the films and steps of a training: for that,
`curve.json` has each seed's own difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from bench.pooling import Draws, Figure
from bench.printing import Row, paired, plain, shown
from eval.intervals import Comparison
from weakray.config import StrictModel
from weakray.errors import DataError
from weakray.files import replacing

Kind = Literal["weak", "few_shot", "ceiling"]
Drawn = Literal["weak", "few_shot"]


class Cell(NamedTuple):
    """One detector of one seed, taught or guided by so many annotated images."""

    seed: int
    kind: Kind
    annotated: int

    @property
    def name(self) -> str:
        """`seed1-weak-025`, `seed1-ceiling`."""
        return f"seed{self.seed}-{self.kind}" + ("" if self.kind == "ceiling" else f"-{self.annotated:03d}")


class CellScores(StrictModel):
    """A finished cell's file."""

    cell: str = Field(description="name of the cell")
    seed: int = Field(description="of the phantom, and of the bootstrap")
    kind: Kind = Field(description="which detector")
    annotated: int = Field(description="annotated images, those of the ceiling included")
    ap30: dict[str, float] = Field(description="on test: value, low and high, by bootstrap over patients")
    ap50: dict[str, float] = Field(description="likewise")
    map: dict[str, float] = Field(description="likewise")
    per_finding: dict[str, dict[str, int | float]] = Field(description="finding → AP30, AP50, mAP, and its true boxes")
    errors: dict[str, Any] = Field(description="AP50 that mending one type of error alone would give")
    ap50_draws: Draws = Field(description="AP50 on each draw of patients; null where undefined")
    test_sha256: str = Field(description="names test images and patients: cells with the same have the same draws")
    images: int = Field(description="test images")
    patients: int = Field(description="whose they are")
    steps: int = Field(description="of the detector's training")
    seconds: dict[str, float] = Field(description="wall time of each stage, by whichever cell ran it")
    commit: str = Field(description="the code that scored it")
    machine: str = Field(description="processor and cores")
    settings_sha256: str = Field(description="hash of the settings that the figures depend on")
    boxes: str = Field(description="the boxes, in the folder of the curve's run")

    @property
    def figure(self) -> Figure:
        """AP50 with its draws."""
        return Figure.of(self.ap50["value"], self.ap50_draws)


@dataclass(frozen=True, eq=False)
class Point:
    """Figures with so many annotated images, over the seeds that have all cells of the point."""

    annotated: int
    seeds: tuple[int, ...]
    weak: Figure
    few_shot: Figure
    ceiling: Figure


def points(cells: Mapping[str, CellScores], seeds: Sequence[int], annotated: Sequence[int]) -> list[Point]:
    """The points of which at least one seed has all cells; without an annotated image few-shot's AP50 is 0.

    Args:
        cells: name → finished cell.
        seeds: to pool.
        annotated: numbers of annotated images.

    Raises:
        DataError: if cells of one seed were scored on different films or draws.
    """
    found = []
    for images in annotated:
        rows: dict[int, dict[Kind, CellScores]] = {}
        for seed in seeds:
            kinds: list[Kind] = ["weak", "few_shot", "ceiling"] if images else ["weak", "ceiling"]
            own = {kind: cells.get(Cell(seed, kind, images).name) for kind in kinds}
            here = {kind: cell for kind, cell in own.items() if cell is not None}
            if len(here) == len(kinds):
                _check(list(here.values()))
                rows[seed] = here
        if rows:
            figures = {kind: Figure.mean(row[kind].figure for row in rows.values()) for kind in kinds}
            nothing = Figure(0.0, np.zeros_like(figures["weak"].drawn))
            few_shot = figures.get("few_shot", nothing)
            found.append(Point(images, tuple(rows), figures["weak"], few_shot, figures["ceiling"]))
    return found


def _check(cells: Sequence[CellScores]) -> None:
    first = cells[0]
    for cell in cells[1:]:
        if (cell.test_sha256, len(cell.ap50_draws)) != (first.test_sha256, len(first.ap50_draws)):
            raise DataError(
                f"{first.cell} and {cell.cell}: expected the same test films and bootstrap draws, got different ones; "
                "remove the file of the one that is out of date, and make it again"
            )


def rows_of(found: Sequence[Point]) -> list[Row]:
    """What the bench prints. Recovered fractions have the ceiling as their peer; few-shot has none without an image."""
    rows = []
    for point in found:
        case, runs = f"annotated-{point.annotated}", len(point.seeds)
        top = point.ceiling.value
        for name, own in _detectors(point).items():
            what = "recovered" if name == "weak" else "recovered-few-shot"
            rows.append(paired(f"{what}/{case}/vs-ceiling", own.value, top, "AP50", own.over(point.ceiling), runs))
        if point.annotated:
            ours, peer = (own.value / max(top, 1e-9) for own in (point.weak, point.few_shot))
            ratio = point.weak.over(point.few_shot)
            rows.append(paired(f"recovered/{case}/vs-few-shot", ours, peer, "of the ceiling's AP50", ratio, runs))
    return rows


def told(cells: Mapping[str, CellScores], found: Sequence[Point]) -> list[dict[str, Any]]:
    """The points as `curve.json` holds them: each seed's own figures too."""
    content = []
    for point in found:
        each = {seed: points(cells, [seed], [point.annotated])[0] for seed in point.seeds}
        content.append(
            {
                "annotated": point.annotated,
                "seeds": list(point.seeds),
                **_figures(point),
                "per_seed": {str(seed): _figures(own) for seed, own in each.items()},
            }
        )
    return content


def _figures(point: Point) -> dict[str, Any]:
    difference = point.weak.less(point.few_shot)
    return {
        **{
            name: {"ap50": plain(own.interval), "recovered": plain(own.over(point.ceiling))}
            for name, own in _detectors(point).items()
        },
        "ceiling": {"ap50": plain(point.ceiling.interval)},
        "difference": plain(difference.interval),
        "verdict": verdict(difference),
    }


def _detectors(point: Point) -> dict[str, Figure]:
    return {"weak": point.weak} | ({"few_shot": point.few_shot} if point.annotated else {})


def verdict(difference: Comparison) -> Literal["better", "tie", "worse"]:
    """Ours against few-shot's."""
    if difference.tie or not math.isfinite(difference.interval.low):
        return "tie"
    return "better" if difference.interval.value > 0 else "worse"


def as_markdown(content: Sequence[Mapping[str, Any]]) -> str:
    """What `told` gives, as a table."""
    lines = [
        "| annotated images | seeds | weak, recovered | few-shot, recovered | AP50, weak less few-shot | |",
        "|---|---|---|---|---|---|",
    ]
    for point in content:
        weak, few = (shown((point.get(kind) or {}).get("recovered")) for kind in ("weak", "few_shot"))
        few = few if point["annotated"] else "0, by definition"
        seeds = ", ".join(map(str, point["seeds"]))
        difference = shown(point["difference"], sign=True)
        lines.append(f"| {point['annotated']} | {seeds} | {weak} | {few} | {difference} | {point['verdict']} |")
    return "\n".join(lines) + "\n"


def draw(content: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A PNG: recovered fraction against annotated images, with intervals; a point that is undefined is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    sheet = Sheet(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(sheet)
    axes = sheet.subplots()
    lines: tuple[tuple[Drawn, str, str], ...] = (("weak", "weak", "#2a6f97"), ("few_shot", "few-shot", "#d1495b"))
    for kind, label, colour in lines:
        xs, ys = recovered(content, kind)
        if xs:
            value, low, high = zip(*ys, strict=True)
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, value, color=colour, linewidth=1.6, marker="o", markersize=4, label=label)
    axes.set_xlabel("annotated images", fontsize=9)
    axes.set_ylabel("AP50 over the fully supervised detector's", fontsize=9)
    axes.set_xticks([point["annotated"] for point in content])
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8, length=0)
    axes.grid(color="#eceff1", linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    if axes.get_lines():
        axes.legend(fontsize=8, frameon=False)
    with replacing(path) as temporary:
        sheet.savefig(temporary, format="png")


def recovered(content: Sequence[Mapping[str, Any]], kind: Drawn) -> tuple[list[int], list[tuple[float, float, float]]]:
    """One detector's line: annotated images, and value, low and high of its recovered fraction."""
    line: list[tuple[int, tuple[float, float, float]]] = []
    for point in content:
        of_kind = point.get(kind)
        if of_kind is None:  # few-shot without an annotated image
            line.append((point["annotated"], (0.0, 0.0, 0.0)))
        elif of_kind["recovered"] is not None:
            interval = of_kind["recovered"]
            line.append((point["annotated"], (interval["value"], interval["low"], interval["high"])))
    return [images for images, _ in line], [ends for _, ends in line]
