"""LUTs and windows, by hand and against pydicom; the two rules; padding; what stays lossless."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from tests.dicom.makers import content, dataset, light
from weakray.dicom.film import DicomFilm, decode_dicom
from weakray.dicom.grey import Rule
from weakray.imaging import decode, to_eight_bits, write_image
from weakray.limits import FilmLimits


def _film(pixels: Any, bits: int = 12, rule: Rule = "voi", **elements: Any) -> DicomFilm:
    return decode_dicom(content(dataset(pixels, bits, **elements)), "a.dcm", FilmLimits(), rule=rule)


def _lut(entries: list[int], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return Sequence([item])


def test_a_linear_window_by_hand() -> None:
    # PS3.3 C.11.2.1.2.1, centre 101, width 101: y = (x - 100.5) / 100 + 0.5:
    # 0.5 at 100.5, 0 up to 50.5, 1 from 150.5
    row = np.array([[0, 50, 51, 100, 101, 150, 151, 4095]], np.uint16)
    film = _film(row, WindowCenter=101, WindowWidth=101)
    assert film.image.tolist() == [[0, 0, 1, 126, 129, 254, 255, 255]]
    assert film.rule == "window 101 ± 50.5"
    assert film.light is not None
    assert film.light.tolist() == row.tolist()


def test_monochrome1_is_turned() -> None:
    row = np.array([[0, 50, 100, 4095]], np.uint16)
    film = _film(row, WindowCenter=101, WindowWidth=101, PhotometricInterpretation="MONOCHROME1")
    assert film.image.tolist() == [[255, 255, 129, 0]]
    assert film.light is not None
    assert film.light.tolist() == [[4095, 4045, 3995, 0]]
    assert film.rule == "window 101 ± 50.5, MONOCHROME1 inverted"


def test_a_falling_rescale_turns_the_light_too() -> None:
    film = _film(np.array([[0, 1000, 4095]], np.uint16), rule="percentile", RescaleSlope=-1, RescaleIntercept=4095)
    assert film.light is not None
    assert film.light.tolist() == [[4095, 3095, 0]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1024)])
@pytest.mark.parametrize("signed", [False, True])
def test_windows_agree_with_pydicom(function: str, slope: float, intercept: float, signed: bool) -> None:
    pixels = light(5)
    stored = (pixels.astype(np.int16) - 2048) if signed else pixels
    centre = float(np.median(stored)) * slope + intercept
    elements: dict[str, Any] = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": function}
    elements |= {"WindowCenter": [centre, 7], "WindowWidth": [1500 * slope, 9]}
    made = dataset(stored, **elements)
    theirs = apply_voi_lut(apply_modality_lut(stored, made), made)
    span = np.array([stored.min(), stored.max()]) * 0 + ([-2048, 2047] if signed else [0, 4095])
    low, high = span * slope + intercept
    ours = _film(stored, **elements).image
    assert np.abs(ours - 255 * (theirs - low) / (high - low)).max() <= 0.5 + 1e-6


def test_luts_agree_with_pydicom_and_beyond_their_ends_give_their_ends() -> None:
    pixels = np.array([[0, 99, 100, 101, 102, 103, 4095]], np.uint16)
    voi = _lut([0, 100, 900, 1023], 6, 10)
    elements: dict[str, Any] = {"ModalityLUTSequence": _lut([5, 6, 8, 11], 100, 16), "VOILUTSequence": voi}
    film = _film(pixels, **elements)
    made = dataset(pixels, **elements)
    theirs = apply_voi_lut(apply_modality_lut(pixels, made), made)
    assert theirs.tolist() == [[0, 0, 0, 0, 900, 1023, 1023]]
    np.testing.assert_array_equal(film.image, np.rint(theirs / 1023 * 255))
    assert film.rule == "modality LUT, VOI LUT"


def test_a_voi_lut_of_fewer_bits_than_the_film_does_not_wrap_round() -> None:
    pixels = np.array([[0, 255, 256, 300, 4095]], np.uint16)
    film = _film(pixels, VOILUTSequence=_lut(list(range(256)), 0, 8))
    assert film.image.tolist() == [[0, 255, 255, 255, 255]]


@pytest.mark.parametrize("group", ["PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"])
def test_a_window_in_a_functional_group(group: str) -> None:
    window, item = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 101, 101
    item.FrameVOILUTSequence = Sequence([window])
    groups: dict[str, Any] = {group: Sequence([item])}
    film = _film(np.array([[0, 100, 4095]], np.uint16), **groups)
    assert film.image.tolist() == [[0, 126, 255]]


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({}, "the header has no window; percentiles were taken in its place"),
        ({"WindowCenter": 9, "WindowWidth": 0}, "the header's window 9 ± 0 cannot be used; percentiles"),
        ({"WindowCenter": 9, "WindowWidth": 9, "VOILUTFunction": "CUBE"}, "VOILUTFunction is none that DICOM defines"),
        ({"WindowCenter": 90_000, "WindowWidth": 10}, "window 90000 ± 5 leaves the film flat; percentiles"),
    ],
)
def test_without_a_usable_window_percentiles_step_in_and_say_so(elements: dict[str, Any], note: str) -> None:
    film = _film(light(2), **elements)
    np.testing.assert_array_equal(film.image, to_eight_bits(light(2)))
    assert film.notes[0].startswith(note)
    assert film.rule == "percentile 0.5 to 99.5"


def test_the_percentile_rule_leaves_windows_alone() -> None:
    film = _film(light(2), rule="percentile", WindowCenter=101, WindowWidth=101)
    np.testing.assert_array_equal(film.image, to_eight_bits(light(2)))
    assert film.notes == ()


def test_percentiles_by_hand() -> None:
    # 1…1000 above a black border of any size: 0.5 % is 5, 99.5 % is 995
    film = np.concatenate([np.zeros(5000, np.uint16), np.arange(1, 1001, dtype=np.uint16)]).reshape(60, 100)
    shown = to_eight_bits(film).ravel()
    assert shown[:5005].max() == 0
    assert (shown[5994], shown[5999]) == (255, 255)
    assert shown[5000 + 499] == round((500 - 5) * 255 / 990)
    assert to_eight_bits(np.full((3, 5), 77, np.uint16)).tolist() == [[0] * 5] * 3
    assert to_eight_bits(np.array([[3, 3, 9]], np.uint16)).tolist() == [[0, 0, 255]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rule", ["voi", "percentile"])
def test_padding_is_black_and_moves_nothing(rule: Rule, photometric: str) -> None:
    pixels = np.clip(light(2), 100, 4000)
    window: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 3000, "PhotometricInterpretation": photometric}
    plain = _film(pixels, rule=rule, **window)
    padded = pixels.copy()
    padded[:, :20] = 4095
    film = _film(padded, rule=rule, PixelPaddingValue=4090, PixelPaddingRangeLimit=4095, **window)
    assert film.image[:, :20].max() == 0
    if rule == "voi":
        np.testing.assert_array_equal(film.image[:, 20:], plain.image[:, 20:])
    else:
        alone = _film(pixels[:, 20:], rule=rule, **window)
        assert np.abs(film.image[:, 20:].astype(int) - alone.image).max() <= 1


def test_the_light_stored_as_png_is_read_as_the_percentile_rule_shows_it(tmp_path: Any) -> None:
    film = _film(light(2), rule="percentile", PhotometricInterpretation="MONOCHROME1")
    assert film.light is not None
    write_image(tmp_path / "a.png", film.light)
    np.testing.assert_array_equal(decode((tmp_path / "a.png").read_bytes()), film.image)


def test_bits_above_the_stored_ones_are_no_light() -> None:
    pixels = light(2)
    film = _film(pixels | np.uint16(0x8000))
    np.testing.assert_array_equal(film.light, pixels)


def test_fewer_than_eight_bits_fill_the_range() -> None:
    assert _film(np.array([[0, 1, 2, 15]], np.uint8), 4).image.tolist() == [[0, 17, 34, 255]]
