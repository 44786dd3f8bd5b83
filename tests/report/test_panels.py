from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from eval.report.content import GalleryCase
from eval.report.panels import SIDE_PX, _drawn, _told, case_view, heat_on_image
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.imaging import letterbox
from weakray.pages.pictures import jpeg_uri

NAMES = ["Nodule", "Mass"]


def decoded(uri: str) -> npt.NDArray[np.uint8]:
    """A data URI's image, RGB or grey."""
    content = np.frombuffer(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image[..., ::-1] if image.ndim == 3 else image, np.uint8)


def detections(boxes: Any, class_id: Any, score: Any) -> Detections:
    """Detections of plain lists."""
    return Detections(np.array(boxes, np.float32), np.array(class_id), np.array(score, np.float32))


def make(**changes: Any) -> GalleryCase:
    """A 60 × 100 grey image with a true box, scored boxes and a map."""
    image = np.full((60, 100), 90, np.uint8)
    parts: dict[str, Any] = {
        "image": image,
        "image_id": "x",
        "finding": "Mass",
        "truth": detections([[10, 20, 30, 50], [50, 10, 60, 20]], [1, 0], [1, 1]),
        "pseudo": detections([[10, 20, 30, 35]], [1], [0.66]),
        "detector": Detections.empty(),
        "heat": np.eye(4, dtype=np.float32),
        "placement": letterbox(image, 40)[1],
        "caption": "",
        "kind": "best",
    }
    return GalleryCase(**{**parts, **changes})


def test_boxes_are_drawn_to_scale_and_told_in_words() -> None:
    view = case_view(make(), NAMES, 7)
    assert (view.anchor, view.width, view.height) == ("image-7", SIDE_PX, 269)
    truth, heat, pseudo, detector = view.panels
    scale = SIDE_PX / 100
    (own,) = truth.own
    assert [own.x, own.y] == pytest.approx([10 * scale, 20 * scale], abs=0.06)
    assert [own.width, own.height] == pytest.approx([20 * scale, 30 * scale], abs=0.06)
    assert [rect.text for rect in truth.other] == ["Nodule"]
    assert [rect.text for rect in pseudo.own] == [".66"]
    assert pseudo.truth == heat.truth == truth.own
    assert (truth.told, pseudo.told, detector.told) == ("1 box", "score .66, IoU .50", "no box")
    assert heat.overlay is not None


def test_boxes_past_the_fifth_are_counted_not_drawn() -> None:
    many = detections([[i, 0, i + 5, 9] for i in range(8)], [1] * 8, np.linspace(0.1, 0.8, 8))
    detector = case_view(make(detector=many), NAMES, 0).panels[3]
    assert [rect.text for rect in detector.own] == [".80", ".70", ".60", ".50", ".40"]
    assert detector.told == "score .80, IoU .00; 3 more at .30 or less not drawn"


def test_texts_of_boxes_at_one_place_do_not_cover_each_other() -> None:
    same = detections([[40, 20, 60, 40]] * 3, [1] * 3, [0.9, 0.8, 0.7])
    places = [(rect.text_x, rect.text_y) for rect in case_view(make(detector=same), NAMES, 0).panels[3].own]
    assert len(set(places)) == 3


def test_texts_stay_inside_the_drawing() -> None:
    corner = detections([[97, 0, 100, 60]], [1], [0.9])
    (rect,) = case_view(make(detector=corner), NAMES, 0).panels[3].own
    assert 0 <= rect.text_x <= SIDE_PX - 3 * 11
    assert 0 < rect.text_y < 269


@pytest.mark.parametrize(
    ("heat", "told"),
    [
        (None, "no map kept"),
        (np.full((3, 3), np.nan, np.float32), "the map holds NaN: not drawn"),
        (np.full((3, 3), -1.0, np.float32), "the map is empty: nowhere above 0"),
    ],
)
def test_a_map_that_cannot_be_drawn_says_why(heat: Any, told: str) -> None:
    panel = case_view(make(heat=heat), NAMES, 0).panels[1]
    assert (panel.overlay, panel.told) == (None, told)


