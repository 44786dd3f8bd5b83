"""Stored values of grey films → light: larger is brighter, whatever the vendor stored.

Two rules make 8 bits of it:

- `voi`: what a viewer would show first: modality LUT or rescale, then the VOI LUT or window of the header (PS3.3
  C.11.1, C.11.2). Where the header has none, or one that would leave the film flat, `percentile` steps in, and says so.
- `percentile`: the 0.5th to 99.5th percentile of the light (`weakray.imaging.to_eight_bits`); up to 8 bits as stored.

Both are tables over the at most 65,536 values that the bits can hold, so a large film costs one lookup a pixel. The
tables are ours: pydicom's `apply_voi` wraps round where a LUT has fewer bits than the film, and its windowing copies
the film as float64; its results are the referee in the tests where they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from weakray.dicom.pixels import Frame
from weakray.imaging import Image, to_eight_bits

if TYPE_CHECKING:
    from pydicom import Dataset

Rule = Literal["voi", "percentile"]
Light = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]  # (h, w); every stored value but padding has its own
_Table = npt.NDArray[np.float64]

GREY_TAGS = (
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Grey:
    """A grey film in both forms.

    Attributes:
        light: for storing without loss: stored values, moved to start at 0, turned so that larger is brighter.
        image: 8 bits.
        rule: which rule made the 8 bits, with its numbers.
        notes: what a person should know.
    """

    light: Light
    image: Image
    rule: str
    notes: tuple[str, ...]


def to_grey(found: Dataset, frame: Frame, rule: Rule) -> Grey:
    """Applies the header's tables and a rule to a decoded grey frame.

    Args:
        found: the data set, with `GREY_TAGS`.
        frame: its frame.
        rule: how 8 bits are made.
    """
    codes = (frame.stored - frame.lowest).astype(np.uint16)
    values = np.arange(1 << frame.bits, dtype=np.float64) + frame.lowest
    modality, modality_text = _modality(_part(found, frame.number, "PixelValueTransformationSequence"), values)
    inverse = str(found.PhotometricInterpretation) == "MONOCHROME1"
    padding = _padding(found, frame)
    light = _light(codes, modality, inverse, padding, frame.bits)
    notes: list[str] = []
    if rule == "voi":
        shown, text, problem = _voi(_part(found, frame.number, "FrameVOILUTSequence"), modality, frame)
        if shown is not None:
            table = np.rint(255 * (1 - shown if inverse else shown)).astype(np.uint8)
            image = table[codes]
            if padding is not None:
                image[padding] = 0
            if light.min() == light.max() or image.min() != image.max():
                return Grey(light, image, f"{modality_text}{text}{_turned(inverse)}", tuple(notes))
            problem = f"{text} leaves the film flat"
        if problem:
            notes.append(f"{problem}; percentiles were taken in its place")
    if frame.bits <= 8:
        image, text = _full_range(light, frame.bits), "8 bits as stored"
    else:
        image, text = to_eight_bits(light.astype(np.uint16, copy=False)), "percentile 0.5 to 99.5"
    return Grey(light, image, f"{text}{_turned(inverse)}", tuple(notes))


def _turned(inverse: bool) -> str:
    return ", MONOCHROME1 inverted" if inverse else ""


def _part(found: Dataset, number: int, keyword: str) -> Dataset:
    """Where elements of a frame stand: in its own functional group, in that of all frames, else in the data set."""
    per_frame = found.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*per_frame[number - 1 : number], *(found.get("SharedFunctionalGroupsSequence") or ())[:1]]
    for group in groups:
        if group.get(keyword):
            return group[keyword].value[0]  # type: ignore[no-any-return]
    return found


def _modality(part: Dataset, values: _Table) -> tuple[_Table, str]:
    """The modality's output `(n,)` of every stored value, and how to say so."""
    if part.get("ModalityLUTSequence"):
        lut, _ = _lut(part.ModalityLUTSequence[0], values)
        return lut, "modality LUT, "
    slope, intercept = part.get("RescaleSlope"), part.get("RescaleIntercept")
    if slope is None or intercept is None or float(slope) == 0:
        return values, ""
    if (float(slope), float(intercept)) == (1.0, 0.0):
        return values, ""
    return values * float(slope) + float(intercept), f"rescale {float(slope):g}, {float(intercept):g}, "


