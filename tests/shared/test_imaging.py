from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from weakray.errors import DataError
from weakray.imaging import InputSpec, decode, letterbox, prepare, read_image, stretch, to_batch, write_image


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


def test_says_what_came(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not decode it"):
        decode(b"not an image", "x.png")
    with pytest.raises(DataError, match="could not decode it .0 bytes"):
        decode(b"", "x.png")
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png")
    _, sixteen = cv2.imencode(".png", np.zeros((3, 4), np.uint16))
    with pytest.raises(DataError, match="expected 8 bits a sample, got uint16"):
        decode(sixteen.tobytes(), "deep.png")