@pytest.mark.parametrize("shape", [(60, 100), (100, 60)])
def test_the_letterbox_is_undone(shape: tuple[int, int]) -> None:
    """A map that is the letterboxed image itself comes back as the image."""
    height, width = shape
    ramp = (np.arange(height)[:, None] + np.arange(width) * 1.5).astype(np.uint8)
    square, placement = letterbox(ramp, 100)
    back = heat_on_image(square.astype(np.float32), placement, shape)
    assert back.shape == shape
    np.testing.assert_allclose(back, ramp, atol=1e-3)


def test_a_coarse_map_lies_where_its_cell_lies() -> None:
    """Cell (2, 3) of 4 × 4 over a 40 px square that holds a 100 × 60 image at rows 8…32."""
    heat = np.zeros((4, 4), np.float32)
    heat[2, 3] = 1.0
    _, placement = letterbox(np.zeros((60, 100), np.uint8), 40)
    placed = heat_on_image(heat, placement, (60, 100))
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert abs(row + 0.5 - (25 - 8) / 0.4) <= 0.5  # the cell's centre is at (35, 25) of the square
    assert column >= 87  # from the last cell's centre on, the border is repeated


def test_the_map_leaves_the_image_where_it_says_nothing() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[4:6, :2] = 2.0
    view = case_view(make(heat=heat), NAMES, 0)
    shown = decoded(view.panels[1].overlay or "").astype(int)
    assert np.abs(shown[:, 60:] - 90).max() <= 3
    assert shown[30, 3, 0] > 170  # bright at the peak
    assert view.panels[1].told == "peak 2"


def test_large_images_are_made_smaller_and_small_ones_kept() -> None:
    large = np.zeros((1200, 800), np.uint8)
    case = make(image=large, heat=None)
    assert decoded(case_view(case, NAMES, 0).uri).shape == (448, 299)
    assert decoded(case_view(make(), NAMES, 0).uri).shape == (60, 100)


def test_colours_keep_their_order() -> None:
    red = np.zeros((8, 12, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(decoded(jpeg_uri(red)).reshape(-1, 3).mean(axis=0) - [200, 0, 0]).max() < 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image": np.zeros((4, 5, 4), np.uint8)},
            r"expected an image \(h, w\) or \(h, w, 3\) of uint8, got \(4, 5, 4\)",
        ),
        ({"image": np.zeros((4, 5), np.float32)}, "of uint8, got .* of float32"),
        ({"heat": np.zeros((1, 2, 2), np.float32)}, r"expected a map of shape \(h, w\), got \(1, 2, 2\)"),
        ({"placement": None}, "a map needs its placement"),
        ({"kind": "pretty"}, "expected a kind among best, typical, worst, got 'pretty'"),
    ],
)
def test_a_case_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(DataError, match="unknown finding 'Edema'; expected one of"):
        case_view(replace(make(), finding="Edema"), NAMES, 0)
    with pytest.raises(DataError, match="expected class ids below 1, got 1"):
        case_view(replace(make(), finding="Nodule"), NAMES[:1], 0)


def test_faint_boxes_are_counted_but_not_drawn_unless_they_are_the_best() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 30, 30]], np.float32)
    kinds = np.zeros(3, np.int64)
    mixed = Detections(boxes, kinds, np.array([0.6, 0.04, 0.01]))
    faint = Detections(boxes, kinds, np.array([0.03, 0.02, 0.01]))
    assert _drawn(mixed).score.tolist() == pytest.approx([0.6])
    assert _drawn(faint).score.tolist() == pytest.approx([0.03])
    assert len(_drawn(Detections.empty())) == 0
    assert _told(mixed, Detections.empty()) == "score .60; 2 more at .04 or less not drawn"