def _lut(item: Dataset, values: _Table) -> tuple[_Table, int]:
    """What a LUT makes of values, and its bits (PS3.3 C.11.1.1.1): beyond its ends it gives its first or last entry."""
    count, first, bits = (int(part) for part in item.LUTDescriptor)
    data = item.LUTData
    entries = np.frombuffer(data, np.dtype("<u2")) if isinstance(data, bytes) else np.asarray(data, np.int64)
    count = min(count or 1 << 16, len(entries))
    places = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return np.asarray(entries[places] & 0xFFFF, np.float64), bits


def _voi(part: Dataset, modality: _Table, frame: Frame) -> tuple[_Table | None, str, str]:
    """Light in [0, 1] of every stored value, what made it, and why there is none where there is none."""
    if part.get("VOILUTSequence"):
        lut, bits = _lut(part.VOILUTSequence[0], modality)
        return np.clip(lut / ((1 << bits) - 1), 0, 1), "VOI LUT", ""
    centres, widths = (_numbers(part.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if not centres or not widths:
        return None, "", "" if frame.bits <= 8 else "the header has no window"
    kind = str(part.get("VOILUTFunction") or "LINEAR").upper()
    centre, width = centres[0], widths[0]
    text = f"window {centre:g} ± {width / 2:g}" + ("" if kind == "LINEAR" else f" ({kind})")
    if kind not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None, "", f"VOILUTFunction is none that DICOM defines ({text})"
    if not np.isfinite([centre, width]).all() or width < (1 if kind == "LINEAR" else 1e-9):
        return None, "", f"the header's {text} cannot be used"
    with np.errstate(over="ignore"):
        return _window(kind, modality, centre, width), text, ""


def _window(kind: str, x: _Table, centre: float, width: float) -> _Table:
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3: x → [0, 1]."""
    if kind == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (x - centre) / width)))
    if kind == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.asarray(x > centre, np.float64)
    return np.asarray(np.clip((x - centre) / width + 0.5, 0, 1))


def _numbers(value: Any) -> list[float]:
    """The numbers of a decimal string, which holds none, one or several."""
    if value in (None, ""):
        return []
    return [float(value)] if isinstance(value, float | int | str) else [float(part) for part in value]


def _padding(found: Dataset, frame: Frame) -> npt.NDArray[np.bool_] | None:
    """Pixels that are no part of the film: those of PixelPaddingValue, or up to its range's limit."""
    if found.get("PixelPaddingValue") is None:
        return None
    value = int(found.PixelPaddingValue)
    limit = found.get("PixelPaddingRangeLimit")
    low, high = sorted((value, int(limit) if limit is not None else value))
    padding = (frame.stored >= low) & (frame.stored <= high)
    return padding if padding.any() and not padding.all() else None


def _light(
    codes: npt.NDArray[np.uint16],
    modality: _Table,
    inverse: bool,
    padding: npt.NDArray[np.bool_] | None,
    bits: int,
) -> Light:
    """Codes turned so that larger is brighter; padding becomes the darkest. Windows do not touch it."""
    falling = modality[-1] < modality[0]
    light = codes if falling == inverse else np.asarray(((1 << bits) - 1) - codes, np.uint16)
    if padding is not None:
        light = np.where(padding, np.uint16(0), light)
    return light.astype(np.uint8) if bits <= 8 else light


def _full_range(light: Light, bits: int) -> Image:
    """Light of fewer than 8 bits spread over 0…255."""
    return np.asarray(np.rint(light * (255 / ((1 << bits) - 1))), np.uint8)
