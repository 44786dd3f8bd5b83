from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from weakray.config import validate
from weakray.errors import ConfigError, DataError
from weakray.imaging import (
    InputSpec,
    Mode,
    clahe,
    decode,
    equalise,
    letterbox,
    prepare,
    read_image,
    scale_to_fit,
    stretch,
    stretch_contrast,
    to_batch,
    write_image,
)


def film(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(30, 200, (height, width), np.uint8)


def test_png_round_trip_grey_and_rgb(tmp_path: Path) -> None:
    grey = film(20, 31)
    rgb = np.stack([grey, grey // 2, grey // 3], axis=2)
    for image in (grey, rgb):
        write_image(tmp_path / "a.png", image)
        assert np.array_equal(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize(("size_hw", "size_px"), [((50, 100), 64), ((300, 120), 64), ((64, 64), 64), ((30, 17), 64)])
def test_boxes_travel_both_ways(size_hw: tuple[int, int], size_px: int) -> None:
    image, placement = letterbox(film(*size_hw), size_px)
    assert image.shape == (size_px, size_px)
    boxes = np.array([[1, 2, 15, 28], [0, 0, size_hw[1], size_hw[0]]], np.float32)
    there = placement.forward(boxes)
    assert np.allclose(placement.back(there), boxes, atol=1e-4)
    rows, columns = placement.inner()
    assert np.allclose(there[1], [columns.start, rows.start, columns.stop, rows.stop])
    outside = image.copy()
    outside[rows, columns] = 0
    assert not outside.any()


def test_box_of_a_bright_square_stays_on_it() -> None:
    image = np.zeros((60, 100), np.uint8)
    image[20:40, 50:80] = 255
    small, placement = letterbox(image, 50)
    x0, y0, x1, y1 = placement.forward(np.array([[50, 20, 80, 40]], np.float32))[0].astype(int)
    assert small[y0:y1, x0:x1].min() == 255
    assert int(small.sum()) == 255 * (y1 - y0) * (x1 - x0)


def test_stretch_by_hand() -> None:
    assert stretch(np.array([[10, 20, 30]], np.uint8)).tolist() == [[0, 128, 255]]
    assert stretch(np.full((2, 3), 7, np.uint8)).tolist() == [[7] * 3] * 2  # flat: unchanged, no division by zero


def test_prepare_and_batch_shapes() -> None:
    for channels in (1, 3):
        spec = InputSpec(size_px=32, channels=channels)
        prepared = [prepare(film(40, 25), spec)[0], prepare(film(25, 40), spec)[0]]
        batch = to_batch(prepared)
        assert batch.shape == (2, channels, 32, 32)
        assert batch.dtype == np.float32
        assert (batch.min(), batch.max()) == (0.0, pytest.approx(0.9, abs=0.1))


def test_equalise_and_contrast_by_hand() -> None:
    steps = np.array([[10, 20], [30, 40]], np.uint8)
    assert equalise(steps).tolist() == [[0, 85], [170, 255]]  # 255 (cdf − 1) / (4 − 1)
    ramp = np.arange(101, dtype=np.uint8)[None]  # its 2nd and 98th percentiles are 2 and 98
    stretched = stretch_contrast(ramp)[0]
    assert stretched[[0, 2, 26, 50, 74, 98, 100]].tolist() == [0, 0, 64, 128, 191, 255, 255]  # 63.75, 127.5, 191.25


@pytest.mark.parametrize("change", [equalise, stretch_contrast, lambda image: clahe(image, 2.0)])
def test_a_flat_image_stays_as_it_is(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert (change(np.full((20, 31), 7, np.uint8)) == 7).all()


def test_clahe_lifts_faint_detail_up_to_its_clip_limit() -> None:
    faint = np.rint(100 + 3 * np.sin(np.arange(224) / 4) + np.linspace(0, 30, 192)[:, None]).astype(np.uint8)
    detail = [float(image[96].max()) - image[96].min() for image in (faint, clahe(faint, 2.0), clahe(faint, 4.0))]
    assert detail[0] * 1.5 < detail[1]
    assert detail[1] * 1.2 < detail[2]
    same = cv2.createCLAHE(2.0, (8, 8)).apply(faint)
    assert np.array_equal(clahe(faint, 2.0), same)


@pytest.mark.parametrize("size_hw", [(64, 48), (130, 70), (1, 30)])
def test_clahe_of_a_small_film_takes_fewer_tiles(size_hw: tuple[int, int]) -> None:
    """With 8 × 8 tiles of 64 px, clip limits 2 and 4 would both round to one pixel a grey value."""
    image = film(*size_hw)
    assert clahe(image, 2.0).shape == size_hw
    assert size_hw[0] == 1 or not np.array_equal(clahe(image, 2.0), clahe(image, 4.0))


@pytest.mark.parametrize(("mode", "size_hw"), [("clahe", (40, 25)), ("contrast", (25, 40)), ("clahe", (60, 90))])
def test_planes_are_made_at_the_models_size_and_their_padding_is_black(mode: Mode, size_hw: tuple[int, int]) -> None:
    """Min–max sees the film as stored; CLAHE and equalisation see it scaled, and never the padding."""
    image = film(*size_hw)
    prepared, placement = prepare(image, InputSpec(size_px=64, mode=mode))
    small = scale_to_fit(stretch(image) if mode == "clahe" else image, 64)
    changed = (clahe(small, 2.0), clahe(small, 4.0)) if mode == "clahe" else (equalise(small), stretch_contrast(small))
    assert np.array_equal(prepared[placement.inner()], np.stack([small, *changed], axis=2))
    assert len({prepared[..., k].tobytes() for k in range(3)}) == 3
    padding = np.ones((64, 64), bool)
    padding[placement.inner()] = False
    assert padding.any()
    assert not prepared[padding].any()
    assert placement == prepare(image, InputSpec(size_px=64))[1]


@pytest.mark.parametrize("size_px", [96, 32])
def test_a_grey_film_in_three_channels_is_seen_as_its_copy_in_colour(size_px: int) -> None:
    grey, spec = film(77, 50), InputSpec(size_px=size_px, channels=3)
    seen, placement = prepare(grey, spec)
    of_colour, its_placement = prepare(np.repeat(grey[..., None], 3, axis=2), spec)
    assert seen.shape == (size_px, size_px, 3)
    assert np.array_equal(seen, of_colour)
    assert placement == its_placement


def test_min_max_comes_before_scaling() -> None:
    """One bright pixel of the film as stored sets the range, though nothing of it is left at the model's size."""
    image = np.full((64, 48), 100, np.uint8)
    image[:, ::2] = 90
    image[0, 0] = 250
    assert prepare(image, InputSpec(size_px=8))[0].max() < 20


@pytest.mark.parametrize("mode", ["clahe", "contrast"])
def test_a_colour_file_becomes_grey_before_its_planes_are_made(mode: Mode) -> None:
    colour = np.stack([film(40, 25), film(40, 25) // 2, film(40, 25) // 3], axis=2)
    grey = np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), np.uint8)
    spec = InputSpec(size_px=32, mode=mode)
    assert np.array_equal(prepare(colour, spec)[0], prepare(grey, spec)[0])


def test_a_mode_settles_channels_and_min_max() -> None:
    assert validate(InputSpec, {"mode": "clahe"}).model_dump() == {
        "size_px": 224,
        "mode": "clahe",
        "channels": 3,
        "minmax": True,
    }
    assert InputSpec(mode="contrast") == validate(InputSpec, {"mode": "contrast", "channels": 3, "minmax": False})
    assert InputSpec() == validate(InputSpec, {"size_px": 224, "channels": 1, "minmax": True})  # without a mode: grey
    for mode in ("grey", "clahe", "contrast"):
        spec = validate(InputSpec, {"mode": mode, "size_px": 96})
        assert validate(InputSpec, spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "clahe", "channels": 1}, "mode clahe has channels 3, got 1; leave it out"),
        ({"mode": "contrast", "minmax": True}, "mode contrast has minmax false, got true; leave it out"),
        ({"mode": "sepia"}, r"input\.mode: input should be 'grey', 'clahe' or 'contrast' \(got 'sepia'\)"),
        ({"size_px": 0}, r"input\.size_px: input should be greater than or equal to 1"),
    ],
)
def test_contradictions_of_an_input_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(InputSpec, given, "input")


def test_a_batch_is_one_copy_with_channels_last_in_memory() -> None:
    images = [np.random.default_rng(k).integers(0, 256, (5, 7, 3)).astype(np.uint8) for k in range(3)]
    batch = to_batch(images)
    assert batch.shape == (3, 3, 5, 7)
    assert batch[2, 1, 4, 6] == np.float32(images[2][4, 6, 1]) / np.float32(255)
    assert batch.transpose(0, 2, 3, 1).flags.c_contiguous
    one = to_batch([images[0][..., 0]])
    assert one.shape == (1, 1, 5, 7)
    assert one.flags.c_contiguous


def test_says_what_came(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not decode it"):
        decode(b"not an image", "x.png")
    with pytest.raises(DataError, match="could not decode it .0 bytes"):
        decode(b"", "x.png")
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png")
    _, sixteen = cv2.imencode(".png", np.zeros((3, 4, 3), np.uint16))
    with pytest.raises(DataError, match="expected 8 bits a sample, or 16 of grey, got uint16 of .3, 4, 3."):
        decode(sixteen.tobytes(), "deep.png")
