"""Geometry of the drawings: where bars, lines, ticks and labels of an inline SVG stand. Templates do the drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.report.wording import Estimate, figure
from weakray.pages.axes import Axis, Tick, nice_step


@dataclass(frozen=True)
class IntervalBar:
    """A figure as a dot, its interval as a line, on an axis that a whole column shares. All in px."""

    value: float
    low: float
    high: float
    zero: float


def interval_bar(estimate: Estimate, axis: Axis) -> IntervalBar:
    """Places an estimate on its column's axis."""
    return IntervalBar(axis.at(estimate.value), axis.at(estimate.low), axis.at(estimate.high), axis.at(axis.low))


def figure_axis(highest: float, start: float, end: float, lowest: float = 0.0) -> tuple[Axis, list[Tick]]:
    """An axis for figures of [0, 1], its ends on ticks, and at most six ticks."""
    step = nice_step(max(highest - lowest, 0.02), 5)
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    last = max(last, first + 1)
    axis = Axis(first * step, last * step, start, end)
    digits = max(1, _decimals(step))
    marks = [i * step for i in range(first, last + 1)]
    return axis, [Tick(axis.at(mark), "0" if mark == 0 else figure(mark, digits)) for mark in marks]


def _decimals(step: float) -> int:
    return next(digits for digits in range(12) if abs(step * 10**digits - round(step * 10**digits)) < 1e-6)


@dataclass(frozen=True)
class Line:
    """One curve: its path, its end's dot, the label beside it and, where it has one, its best point."""

    name: str
    label: str  # the name, cut to the room beside the curves
    points: str  # "x,y x,y", px
    end: tuple[float, float]
    label_y: float
    best: Tick | None  # `at` is x; `text` says value and epoch
    best_y: float
    colour: int  # 0…5, an index into the palette


@dataclass(frozen=True)
class LineChart:
    """A chart of curves over epochs, `width` × `height` px, ready to draw."""

    title: str
    unit: str
    x_title: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    breaks: list[float]  # x where a new phase starts
    lines: list[Line]


_WIDTH, _HEIGHT = 360, 218
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 246.0, 12.0, 176.0
_LABEL_STEP = 14.0  # px between the labels at the curves' ends
_LABEL_LETTERS = 17  # what fits beside the curves; a longer name is cut, and stands in full under the pointer
_NOT_CURVES = ("epoch", "step", "seconds", "time", "round", "phase")
_CAPITALS = ("auroc", "auprc", "auc", "ap", "ap30", "ap50", "f1")
_SCORE_WORDS = (*_CAPITALS, "map", "map50", "iou", "precision", "recall")


def run_charts(rows: Sequence[Mapping[str, Any]], findings: Sequence[str] = ()) -> list[LineChart]:
    """The charts of one run: losses, scores, learning rate, and each remaining quantity on its own.

    Args:
        rows: lines of `metrics.jsonl`. The x axis is `epoch`, or `step` where no line has an epoch; lines without it,
            and values that are no finite number, are left out. Where it starts anew (a run of several phases), the
            next phase goes on where the last ended, and a break marks the place.
        findings: their own figures, `KIND/FINDING`, are left out: dozens of curves on top of one another show nothing.
    """
    x_title = next((key for key in ("epoch", "step") if any(_is_number(row.get(key)) for row in rows)), "epoch")
    rows = [row for row in rows if _is_number(row.get(x_title))]
    xs, breaks = _one_after_another([float(row[x_title]) for row in rows])
    groups: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        points = [(x, float(row[key])) for x, row in zip(xs, rows, strict=True) if _is_number(row.get(key))]
        if points and key.lower() not in _NOT_CURVES and key.partition("/")[2] not in findings:
            groups.setdefault(_group(key), {})[key] = points
    order = ["Loss", "Score", "Learning rate"]
    ranked = sorted(groups, key=lambda group: order.index(group[0]) if group[0] in order else len(order))
    return [_chart(group, groups[group], x_title, breaks) for group in ranked]


def _one_after_another(counted: list[float]) -> tuple[list[float], list[float]]:
    """Counts that start anew → counts that go on, and the places where they did."""
    xs: list[float] = []
    breaks: list[float] = []
    offset = 0.0
    for i, count in enumerate(counted):
        if i and count <= counted[i - 1]:
            offset = xs[-1]
            breaks.append(offset)
        xs.append(offset + count)
    return xs, breaks


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _group(key: str) -> tuple[str, str]:
    words = key.lower().replace("/", "_").replace("-", "_").replace("(b)", "").split("_")
    if any("loss" in word for word in words) or words in (["box"], ["cls"], ["dfl"]):
        return "Loss", "lower is better"
    if any(word in _SCORE_WORDS for word in words):
        return "Score", "0 … 1, higher is better"
    if "lr" in words:
        return "Learning rate", "size of a step"
    return spelled(key).capitalize(), "as logged"


