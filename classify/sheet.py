"""The drawing of a contact sheet: tiles of pictures with their value ranges, in rows under headings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from weakray.errors import RunError

_SIDE, _GAP, _MARGIN, _BAR = 208, 18, 36, 26  # px: a picture, between tiles, around the sheet, a histogram
_LEGEND = 172  # px: the column of the rows' titles
_TILE_H = _SIDE + _BAR + 66
_PAPER, _INK, _FAINT, _LINE, _FRAME = "#fbfbf9", "#1d2329", "#69727c", "#d9dcdf", "#eceeef"
_ACCENT, _DOUBT, _ALARM = "#1f6f8b", "#b7791f", "#b3261e"


@dataclass(frozen=True)
class Tile:
    """One step's picture.

    Attributes:
        name: of the step.
        values: `(h, w)` or `(h, w, 3)`, uint8 shown as it is, float shown from its least to its largest value.
        shape: as the step left the array, which a channel shown alone does not tell.
    """

    name: str
    values: npt.NDArray[Any]
    shape: tuple[int, ...]

    @property
    def range(self) -> tuple[float, float, float]:
        """Least, largest and mean value."""
        return float(self.values.min()), float(self.values.max()), float(self.values.mean(dtype=np.float64))


@dataclass(frozen=True)
class Row:
    """Tiles side by side: a title and what it means."""

    title: str
    note: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Block:
    """One image: its name, the names of its findings, and its rows."""

    title: str
    note: str
    present: list[str]
    uncertain: list[str]
    rows: list[Row]


def draw(title: str, note: str, blocks: Sequence[Block]) -> Picture.Image:
    """The sheet: under its title a block for each image, RGB."""
    widest = max(len(row.tiles) for block in blocks for row in block.rows)
    told = ImageDraw.Draw(Picture.new("L", (1, 1))).textlength(note, _font(14))
    width = 2 * _MARGIN + max(_LEGEND + widest * (_SIDE + _GAP) - _GAP, math.ceil(told), 900)
    block_h = [92 + len(block.rows) * (_TILE_H + _GAP) for block in blocks]
    sheet = Picture.new("RGB", (width, 96 + sum(block_h) + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 26), title, _INK, _font(26, "Bold"))
    pen.text((_MARGIN, 64), note, _FAINT, _font(14))
    top = 96
    for block, height in zip(blocks, block_h, strict=True):
        _draw_block(sheet, pen, block, top, width)
        top += height
    return sheet


def _draw_block(sheet: Picture.Image, pen: ImageDraw.ImageDraw, block: Block, top: int, width: int) -> None:
    pen.line((_MARGIN, top + 8, width - _MARGIN, top + 8), _LINE, 2)
    pen.text((_MARGIN, top + 22), block.title, _INK, _font(19, "Bold"))
    right = _MARGIN + pen.textlength(block.title, _font(19, "Bold")) + 16
    pen.text((right, top + 27), block.note, _FAINT, _font(13))
    left = float(_MARGIN)
    chips = [(name, _ACCENT) for name in block.present] + [(f"{name} ?", _DOUBT) for name in block.uncertain]
    for text, colour in chips or [("no finding labelled present or uncertain", _FAINT)]:
        left = _chip(pen, left, top + 54, text, colour, width)
    for number, row in enumerate(block.rows):
        _draw_row(sheet, pen, row, top + 92 + number * (_TILE_H + _GAP))


def _chip(pen: ImageDraw.ImageDraw, left: float, top: int, text: str, colour: str, width: int) -> float:
    """Draws a label and returns where the next one starts; nothing is drawn past the margin."""
    right = left + pen.textlength(text, _font(13)) + 20
    if right > width - _MARGIN:
        return left
    filled = colour == _ACCENT
    pen.rounded_rectangle((left, top, right, top + 24), 12, colour if filled else _PAPER, colour)
    pen.text((left + 10, top + 4), text, "white" if filled else colour, _font(13))
    return right + 8


def _draw_row(sheet: Picture.Image, pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    pen.text((_MARGIN, top), row.title, _ACCENT, _font(15, "Bold"))
    pen.multiline_text((_MARGIN, top + 26), _wrapped(pen, row.note), _FAINT, _font(12), spacing=5)
    for number, tile in enumerate(row.tiles):
        _draw_tile(sheet, pen, tile, _MARGIN + _LEGEND + number * (_SIDE + _GAP), top)


def _draw_tile(sheet: Picture.Image, pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    pen.rectangle((left - 1, top - 1, left + _SIDE, top + _SIDE), _FRAME, _LINE)
    picture = _picture(tile.values)
    corner = (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2)
    sheet.paste(picture, corner)
    _draw_histogram(pen, tile.values, left, top + _SIDE + 6)
    low, high, mean = tile.range
    text_top = top + _SIDE + _BAR + 12
    name = _cut(pen, tile.name, _font(14, "Bold"))
    pen.text((left, text_top), name, _INK, _font(14, "Bold"))
    shape = " × ".join(map(str, tile.shape))
    pen.text((left, text_top + 20), f"{shape}  {tile.values.dtype}", _FAINT, _font(12))
    if low == high:
        pen.text((left, text_top + 36), f"flat: {_number(low)} everywhere", _ALARM, _font(12, "Bold"))
    else:
        words = f"{_number(low)} … {_number(high)}   mean {_number(mean)}"
        pen.text((left, text_top + 36), words, _INK, _font(12))


def _picture(values: npt.NDArray[Any]) -> Picture.Image:
    """Values as a picture that fits a tile; small ones are enlarged without smoothing, so that pixels stay visible."""
    if values.dtype != np.uint8:
        low, high = values.min(), values.max()
        values = np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    picture = Picture.fromarray(values)
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Picture.Resampling.LANCZOS if scale < 1 else Picture.Resampling.NEAREST
    return picture.resize(size, how).convert("RGB")


def _draw_histogram(pen: ImageDraw.ImageDraw, values: npt.NDArray[Any], left: int, top: int) -> None:
    """How often each value is, least to largest (uint8: 0 to 255); heights by square root, for padding towers."""
    ends = (0.0, 255.0) if values.dtype == np.uint8 else (float(values.min()), float(values.max()) + 1e-12)
    count, _ = np.histogram(values, bins=_SIDE // 2, range=ends)
    height = np.sqrt(count / max(count.max(), 1)) * _BAR
    for k, own in enumerate(height.tolist()):
        if own > 0:
            pen.rectangle((left + 2 * k, top + _BAR - max(1, round(own)), left + 2 * k + 1, top + _BAR), _ACCENT)
    pen.line((left, top + _BAR + 1, left + _SIDE - 1, top + _BAR + 1), _LINE)


def _number(value: float) -> str:
    text = f"{value:.0f}" if value == round(value) and abs(value) >= 10 else f"{value:.3g}"
    return text.replace("-", "−")


def _wrapped(pen: ImageDraw.ImageDraw, text: str) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, _font(12)) <= _LEGEND - 20:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _cut(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont) -> str:
    while pen.textlength(text, font) > _SIDE and len(text) > 2:
        text = f"{text[:-2]}…"
    return text


@cache
def _font(size: int, weight: Literal["", "Bold"] = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings; found without importing it, which would write into the home folder."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RunError("preview needs the font that comes with matplotlib; install weakray[train]")
    fonts = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / f"DejaVuSans{'-' if weight else ''}{weight}.ttf", size)
