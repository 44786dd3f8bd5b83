"""The picture of `camgen explain`: 1,280 px wide, dark as a reading room, boxes in the report's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.report.panels import glowing
from eval.report.wording import figure
from weakray.detections import Detections, FloatArray
from weakray.imaging import Image, to_channels

WIDTH_PX = 1280
_PAPER, _RAISED, _INK, _SOFT, _FAINT = "#131518", "#24282d", "#e4e2dc", "#a0a4aa", "#747980"
_TRUTH, _PSEUDO = "#3ddc9b", "#ffb347"
_MARGIN, _GAP, _HEAD, _TITLE = 24.0, 20.0, 64.0, 50.0  # px
_BAR, _NAMES = 30.0, 200.0  # px: height of a bar's row, room for the names
_COLUMNS = 3


@dataclass(frozen=True)
class ProbabilityBar:
    """A finding's probability and gate, [0, 1]; `shown` where it has a panel."""

    name: str
    probability: float
    gate: float
    shown: bool


@dataclass(frozen=True)
class FindingPanel:
    """A finding's map `(h, w)`, >= 0, over the image, its pseudo-boxes and, where known, its true ones."""

    name: str
    probability: float
    gate: float
    heat: FloatArray
    boxes: Detections
    truth: Detections | None


def draw(
    path: Path,
    image: Image,
    title: str,
    bars: Sequence[ProbabilityBar],
    panels: Sequence[FindingPanel],
    truth: Detections | None,
    names: Sequence[str],
) -> None:
    """Writes the PNG.

    Args:
        path: file to write.
        image: the film.
        title: stands on top.
        bars: one a finding.
        panels: findings to show, in this order.
        truth: true boxes of all findings, drawn on the film with their names; None where unknown.
        names: the findings, in class-id order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    aspect = image.shape[0] / image.shape[1]
    inner = WIDTH_PX - 2 * _MARGIN
    film_w = min(0.52 * inner, 620 / aspect)
    film_h, bars_h = film_w * aspect, _BAR * len(bars) + 28
    cell_w = (inner - (_COLUMNS - 1) * _GAP) / _COLUMNS
    cell_h = min(cell_w * aspect, 560.0)
    rows = math.ceil(len(panels) / _COLUMNS)
    top_h = max(film_h, bars_h)
    height = round(_HEAD + top_h + rows * (_TITLE + cell_h + _GAP) + _MARGIN + (0 if panels else _GAP))

    whole = Figure(figsize=(WIDTH_PX / 100, height / 100), dpi=100, facecolor=_PAPER)
    canvas = FigureCanvasAgg(whole)
    sheet = _Sheet(whole, height)
    sheet.say(_MARGIN, 34, title, 15, _INK, weight="bold")
    x = WIDTH_PX - _MARGIN
    for colour, word in ((_PSEUDO, "pseudo-box, score"), *(((_TRUTH, "true box"),) if truth is not None else ())):
        sheet.say(x, 34, word, 10.5, colour, ha="right")
        x -= 9.2 * len(word) + 16

    axes = sheet.place(_MARGIN, _HEAD, film_w, film_h)
    axes.imshow(to_channels(image, 3), interpolation="lanczos", aspect="auto")
    for box, words in _named(truth, names):
        _box(axes, np.array(box), _TRUTH, words, dashed=False, px=film_w / image.shape[1], image=image)
    _bars(sheet, _MARGIN + film_w + 2 * _GAP, _HEAD, inner - film_w - 2 * _GAP, bars)

    for i, panel in enumerate(panels):
        row, column = divmod(i, _COLUMNS)
        y = _HEAD + top_h + _GAP + row * (_TITLE + cell_h + _GAP)
        width = min(cell_w, cell_h / aspect)
        _panel(sheet, _MARGIN + column * (cell_w + _GAP), y, (width, width * aspect), image, panel)
    canvas.print_png(str(path), metadata={"Software": None})


def _named(truth: Detections | None, names: Sequence[str]) -> list[tuple[tuple[float, ...], str]]:
    """Each true box once, with the names of all findings that have it."""
    found: dict[tuple[float, ...], list[str]] = {}
    if truth is not None:
        for box, class_id in zip(truth.boxes_xyxy_px.tolist(), truth.class_id.tolist(), strict=True):
            found.setdefault(tuple(box), []).append(names[class_id])
    return [(box, ", ".join(words)) for box, words in found.items()]


class _Sheet:
    """A figure measured in px from its top left corner."""

    def __init__(self, whole: Any, height: float) -> None:
        self.whole, self.height = whole, height

    def place(self, x: float, y: float, width: float, height: float) -> Any:
        rect = (x / WIDTH_PX, 1 - (y + height) / self.height, width / WIDTH_PX, height / self.height)
        axes = self.whole.add_axes(rect)
        axes.set_axis_off()
        return axes

    def say(self, x: float, y: float, text: str, size: float, colour: str, **how: Any) -> None:
        self.whole.text(
            x / WIDTH_PX, 1 - y / self.height, text, fontsize=size, color=colour, va="center", **({"ha": "left"} | how)
        )


def _bars(sheet: _Sheet, x: float, y: float, width: float, bars: Sequence[ProbabilityBar]) -> None:
    sheet.say(x, y + 8, "Probability", 12, _INK, weight="bold")
    sheet.say(x + width, y + 8, "▏ gate: no box below", 10, _SOFT, ha="right")
    room = width - _NAMES - 52
    axes = sheet.place(x + _NAMES, y + 28, room, _BAR * len(bars))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(bars), 0)
    for row, bar in enumerate(bars):
        middle = y + 28 + (row + 0.5) * _BAR
        ink = _INK if bar.shown else _FAINT
        axes.barh(row + 0.5, 1, height=0.42, color=_RAISED)
        axes.barh(row + 0.5, bar.probability, height=0.42, color=_PSEUDO if bar.shown else _FAINT)
        if bar.gate > 0:
            axes.plot([bar.gate, bar.gate], [row + 0.18, row + 0.82], color=_INK, linewidth=1.6)
        sheet.say(x, middle, _cut(bar.name, 23), 10.5, ink)
        sheet.say(x + width, middle, figure(bar.probability), 10.5, ink, ha="right")


def _panel(sheet: _Sheet, x: float, y: float, size: tuple[float, float], image: Image, panel: FindingPanel) -> None:
    low, peak = float(panel.heat.min()), float(panel.heat.max())
    sheet.say(x, y + 14, _cut(panel.name, 28), 12.5, _INK, weight="bold")
    sheet.say(x + size[0], y + 14, figure(panel.probability), 12.5, _INK, ha="right")
    axes = sheet.place(x, y + _TITLE, *size)
    if not np.isfinite(peak) or peak <= 0:
        said, shown = "the map is empty: nowhere above 0", to_channels(image, 3)
    else:
        span = peak - low
        share = (panel.heat - low) / span if span > 0 else np.zeros_like(panel.heat)
        said, shown = f"map {low:.2g} to {peak:.2g}", glowing(image, share)
    count = len(panel.boxes)
    gated = panel.probability < panel.gate
    said += (
        ", below its gate" if gated else f", {'no box' if not count else '1 box' if count == 1 else f'{count} boxes'}"
    )
    if panel.truth is not None and not len(panel.truth):
        said += ", no true box"
    sheet.say(x, y + 36, said, 10, _SOFT)
    axes.imshow(shown, interpolation="lanczos", aspect="auto")
    px = size[0] / image.shape[1]
    if panel.truth is not None:
        for box in panel.truth.boxes_xyxy_px:
            _box(axes, box, _TRUTH, "", dashed=True, px=px, image=image)
    for box, score in zip(panel.boxes.boxes_xyxy_px, panel.boxes.score.tolist(), strict=True):
        _box(axes, box, _PSEUDO, figure(score), dashed=False, px=px, image=image)


def _box(axes: Any, box: FloatArray, colour: str, text: str, *, dashed: bool, px: float, image: Image) -> None:
    """A box in image pixels, with a dark rim so that it shows on bone and on air; `px` of the picture a pixel."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = (float(value) - 0.5 for value in box)  # imshow's pixel 0 spans -0.5…0.5
    for ink, line in (("#000000", 3.4), (colour, 1.8)):
        how = (0, (5, 3)) if dashed and ink == colour else "solid"
        alpha = 0.45 if ink == "#000000" else 1.0
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ink, linewidth=line, linestyle=how, alpha=alpha)
        )
    if text:
        room = 8.0 * len(text) / px
        above = y0 >= 18 / px
        axes.text(
            min(max(x0, 0.0), max(image.shape[1] - room, 0.0)),
            y0 - 4 / px if above else min(y1, image.shape[0] - 18 / px) + 4 / px,
            text,
            fontsize=9.5,
            color=_PAPER,
            va="bottom" if above else "top",
            ha="left",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.6},
            clip_on=False,
        )


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