def spelled(key: str) -> str:
    """`val_macro_auroc` → `val macro AUROC`."""
    words = key.replace("/", " ").replace("_", " ").split()
    return " ".join("mAP" if w.lower() == "map" else w.upper() if w.lower() in _CAPITALS else w for w in words)


def _cut(name: str) -> str:
    return name if len(name) <= _LABEL_LETTERS else name[: _LABEL_LETTERS - 1].rstrip() + "…"


def _chart(
    group: tuple[str, str], curves: dict[str, list[tuple[float, float]]], x_title: str, breaks: list[float]
) -> LineChart:
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    x_axis = Axis(min(xs), max(xs), _LEFT, _RIGHT) if min(xs) < max(xs) else Axis(xs[0] - 1, xs[0] + 1, _LEFT, _RIGHT)
    low, high = min(ys), max(ys)
    if group[0] == "Loss" and low >= 0 and low < 0.6 * high:
        low = 0.0  # a loss near its floor should be seen to be near it
    step = nice_step(max(high - low, abs(high) * 0.01, 1e-9), 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    y_axis = Axis(first * step, max(last, first + 1) * step, _BOTTOM, _TOP)
    marks = [i * step for i in range(first, max(last, first + 1) + 1)]
    lines = []
    for colour, (key, points) in enumerate(curves.items()):
        placed = [(x_axis.at(x), y_axis.at(y)) for x, y in points]
        best = _best(key, points, group[0])
        lines.append(
            Line(
                name=spelled(key),
                label=_cut(spelled(key)),
                points=" ".join(f"{x:g},{y:g}" for x, y in placed),
                end=placed[-1],
                label_y=placed[-1][1],
                best=best and Tick(x_axis.at(best[0]), f"best {_short(best[1])} at {x_title} {best[0]:,.0f}"),
                best_y=y_axis.at(best[1]) if best else 0.0,
                colour=colour % 6,
            )
        )
    return LineChart(
        title=group[0],
        unit=group[1],
        x_title=x_title,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
        x_ticks=_whole_ticks(x_axis),
        y_ticks=[Tick(y_axis.at(mark), _tick_text(mark, step)) for mark in marks],
        breaks=[x_axis.at(x) for x in breaks],
        lines=_spread(lines),
    )


def _best(key: str, points: list[tuple[float, float]], group: str) -> tuple[float, float] | None:
    """The point a model is chosen at: the first highest of a score, the first lowest of a validation loss."""
    if group == "Score":
        return max(points, key=lambda point: (point[1], -point[0]))
    if group == "Loss" and "val" in key.lower():
        return min(points, key=lambda point: (point[1], point[0]))
    return None


def _short(value: float) -> str:
    return figure(value, 3) if abs(value) < 10 else f"{value:.4g}"


def _tick_text(mark: float, step: float) -> str:
    if mark == 0:
        return "0"
    if step < 1e-3 or step >= 1e5:
        mantissa, _, exponent = f"{mark:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return figure(mark, _decimals(step))


def _whole_ticks(axis: Axis) -> list[Tick]:
    most = 6 if axis.high < 1000 else 4  # longer numbers would touch each other
    step = float(math.ceil(max(1.0, nice_step(axis.high - axis.low, most))))
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [Tick(axis.at(i * step), f"{i * step:,.0f}") for i in range(first, last + 1)]


def _spread(lines: list[Line]) -> list[Line]:
    """Moves the labels at the curves' ends apart, keeping their order, and back inside the chart."""
    order = sorted(range(len(lines)), key=lambda i: (lines[i].end[1], i))
    at: list[float] = []
    for i in order:
        at.append(max(lines[i].end[1], at[-1] + _LABEL_STEP if at else _TOP))
    limit = _BOTTOM
    for rank in reversed(range(len(at))):
        at[rank] = min(at[rank], limit)
        limit = at[rank] - _LABEL_STEP
    moved = list(lines)
    for rank, i in enumerate(order):
        line = lines[i]
        moved[i] = replace(line, label_y=round(at[rank], 1))
    return moved
