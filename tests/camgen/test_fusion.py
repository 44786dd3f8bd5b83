"""Members' boxes fused: by hand, against the fusion of one image, and the same in search and recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camgen.calibration import Calibration
from camgen.candidates import Cutter, Option
from camgen.components import SHAPE_NAMES, Components
from camgen.fusion import fuse
from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.mapper import map_dataset
from camgen.maps import MapSet
from camgen.recipe import FindingMaps, Recipe, Threshold, to_pixels
from camgen.scoring import PaddedTruth, without_duplicates
from camgen.search import all_options
from camgen.tuning import TuneFinding
from classify.ensemble import Ensemble
from tests.camgen.makers import NAMES, components, films, placed, whole
from tests.camgen.test_components import found_in
from tests.camgen.test_recipe import entry, map_set, recipe, wild_calibration
from tests.camgen.test_search import config
from weakray.boxes.fusion import fuse_boxes
from weakray.coco import load_results
from weakray.files import read_yaml, write_yaml


def drawn(*rectangles: tuple[int, int, int, int, float]) -> np.ndarray:
    """A map of 12 x 12 with rectangles x0, y0, x1, y1 of a value, cut on their borders at half the largest value."""
    values = np.zeros((12, 12), np.float32)
    for x0, y0, x1, y1, value in rectangles:
        values[y0:y1, x0:x1] = value
    return values


def test_two_members_maps_by_hand() -> None:
    one = found_in([whole(drawn((2, 2, 8, 5, 0.8), (8, 8, 11, 11, 0.8)))])
    two = found_in([whole(drawn((3, 2, 9, 5, 0.4)))])
    fused = fuse([one, two], 3)
    # The first boxes overlap by 5 of 7 columns: (0.8 x 2 + 0.4 x 3) / 1.2 and (0.8 x 8 + 0.4 x 9) / 1.2.
    assert fused.valid.tolist() == [[True, True, False]]
    assert fused.boxes_rel[0, 0] * 12 == pytest.approx([7 / 3, 2, 25 / 3, 5])
    assert fused.peak[0] == pytest.approx([(0.8 + 0.4) / 2, 0.8 / 2, 0])  # the second was seen by one member alone
    assert fused.boxes_rel[0, 1] == pytest.approx(one.boxes_rel[0, 1])
    count = SHAPE_NAMES.index("log_count")
    assert fused.shape[0, :2, count] == pytest.approx([(0.8 * np.log(2) + 0.4 * np.log(1)) / 1.2, np.log(2)])
    swapped = fuse([two, one], 3)
    for part in ("boxes_rel", "valid", "peak", "shape"):
        assert getattr(swapped, part) == pytest.approx(getattr(fused, part))


def test_disjoint_boxes_stay_apart_and_lose_half() -> None:
    fused = fuse([components([[[0.1, 0.1, 0.3, 0.3]]], [[0.6]]), components([[[0.5, 0.5, 0.9, 0.8]]], [[1.0]])], 2)
    assert fused.boxes_rel[0] == pytest.approx(np.array([[0.5, 0.5, 0.9, 0.8], [0.1, 0.1, 0.3, 0.3]]))
    assert fused.peak[0] == pytest.approx([0.5, 0.3])
    assert fuse([components([[[0.1, 0.1, 0.3, 0.3]]], [[0.6]])] * 3, 2).peak[0, 0] == pytest.approx(0.6)


def test_at_most_so_many_boxes_the_best_of_all_members() -> None:
    one = components([[[0.0, 0.0, 0.1, 0.1], [0.2, 0.0, 0.3, 0.1]]], [[0.9, 0.5]])
    two = components([[[0.2, 0.0, 0.3, 0.1], [0.6, 0.0, 0.7, 0.1]]], [[0.8, 0.7]])
    fused = fuse([one, two], 2)
    assert fused.peak[0] == pytest.approx([0.65, 0.45])  # found by both; then the best that one found
    assert fused.boxes_rel[0, 0] == pytest.approx([0.2, 0.0, 0.3, 0.1])


def test_a_member_with_two_boxes_in_a_group_counts_once() -> None:
    one = components([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.45]]], [[1.0, 0.8]])
    fused = fuse([one, components([[[0.6, 0.6, 0.7, 0.7]]], [[0.1]])], 3)
    assert fused.peak[0] == pytest.approx([0.9 / 2, 0.05, 0])
    assert fuse([one, one], 3).peak[0] == pytest.approx([0.9, 0, 0])  # four boxes, and still no more than 1


def test_images_without_a_box_of_any_member_have_none() -> None:
    flat = whole(np.zeros((12, 12)))
    fused = fuse([found_in([flat, flat]), found_in([flat, whole(drawn((2, 2, 8, 5, 0.8)))])], 2)
    assert fused.valid.tolist() == [[False, False], [True, False]]
    assert fused.empty.tolist() == [True, False]
    assert np.isfinite(fused.boxes_rel).all()
    assert fuse([found_in([]), found_in([])], 2).boxes_rel.shape == (0, 2, 4)


@pytest.mark.parametrize("members", [2, 3])
def test_many_candidates_at_once_are_fused_as_one_image_is(members: int) -> None:
    rng = np.random.default_rng(members)
    shape = (4, 5, 3)  # options, images, places
    found = []
    for _ in range(members):
        low, side = rng.uniform(0, 0.3, (*shape, 2)), rng.uniform(0.2, 0.6, (*shape, 2))
        peak = np.sort(rng.choice([0.2, 0.5, 0.5, 0.9], shape))[..., ::-1]
        valid = np.sort(rng.random(shape) < 0.8)[..., ::-1]
        boxes = np.concatenate([low, low + side], axis=-1)
        looks = rng.random((*shape, len(SHAPE_NAMES)))
        found.append(Components(boxes, valid, peak, looks, np.zeros(5, bool)))
    fused = fuse(found, 9, 0.4)
    groups = 0
    for o, i in np.ndindex(shape[:2]):
        valid = np.concatenate([one.valid[o, i] for one in found])
        boxes, peak, looks = (
            np.concatenate([getattr(one, part)[o, i] for one in found])[valid]
            for part in ("boxes_rel", "peak", "shape")
        )
        whose = np.repeat(np.arange(members), 3)[valid]
        expected = []
        for one in fuse_boxes(boxes, peak, 0.4):
            rows = list(one.members)
            share = len(set(whose[rows].tolist())) / members
            mean = np.average(looks[rows], axis=0, weights=peak[rows])
            expected.append((peak[rows].mean() * share, one.box_xyxy, mean))
        expected.sort(key=lambda group: -group[0])
        kept = fused.valid[o, i]
        assert kept.sum() == len(expected)
        assert fused.peak[o, i, kept] == pytest.approx([group[0] for group in expected])
        for place, (_, box, mean) in enumerate(expected):
            same = [j for j, group in enumerate(expected) if abs(group[0] - fused.peak[o, i, place]) < 1e-9]
            assert any(fused.boxes_rel[o, i, place] == pytest.approx(expected[j][1]) for j in same)
            if len(same) == 1:
                assert fused.boxes_rel[o, i, place] == pytest.approx(box)
                assert fused.shape[o, i, place] == pytest.approx(mean)
        groups += len(expected)
    assert groups < sum(int(one.valid.sum()) for one in found)


def test_a_recipe_fuses_boxes_of_drawn_maps_in_image_pixels() -> None:
    place = placed(24, 24, 12)  # two pixels a cell
    own = (drawn((2, 2, 8, 5, 0.8))[None], drawn((3, 2, 9, 5, 0.4))[None])
    made = recipe(entry("A", fusion="boxes"))
    (found,) = made.apply([FindingMaps((own[0] + own[1]) / 2, own)], np.array([[0.5]]), [place])
    assert found.boxes_xyxy_px == pytest.approx(np.array([[14 / 3, 4, 50 / 3, 10]]), abs=1e-4)
    assert found.score == pytest.approx([0.5 * 0.6])


def test_each_members_maps_are_cut_on_their_own_grid_and_the_mean_is_shown() -> None:
    maps = map_set()
    made = recipe(entry("A", fusion="boxes"), entry("B", method="gradcam", members=(1,), fusion="boxes"))
    both, alone = made.maps(maps)
    assert both.mean == pytest.approx((both.members[0] + both.members[1]) / 2)
    assert len(alone.members) == 1
    assert (alone.members[0] == alone.mean).all()
    averaged = recipe(entry("A"), entry("B", method="gradcam", members=(1,)))
    one, two = (r.apply(r.maps(maps), r.probabilities(maps), maps.placements) for r in (made, averaged))
    for a, b in zip(one, two, strict=True):  # one member alone has nothing to fuse
        assert (a.of_class(1).boxes_xyxy_px == b.of_class(1).boxes_xyxy_px).all()


@pytest.mark.parametrize("calibration", [None, wild_calibration()])
def test_yaml_round_trip_and_recipes_from_before_the_fusion(tmp_path: Path, calibration: Calibration | None) -> None:
    made = recipe(entry("A", fusion="boxes", calibration=calibration), resolution=64)
    path, maps = tmp_path / "recipe.yaml", map_set(3, 1)
    made.save(path)
    again = Recipe.load(path)
    assert again == made
    one, two = (r.apply(r.maps(maps), r.probabilities(maps), maps.placements) for r in (made, again))
    assert sum(len(found) for found in one) > 3
    for a, b in zip(one, two, strict=True):
        assert a.boxes_xyxy_px.tobytes() == b.boxes_xyxy_px.tobytes()
    values = read_yaml(path)
    del values["findings"][0]["fusion"], values["fusion_iou"]
    write_yaml(path, values)
    old = Recipe.load(path)
    assert old == recipe(entry("A", calibration=calibration), resolution=64)
    assert old.sha256 != made.sha256


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_generate_makes_the_boxes_that_the_search_looked_at(
    tmp_path: Path, ensemble_folder: Path, exponent: float
) -> None:
    dataset, ensemble = films(tmp_path / "data", ["test"] * 4, {}), Ensemble.load(ensemble_folder)
    cut = Threshold(kind="range", value=0.4)
    asked: dict[str, Any] = {"fusions": ("boxes",), "sources": ("pcam",), "range_thresholds": (0.4,)}
    (option,) = all_options(
        config(**asked, value_thresholds=(), max_boxes=(2,), priors=(exponent,), single_members=False), 2
    )
    assert option == Option((0, 1), option.source, exponent, cut, 2, 0.0, "boxes")
    none = PaddedTruth(np.zeros((4, 0, 4)), np.zeros((4, 0), bool))
    finding = TuneFinding(np.arange(4), none, np.arange(4) % 2)
    # Without a true box the prior is 1 everywhere, in the search; a recipe then has none.
    made = Recipe(
        ensemble_sha256=ensemble.sha256,
        findings=tuple(entry(name, fusion=option.fusion, threshold=cut) for name in NAMES),
    )
    made.save(tmp_path / "recipe.yaml")
    known = {"data": dataset.root, "ensemble": ensemble_folder, "recipe": tmp_path / "recipe.yaml"}
    found = load_results(generate(GenerateConfig(**known, out=tmp_path / "out", splits=("test",), device="cpu")).boxes)
    image_ids = dataset.ids_of("test")
    maps = MapSet.concat(list(map_dataset(ensemble, dataset, image_ids, made.wanted, made.making(64), 16, 1)))
    boxes = 0
    for k in range(len(NAMES)):
        seen = Cutter(maps, finding, k, made.resolution, made.min_area).components(option)
        keep = without_duplicates(seen.boxes_rel, seen.valid, made.duplicate_iou)
        for i, image_id in enumerate(image_ids):
            own = found[image_id].of_class(k)
            expected = to_pixels(seen.boxes_rel[i, keep[i]], dataset.size_hw(image_id))
            assert own.boxes_xyxy_px == pytest.approx(expected, abs=1e-3)
            assert own.score == pytest.approx(maps.probabilities[i, k] * seen.peak[i, keep[i]], abs=1e-6)
            boxes += len(own)
    assert boxes > 6


def test_one_member_alone_is_tried_once() -> None:
    tried = all_options(config(single_members=True), 2)
    assert {(option.members, option.fusion) for option in tried} == {
        ((0, 1), "maps"),
        ((0,), "maps"),
        ((1,), "maps"),
        ((0, 1), "boxes"),
    }
    assert len(set(tried)) == len(tried)
    for fusions in (("maps",), ("boxes",), ("maps", "boxes")):
        alone = all_options(config(single_members=True, fusions=fusions), 1)
        assert {(option.members, option.fusion) for option in alone} == {((0,), "maps")}
