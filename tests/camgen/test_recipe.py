"""The recipe: YAML round trip, application, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camgen.calibration import FEATURES, Calibration
from camgen.layers import LAST
from camgen.maps import MapName, MapSet
from camgen.offsets import LayerOffset
from camgen.prior import Prior, fit_prior
from camgen.recipe import FindingMaps, FindingRecipe, Recipe, Threshold, TuneScores, to_pixels
from tests.camgen.makers import named, placed
from weakray.errors import ConfigError, DataError
from weakray.files import read_yaml, write_yaml


def entry(name: str, **changes: Any) -> FindingRecipe:
    values: dict[str, Any] = {
        "name": name,
        "members": (0, 1),
        "method": "pcam",
        "max_boxes": 2,
        "tune": TuneScores(),
        "threshold": Threshold(kind="range", value=0.5),
    }
    return FindingRecipe(**(values | changes))


def recipe(*entries: FindingRecipe, **changes: Any) -> Recipe:
    return Recipe(**({"ensemble_sha256": "e" * 64, "resolution": 1, "min_area": 0.0, "findings": entries} | changes))


def map_set(n: int = 3, k: int = 2, side: int = 16, seed: int = 0) -> MapSet:
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((2, n, k, side, side)), axis=-1), axis=-2)
    maps = (1 / (1 + np.exp(-smooth))).astype(np.float32)
    return MapSet(
        [f"i{i}" for i in range(n)],
        [placed(40 + i, 80, side) for i in range(n)],
        named({"pcam": maps, "gradcam": (maps * 1e-4).astype(np.float32)}),
        rng.random((n, k)),
        rng.random((2, n, k)),
        (side, side),
    )


def wild_calibration() -> Calibration:
    rng = np.random.default_rng(1)
    f = len(FEATURES)
    return Calibration(
        features=FEATURES,
        strength=30.0,
        centre=tuple(rng.random(f).tolist()),
        spread=tuple(rng.uniform(0.1, 1, f).tolist()),
        coefficients=tuple(tuple(row) for row in rng.normal(0, 0.02, (f + 1, 4)).tolist()),
    )


@pytest.mark.parametrize("n", [1, 3])
def test_yaml_round_trip_gives_identical_boxes(tmp_path: Path, n: int) -> None:
    made = recipe(
        entry("A", calibration=wild_calibration(), gate=0.1),
        entry("B", method="gradcam", members=(1,), threshold=Threshold(kind="range", value=1 / 3)),
        entry("C", method="random", members=()),
        entry("D", threshold=Threshold(kind="value", value=0.3), max_boxes=1),
        resolution=64,
    )
    made.save(tmp_path / "recipe.yaml")
    again = Recipe.load(tmp_path / "recipe.yaml")
    assert again == made
    assert again.sha256 == made.sha256
    maps = map_set(n, 4)
    one, two = (r.apply(r.maps(maps), r.probabilities(maps), maps.placements) for r in (made, again))
    assert sum(len(found) for found in one) > n
    for a, b in zip(one, two, strict=True):
        assert a.boxes_xyxy_px.tobytes() == b.boxes_xyxy_px.tobytes()
        assert a.score.tobytes() == b.score.tobytes()
        assert a.class_id.tolist() == b.class_id.tolist()


def test_the_hash_sees_every_setting() -> None:
    base = recipe(entry("A"), entry("B"))
    others = [
        base.model_copy(update={"resolution": 2}),
        recipe(entry("A"), entry("B", gate=0.01)),
        recipe(entry("A"), entry("B", calibration=wild_calibration())),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 4


def test_drawn_maps_become_scored_boxes_in_image_pixels() -> None:
    place = placed(40, 80, 16)  # rows 4 to 12 of the square, 5 image pixels a cell
    maps = [np.zeros((1, 16, 16), np.float32) for _ in range(2)]
    maps[0][0, 5:7, 2:6] = 0.8
    maps[0][0, 9:11, 10:12] = 0.6
    maps[1][0, 6:8, 6:8] = 0.9
    made = recipe(entry("A", threshold=Threshold(kind="value", value=0.4)), entry("B", gate=0.5))
    drawn = [FindingMaps(one) for one in maps]
    (found,) = made.apply(drawn, np.array([[0.5, 0.4]]), [place])
    assert found.class_id.tolist() == [0, 0]  # B is gated
    assert found.score == pytest.approx([0.4, 0.3])
    assert found.boxes_xyxy_px[0] == pytest.approx([10, 5, 30, 15])
    # 0.4 lies a third of the way from 0.6 to 0, so edges lie 1/3 of a cell past the outer centres
    third = 1 / 3 - 0.5
    assert found.boxes_xyxy_px[1] == pytest.approx(
        [5 * (10 - third), 5 * (5 - third), 5 * (12 + third), 5 * (7 + third)], abs=1e-4
    )
    (both,) = made.apply(drawn, np.array([[0.5, 0.5]]), [place])
    assert both.class_id.tolist() == [1, 0, 0]


def test_members_are_averaged_raw_and_each_finding_has_its_own_method() -> None:
    maps = map_set()
    made = recipe(entry("A"), entry("B", method="gradcam", members=(1,)))
    found = made.maps(maps)
    own = [maps.maps[MapName(member, "pcam", LAST, 0)] for member in (0, 1)]
    assert found[0].mean == pytest.approx((own[0] + own[1]) / 2)
    assert found[0].members == found[1].members == ()
    assert (found[1].mean == maps.maps[MapName(1, "gradcam", LAST, 1)]).all()
    assert made.wanted == [
        MapName(0, "pcam", LAST, 0),
        MapName(1, "pcam", LAST, 0),
        MapName(1, "gradcam", LAST, 1),
    ]
    assert (made.probabilities(maps) == maps.probabilities).all()
    alone = made.model_copy(update={"probability": "members"}).probabilities(maps)
    assert alone[:, 0] == pytest.approx(maps.member_probabilities[:, :, 0].mean(axis=0))
    assert (alone[:, 1] == maps.member_probabilities[1, :, 1]).all()


def test_a_prior_takes_a_box_from_where_the_finding_never_is() -> None:
    maps = map_set(1, 1)
    drawn = np.zeros((1, 16, 16), np.float32)
    drawn[0, 6:9, 1:4], drawn[0, 6:9, 11:14] = 0.9, 0.8
    maps.maps[MapName(0, "pcam", LAST, 0)] = drawn
    right = fit_prior(np.array([[0.7, 0.3, 1.0, 0.7]]))
    prior = Prior(exponent=1.0, grid=tuple(map(tuple, right.tolist())))
    for changes, x in (({}, 12.5), ({"prior": prior}, 62.5)):
        made = recipe(entry("A", members=(0,), max_boxes=1, **changes))
        (found,) = made.apply(made.maps(maps), np.ones((1, 1)), maps.placements)
        assert found.boxes_xyxy_px[0, [0, 2]].mean() == pytest.approx(x, abs=4)


def test_a_recipe_from_before_offsets_moves_no_map(tmp_path: Path) -> None:
    made = recipe(entry("A", members=(0,)), resolution=64)
    path = tmp_path / "recipe.yaml"
    off = made.model_copy(update={"offsets": (LayerOffset(member=0, layer=LAST, down=0.125, right=0.0),)})
    off.save(path)
    maps = map_set(1, 1)
    drawn = np.zeros((1, 16, 16), np.float32)
    drawn[0, 6:8, 6:9] = 0.9
    maps.maps[MapName(0, "pcam", LAST, 0)] = drawn
    assert Recipe.load(path).maps(maps)[0].mean.shape == (1, 64, 64)
    lower, higher = (one.apply(one.maps(maps), np.ones((1, 1)), maps.placements)[0] for one in (off, made))
    # An eighth of a square of 80 pixels.
    assert lower.boxes_xyxy_px[0] - higher.boxes_xyxy_px[0] == pytest.approx([0, 10, 0, 10], abs=0.3)
    values = read_yaml(path)
    del values["offsets"]
    write_yaml(path, values)
    (same,) = Recipe.load(path).apply(Recipe.load(path).maps(maps), np.ones((1, 1)), maps.placements)
    assert (same.boxes_xyxy_px == higher.boxes_xyxy_px).all()


def test_near_components_are_merged_where_the_recipe_says_so() -> None:
    place = placed(40, 80, 16)
    drawn = np.zeros((1, 16, 16), np.float32)
    drawn[0, 5:7, 2:5] = drawn[0, 5:7, 7:10] = 0.8
    for gap, boxes in ((0.0, 2), (0.13, 1)):
        made = recipe(entry("A", threshold=Threshold(kind="value", value=0.4), merge_gap=gap))
        (found,) = made.apply([FindingMaps(drawn)], np.ones((1, 1)), [place])
        assert len(found) == boxes
    assert found.boxes_xyxy_px[0] == pytest.approx([10, 5, 50, 15])


def test_empty_maps_give_no_box() -> None:
    made = recipe(entry("A"), entry("B"))
    found = made.apply([FindingMaps(np.zeros((3, 8, 8), np.float32))] * 2, np.ones((3, 2)), [placed(30, 44, 32)] * 3)
    assert [len(boxes) for boxes in found] == [0, 0, 0]


@pytest.mark.parametrize(
    ("names", "sha256", "members", "message"),
    [
        (["A"], "e" * 64, 2, r"it is for the findings \['A', 'B'\], the dataset has \['A'\]; search again"),
        (["A", "B"], "f" * 64, 2, r"fitted with another ensemble; name that one, or search again"),
        (["A", "B"], "e" * 64, 1, r"it uses member 1, the ensemble has 1 members"),
    ],
)
def test_refuses_other_findings_and_ensembles(names: list[str], sha256: str, members: int, message: str) -> None:
    made = recipe(entry("A"), entry("B"))
    made.check(["A", "B"], "e" * 64, 2)
    with pytest.raises(DataError, match=message):
        made.check(names, sha256, members)


def test_a_broken_file_is_named_with_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe(entry("A")).save(path)
    values = read_yaml(path)
    values["findings"][0]["threshold"]["valu"] = 0.5
    write_yaml(path, values)
    with pytest.raises(ConfigError, match=r"recipe.yaml.findings.0.threshold.valu: unknown setting"):
        Recipe.load(path)


def test_boxes_keep_a_pixel_and_stay_inside() -> None:
    boxes = np.array([[0.5, 0.5, 0.5001, 0.9], [0.999999, 0.0, 1.0, 0.000001], [0.0, 0.25, 1.0, 0.5]])
    expected = np.array([[39.504, 20, 40.504, 36], [79, 0, 80, 1], [0, 10, 80, 20]])
    assert to_pixels(boxes, (40, 80)) == pytest.approx(expected, abs=1e-3)
