"""A sheet of small square charts, one a finding, as one SVG file in the report's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eval.curves import Point, thinned
from eval.report.charts import figure_axis
from weakray.pages.axes import Axis, Tick
from weakray.pages.rendering import template

_SIDE = 168.0  # of a chart's square, px
_LEFT, _TOP, _RIGHT, _BOTTOM = 44.0, 46.0, 14.0, 44.0  # around it
_MARGIN, _HEAD, _COLUMNS = 18.0, 66.0, 4
_STEP = 0.5 / _SIDE  # half a pixel
_NAME_LETTERS = 24  # what fits over a chart; a longer name is cut, and stands in full under the pointer
_DOT = 7.0  # px: radius of a dot that stands for all images


@dataclass(frozen=True)
class Curve:
    """A line in a chart.

    Attributes:
        name: as the legend calls it; lines of one name share a colour.
        points: x and y in [0, 1].
        colour: 0…5 in the report's palette; None for a thin grey line behind the others.
        shares: the share of images that each point stands for, drawn as a dot's area; None for no dots.
    """

    name: str
    points: Sequence[Point]
    colour: int | None
    shares: Sequence[float] | None = None


@dataclass(frozen=True)
class Chart:
    """One small chart.

    Attributes:
        title: what it is of.
        told: its figures, in a line under the title.
        curves: what is drawn; none where nothing can be.
        reference: a dashed line from one point to another: what knows nothing, or is perfect.
    """

    title: str
    told: str
    curves: Sequence[Curve]
    reference: tuple[Point, Point] | None


@dataclass(frozen=True)
class _Drawn:
    points: str
    colour: int | None
    dots: list[tuple[float, float, float]]  # x, y, radius, px


@dataclass(frozen=True)
class _Placed:
    x: float
    y: float
    title: str
    name: str  # the title, cut to the room over the chart
    told: str
    curves: list[_Drawn]
    reference: tuple[float, float, float, float] | None


def sheet(title: str, x_title: str, y_title: str, charts: Sequence[Chart]) -> str:
    """The SVG of a sheet; the same charts give the same text.

    Args:
        title: heading of the sheet.
        x_title: what x is, in every chart.
        y_title: what y is.
        charts: at least one, drawn in rows of four.
    """
    x_axis, x_ticks = figure_axis(1.0, _LEFT, _LEFT + _SIDE)
    y_axis, y_ticks = figure_axis(1.0, _TOP + _SIDE, _TOP)
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    columns = min(_COLUMNS, len(charts))
    placed = [
        _place(chart, (_MARGIN + i % columns * width, _HEAD + i // columns * height), x_axis, y_axis)
        for i, chart in enumerate(charts)
    ]
    keys = {curve.name: curve.colour for chart in charts for curve in chart.curves}
    return template("eval.report", "sheet.svg.j2").render(
        title=title,
        x_title=x_title,
        y_title=y_title,
        width=2 * _MARGIN + columns * width,
        height=_HEAD + math.ceil(len(charts) / columns) * height,
        left=_LEFT,
        top=_TOP,
        side=_SIDE,
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        keys=_legend(keys),
        charts=placed,
    )


def _place(chart: Chart, at: Point, x_axis: Axis, y_axis: Axis) -> _Placed:
    def on(point: Point) -> tuple[float, float]:
        return x_axis.at(point[0]), y_axis.at(point[1])

    curves = [
        _Drawn(
            points=" ".join(f"{x:g},{y:g}" for x, y in map(on, thinned(curve.points, _STEP))),
            colour=curve.colour,
            dots=[
                (*on(point), round(max(1.2, _DOT * math.sqrt(share)), 1))
                for point, share in zip(curve.points, curve.shares or (), strict=curve.shares is not None)
            ],
        )
        for curve in sorted(chart.curves, key=lambda curve: curve.colour is not None)
    ]
    line = None if chart.reference is None else (*on(chart.reference[0]), *on(chart.reference[1]))
    title = chart.title
    name = title if len(title) <= _NAME_LETTERS else title[: _NAME_LETTERS - 1].rstrip() + "…"
    return _Placed(*at, title, name, chart.told, curves, line)


def _legend(keys: dict[str, int | None]) -> list[tuple[Tick, int | None]]:
    at, placed = _MARGIN, list[tuple[Tick, int | None]]()
    for name, colour in keys.items():
        placed.append((Tick(at, name), colour))
        at += 34 + 7.0 * len(name)
    return placed
