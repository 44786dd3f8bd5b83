"""Geometry of the drawings: where bars, dots, cells and labels stand, in px of an inline SVG. Templates draw them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from weakray.pages.axes import Axis, Tick, nice_step

FloatMatrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A piece of a stacked bar.

    Attributes:
        kind: a CSS class.
        percent: its width.
        name: what it is.
        share: how much of the whole, in words.
        told: what it says under the pointer.
    """

    kind: str
    percent: float
    name: str
    share: str
    told: str


def stacked(counts: Mapping[str, int], kinds: Sequence[str] | None = None) -> list[Part]:
    """A whole, cut into its parts; what is 0 is left out."""
    total = sum(counts.values())
    classes = dict(zip(counts, kinds or counts, strict=True))
    parts: list[Part] = []
    for name, count in counts.items():
        if count:
            share = percent(count / total)
            told = f"{name or 'unknown'}: {count:,} ({share})"
            parts.append(Part(classes[name], round(100 * count / total, 3), name or "unknown", share, told))
    return parts


def percent(share: float) -> str:
    """`12 %`, `3.4 %`, `0.05 %`: two digits where there are so many."""
    value = 100 * share
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    text = f"{value:.{digits}f}"
    return f"{text}\u00a0%" if value == 0 or float(text) else "<\u00a00.01\u00a0%"


_WIDEST_PX = 62.0  # of a column
_FEW_SIZES = 20  # so many circles may be large


@dataclass(frozen=True)
class Columns:
    """A column chart."""

    title: str
    unit: str
    width: int
    height: int
    base: float
    columns: list[tuple[float, float, float, float, str]]  # x, y, width, height, what it says
    labels: list[Tick]
    values: list[tuple[float, float, str]]  # x, y, text over a column
    ticks: list[Tick]  # y axis
    left: float
    right: float


def columns(
    title: str,
    unit: str,
    rows: Sequence[tuple[str, float]],
    *,
    width: int = 360,
    height: int = 176,
    share: bool = False,
    highest: float = 0.0,
) -> Columns:
    """A chart with one column a row.

    Args:
        title: heading.
        unit: beside it.
        rows: (label, value ≥ 0).
        width: px.
        height: px.
        share: values are shares, [0, 1], and are written as per cent; else they are counts, written over the columns.
        highest: the axis reaches at least so far, so that charts side by side can share it.
    """
    left, right, top, base = 40.0 if share else 4.0, width - 6.0, 20.0, height - 24.0
    highest = max(highest, *(value for _, value in rows)) or 1.0
    step = nice_step(highest, 4)
    axis = Axis(0.0, math.ceil(highest / step - 1e-9) * step if share else highest, base, top)
    slot = min((right - left) / max(1, len(rows)), _WIDEST_PX)
    gap = min(8.0, slot * 0.22)
    drawn = [
        (
            round(left + at * slot + gap / 2, 1),
            axis.at(value),
            round(slot - gap, 1),
            round(base - axis.at(value), 1),
            f"{label}: {percent(value) if share else f'{value:,.0f}'}",
        )
        for at, (label, value) in enumerate(rows)
    ]
    marks = [i * step for i in range(1, round(axis.high / step) + 1)] if share else []
    every = max(1, math.ceil(max((len(label) for label, _ in rows), default=1) * 6.4 / slot))
    return Columns(
        title=title,
        unit=unit,
        width=width,
        height=height,
        base=base,
        columns=drawn,
        labels=[
            Tick(round(left + (at + 0.5) * slot, 1), label) for at, (label, _) in enumerate(rows) if at % every == 0
        ],
        values=[]
        if share
        else [
            (round(x + w / 2, 1), round(y - 5, 1), f"{value:,.0f}")
            for (x, y, w, _, _), (_, value) in zip(drawn, rows, strict=True)
            if value
        ],
        ticks=[Tick(axis.at(mark), percent(mark)) for mark in marks],
        left=left,
        right=right,
    )


@dataclass(frozen=True)
class MatrixCell:
    """A cell of a matrix, its text and what it says; `depth` [-1, 1] is its colour, None where nothing is known."""

    x: float
    y: float
    text: str
    told: str
    depth: float | None


@dataclass(frozen=True)
class Matrix:
    """A square matrix of findings with names left and above."""

    title: str
    unit: str
    width: float
    height: float
    left: float
    top: float
    side: float
    small: bool
    names: list[tuple[float, str, str]]  # place along an axis, cut name, whole name
    cells: list[MatrixCell]


_NAME_PX = 7.0


