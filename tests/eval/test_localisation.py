"""Localisation diagnostics by hand, and the verb on a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.average_precision import match
from eval.localisation import LocalisationConfig, run
from eval.localisation_scores import (
    ACCURACY_OVERLAPS,
    CUTS,
    FROC_RATES,
    ImageMaps,
    best_iou_at_cuts,
    count_boxes,
    count_maps,
    froc,
    iobb,
    points_at,
)
from weakray.coco import BoxTruth, save_results
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_json
from weakray.imaging import letterbox

ONCE = np.ones((1, 3))


def boxes(*rows: tuple[Sequence[float], int, float]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32),
    )


# Image a: a true box of finding 0. Image b: none, but looked at. Image c: one of finding 0 that nobody annotated.
TRUE = {"a": boxes(([0, 0, 10, 10], 0, 1)), "b": Detections.empty(), "c": boxes(([0, 0, 10, 10], 0, 1))}
TRUTH = BoxTruth(TRUE, frozenset({("a", 0), ("b", 0), ("b", 1)}))
FOUND = {
    "a": boxes(([0, 0, 10, 5], 0, 0.9), ([8, 8, 12, 12], 0, 0.5)),  # IoU 0.5, IoBB 1; IoU 4/112, IoBB 0.25
    "b": boxes(([0, 0, 4, 4], 0, 0.7), ([0, 0, 4, 4], 1, 0.7)),
    "c": boxes(([0, 0, 10, 10], 0, 0.8)),
}


def test_iobb_by_hand() -> None:
    found, true = np.array([[0, 0, 10, 5], [8, 8, 12, 12.0]]), np.array([[0, 0, 10, 10], [20, 20, 30, 30.0]])
    assert iobb(found, true) == pytest.approx(np.array([[1, 0], [4 / 16, 0]]))


def test_accuracy_and_false_boxes_by_hand() -> None:
    counted = count_boxes(FOUND, TRUTH, ["a", "b", "c"], 2)
    at = {overlap: i for i, overlap in enumerate(ACCURACY_OVERLAPS)}
    iou, iobb_rate = counted.iou.rates(ONCE)[0], counted.iobb.rates(ONCE)[0]
    assert iou[0].tolist() == [1, 1, 1, 1, 1, 0, 0]  # 0.5 is reached at 0.5
    assert iobb_rate[0].tolist() == [1] * 7
    assert np.isnan(iou[1]).all()
    false = counted.false_iou.rates(ONCE)[0]
    assert false[0, at[0.1]] == 1  # two false boxes on two annotated images
    assert false[0, at[0.6]] == 1.5
    assert false[1, at[0.1]] == 1
    assert counted.false_iobb.rates(ONCE)[0, 0, at[0.2]] == 0.5  # the corner box holds a quarter of itself
    twice_b = counted.false_iou.rates(np.array([[1.0, 2.0, 5.0]]))[0]
    assert twice_b[0, at[0.1]] == pytest.approx(3 / 3)
    assert counted.false_iou.rates(np.array([[0.0, 1.0, 1.0]]))[0, 0, 0] == 1


def test_froc_by_hand() -> None:
    true = {f"i{i}": boxes(([0, 0, 10, 10], 0, 1)) if i < 4 else Detections.empty() for i in range(8)}
    truth = BoxTruth(true, frozenset((image_id, 0) for image_id in true))
    hit, miss = [0, 0, 10, 10], [20, 20, 30, 30]
    found = {
        "i0": boxes((hit, 0, 0.9)),
        "i4": boxes((miss, 0, 0.8)),  # 1 false box in 8 images: 1/8
        "i1": boxes((hit, 0, 0.7)),
        "i5": boxes((miss, 0, 0.6), (miss, 0, 0.5)),  # 3/8
        "i2": boxes((hit, 0, 0.5)),  # of equal score with a false one: they come together
    }
    matches = match(found, truth, 2, [0.5])
    rates = froc(matches, truth, 0, np.ones((1, 8)))[0]
    expected = {0.125: 0.5, 0.25: 0.5, 0.5: 0.75, 1.0: 0.75}
    assert [rates[0, FROC_RATES.index(rate)] for rate in expected] == list(expected.values())
    assert np.isnan(rates[1]).all()
    # Without the false box of 0.8, two hits and then the next false one come within 1/7.
    weights = np.ones((1, 8))
    weights[0, matches.image_ids.index("i4")] = 0
    assert froc(matches, truth, 0, weights)[0, 0, 0] == 0.5
    nothing = froc(match({}, truth, 1, [0.5]), truth, 0, np.ones((3, 8)))
    assert (nothing == 0).all()


@pytest.mark.parametrize(("tolerance", "expected"), [(0.0, False), (0.04, False), (0.06, True)])
def test_pointing_game_with_tolerance(tolerance: float, expected: bool) -> None:
    # 80 x 40 px in a square of 80: rows 20 to 60. A map of 8 x 8 has cells of 10 px; cell (3, 5) lies at (55, 15).
    place = letterbox(np.zeros((40, 80), np.uint8), 80)[1]
    heat = np.zeros((8, 8))
    heat[3, 5], heat[0, 0] = 1, 2  # the higher peak lies over the padding
    assert points_at(heat, place, np.array([[54, 14, 56, 16.0]]), 0)
    assert points_at(heat, place, np.array([[59, 10, 70, 20.0]]), tolerance) is expected  # 4 px of 80 away


def test_best_iou_at_cuts_by_hand() -> None:
    place = letterbox(np.zeros((40, 80), np.uint8), 80)[1]
    heat = np.zeros((80, 80), np.float32)
    heat[25:35, 10:30], heat[25:35, 10:20] = 0.5, 1.0
    # In the image: rows 5 to 15; columns 10 to 30 below half of the range, 10 to 20 above.
    best = best_iou_at_cuts(heat, place, np.array([[10, 5, 20, 15.0], [60, 0, 70, 10]]), grid_px=80)
    assert best[CUTS.index(0.2)] == pytest.approx(0.5)
    assert best[CUTS.index(0.6)] == pytest.approx(1.0)


def test_max_box_acc_takes_the_best_cut_for_all_images() -> None:
    place = letterbox(np.zeros((40, 80), np.uint8), 80)[1]
    wide, narrow = np.zeros((1, 80, 80), np.float32), np.zeros((1, 80, 80), np.float32)
    for heat in (wide, narrow):
        heat[0, 25:35, 10:30], heat[0, 25:35, 10:14] = 0.5, 1.0
    true = {"a": boxes(([10, 5, 30, 15], 0, 1)), "b": boxes(([10, 5, 14, 15], 0, 1)), "c": boxes(([0, 0, 9, 9], 0, 1))}
    truth = BoxTruth(true, frozenset((image_id, 0) for image_id in true))
    maps = {"a": ImageMaps(wide, place), "b": ImageMaps(narrow, place), "c": ImageMaps(np.zeros((1, 8, 8)), place)}
    counted = count_maps(maps, truth, ["a", "b", "c"], 1, 0.0)
    # No cut serves a and b: low gives IoU 1 and 0.2, high 0.2 and 1. c's map points nowhere.
    assert counted.max_box_acc(ONCE)[0, 0] == pytest.approx(1 / 3)
    assert counted.max_box_acc(np.array([[1.0, 0, 0]]))[0, 0] == pytest.approx(1)
    assert counted.pointing.rates(ONCE)[0, 0, 0] == pytest.approx(2 / 3)
    assert (counted.pairs.tolist(), counted.empty.tolist()) == ([3], [1])


def test_images_without_maps_are_left_out() -> None:
    counted = count_maps({}, TRUTH, ["a", "b", "c"], 2, 0.0)
    assert counted.pairs.tolist() == [0, 0]
    assert np.isnan(counted.pointing.rates(ONCE)).all()


@pytest.fixture
def folder(tmp_path: Path, dataset: Dataset) -> LocalisationConfig:
    truth = dataset.truth_of("test")
    save_results(tmp_path / "boxes.json", truth.boxes, dataset.image_ids)
    for image_id in truth.boxes:
        height, width = dataset.size_hw(image_id)
        side = max(height, width)
        maps = np.full((len(dataset.taxonomy), side, side), 0.0, np.float16)
        place = letterbox(np.zeros((height, width), np.uint8), side)[1]
        for k in set(truth.boxes[image_id].class_id.tolist()):
            box = truth.boxes[image_id].of_class(k).boxes_xyxy_px[:1]
            x0, y0, x1, y1 = place.forward(box)[0].round().astype(int)
            maps[k, y0:y1, x0:x1] = 1
        (tmp_path / "maps").mkdir(exist_ok=True)
        np.savez(tmp_path / "maps" / f"{image_id}.npz", maps=maps)
    return LocalisationConfig(
        data=dataset.root, boxes=tmp_path / "boxes.json", maps=tmp_path / "maps", out=tmp_path / "out.json", draws=20
    )


def test_true_boxes_and_their_maps_are_perfect(folder: LocalisationConfig) -> None:
    result = run(folder)
    assert result.pointing == {"value": 1, "low": 1, "high": 1}
    assert result.max_box_acc_v2 == {"value": 1, "low": 1, "high": 1}
    assert folder.out is not None
    scores: dict[str, Any] = read_json(folder.out)["diagnostics"]
    assert scores["T(IoU 0.7)"]["value"] == scores["T(IoBB 0.7)"]["value"] == scores["FROC 0.125"]["value"] == 1
    assert scores["false boxes an image (IoU 0.7)"]["value"] == 0
    assert "MaxBoxAccV2 (diagnostic)" in result.table
    boxes_alone = run(folder.model_copy(update={"maps": None}))
    assert boxes_alone.pointing is None
    assert boxes_alone.max_box_acc_v2 is None


def test_refusals(folder: LocalisationConfig, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: expected maps of images with true boxes of 'test', found none"):
        run(folder.model_copy(update={"maps": tmp_path / "none"}))
    one = next((tmp_path / "maps").glob("*.npz"))
    np.savez(one, other=np.zeros(3))
    with pytest.raises(DataError, match=r"expected an array `maps` \(\d+, h, w\), found \['other'\]"):
        run(folder)
    save_results(tmp_path / "boxes.json", {"stranger": Detections.empty()}, ["stranger"])
    with pytest.raises(DataError, match="1 images are not in .*, e.g. 'stranger'; name the dataset"):
        run(folder)