def matrix(
    title: str,
    unit: str,
    names: Sequence[str],
    values: FloatMatrix,
    texts: Sequence[Sequence[str]],
    told: Sequence[Sequence[str]],
    strongest: float,
) -> Matrix:
    """Places a matrix.

    Args:
        title: heading.
        unit: what a cell is.
        names: of rows and columns.
        values: `(k, k)`; NaN stays blank.
        texts: in the cells.
        told: under the pointer.
        strongest: the value of the deepest colour.
    """
    side = 30.0 if len(names) <= 10 else 25.0 if len(names) <= 16 else 22.0 if len(names) <= 28 else 15.0
    cut = [name if len(name) <= 22 else name[:21].rstrip() + "…" for name in names]
    longest = max(len(name) for name in cut) * _NAME_PX
    left, top = longest + 10, longest * 0.72 + 14
    cells = [
        MatrixCell(
            x=left + j * side,
            y=top + i * side,
            text=texts[i][j],
            told=told[i][j],
            depth=None if math.isnan(values[i, j]) else float(np.clip(values[i, j] / strongest, -1, 1)),
        )
        for i in range(len(names))
        for j in range(len(names))
    ]
    return Matrix(
        title=title,
        unit=unit,
        width=round(left + len(names) * side + longest * 0.7 + 4, 1),
        height=round(top + len(names) * side + 6, 1),
        left=left,
        top=top,
        side=side,
        small=side < 22,
        names=[((i + 0.5) * side, short, name) for i, (short, name) in enumerate(zip(cut, names, strict=True))],
        cells=cells,
    )


@dataclass(frozen=True)
class Spread:
    """Quantiles on a common axis: thin line 10–90 %, thick line 25–75 %, dot at the median. All px."""

    p10: float
    p25: float
    p50: float
    p75: float
    p90: float


def log_axis(low: float, high: float, start: float, end: float) -> tuple[Axis, list[Tick]]:
    """An axis of logarithms over whole powers of ten, its ticks in per cent."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    axis = Axis(first, max(last, first + 1), start, end)
    return axis, [Tick(axis.at(at), f"{100 * 10.0**at:g}\u00a0%") for at in range(first, max(last, first + 1) + 1)]


def spread(quantiles: Sequence[float], axis: Axis) -> Spread:
    """Places five quantiles > 0 on an axis of logarithms."""
    return Spread(*(axis.at(math.log10(max(value, 1e-9))) for value in quantiles))


@dataclass(frozen=True)
class Bubbles:
    """Image sizes: a circle a size, its area the number of images."""

    side: int
    low: float
    high: float
    circles: list[tuple[float, float, float, str]]  # x, y, radius, what it says
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    diagonal: tuple[float, float, float, float]


def bubbles(sizes: Sequence[tuple[int, int, int]], side: int = 300, at_most: int = 400) -> Bubbles:
    """Places sizes (height, width, images); of more than `at_most`, near ones are joined."""
    largest = max(max(height, width) for height, width, _ in sizes)
    step = nice_step(largest, 4)
    top = math.ceil(largest / step - 1e-9) * step
    low, high = 44.0, side - 12.0
    x_axis, y_axis = Axis(0, top, low, high), Axis(0, top, side - 40.0, 12.0)
    joined: dict[tuple[int, int], int] = {}
    grain = 1 if len(sizes) <= at_most else math.ceil(largest / 30)
    for height, width, count in sizes:
        key = (round(height / grain) * grain, round(width / grain) * grain)
        joined[key] = joined.get(key, 0) + count
    most = max(joined.values())
    largest_px = 17.0 if len(joined) <= _FEW_SIZES else 7.0
    circles = [
        (
            x_axis.at(width),
            y_axis.at(height),
            round(max(2.2, largest_px * math.sqrt(count / most)), 1),
            f"{'about ' if grain > 1 else ''}{width} × {height} px: {count:,}",
        )
        for (height, width), count in sorted(joined.items(), key=lambda item: -item[1])
    ]
    marks = [i * step for i in range(round(top / step) + 1)]
    return Bubbles(
        side=side,
        low=low,
        high=high,
        circles=circles,
        x_ticks=[Tick(x_axis.at(mark), f"{mark:,.0f}") for mark in marks],
        y_ticks=[Tick(y_axis.at(mark), f"{mark:,.0f}") for mark in marks],
        diagonal=(x_axis.at(0), y_axis.at(0), x_axis.at(top), y_axis.at(top)),
    )


def heat_uri(heat: FloatMatrix) -> str:
    """A heat map `(h, w)` ≥ 0 as a PNG data URI: warmer and less transparent the nearer to its peak."""
    peak = float(heat.max())
    share = heat / peak if peak > 0 else heat
    coloured = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = np.rint(255 * 0.88 * np.clip(share, 0, 1) ** 0.7).astype(np.uint8)
    content = cv2.imencode(".png", np.dstack([coloured, alpha]))[1]
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()
