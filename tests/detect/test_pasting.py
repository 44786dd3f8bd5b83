"""Findings pasted from annotated images: what is added where, what is left alone, and that off is off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detect.augment import AugmentConfig
from detect.batches import batches
from detect.pasting import PasteConfig, Region, Regions, cut_regions, paste
from detect.train import run as train
from detect.yolo_folder import Example
from tests.detect.conftest import DatasetMaker, config_of
from weakray.boxes.geometry import xyxy_to_cxcywh_rel

SIZE = 96
ALWAYS = PasteConfig(probability=1, most=1, empty=0)
BOX = (30.0, 40.0, 42.0, 50.0)
NO_BOX = np.zeros((0, 4), np.float32)


def film(*boxes: tuple[float, float, float, float], classes: tuple[int, ...] = (), grey: int = 80) -> Example:
    """A flat image, 60 grey levels brighter inside its boxes."""
    image = np.full((SIZE, SIZE, 1), grey, np.uint8)
    for x0, y0, x1, y1 in {*boxes}:
        image[int(y0) : int(y1), int(x0) : int(x1)] += np.uint8(60)
    relative = xyxy_to_cxcywh_rel(np.array(boxes, np.float32), (SIZE, SIZE)).astype(np.float32)
    weights = np.full(len(boxes), 0.5, np.float32)
    return Example("film", image, np.array(classes, np.int64), relative, weights, np.ones(3, np.float32))


def striped() -> Example:
    image = np.tile(np.where(np.arange(SIZE) // 6 % 2, 60, 120).astype(np.uint8)[:, None, None], (1, SIZE, 1))
    return replace(film(), image=np.ascontiguousarray(image))


def corners(example: Example) -> np.ndarray:
    centre, half = example.boxes_cxcywh_rel[:, :2], example.boxes_cxcywh_rel[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * SIZE


def test_a_region_holds_what_the_finding_adds_and_nothing_else() -> None:
    (region,) = cut_regions([film(BOX, classes=(1,))], ALWAYS, 0).findings
    left, top = region.corner_xy
    whole = np.zeros((SIZE, SIZE))
    height, width = region.added.shape[:2]
    whole[top : top + height, left : left + width] = region.added[..., 0]
    np.testing.assert_allclose(whole[42:48, 33:39], 60, atol=1)  # inside the box, but for its corners
    outside = np.ones((SIZE, SIZE), bool)
    outside[40:50, 30:42] = False
    assert np.abs(whole[outside]).max() <= 1
    np.testing.assert_allclose(region.boxes_xyxy_px + np.tile(region.corner_xy, 2), [BOX], atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_pasted_boxes_lie_around_what_was_added(seed: int, flip: float) -> None:
    regions = cut_regions([film(BOX, classes=(1,))], ALWAYS, 0)
    below = striped()
    made = paste(below, regions, ALWAYS, flip, np.random.default_rng(seed))
    added = made.image[..., 0].astype(int) - below.image[..., 0]
    rows, columns = np.nonzero(added > 25)  # at least .6 of 60, less where the region is rounder than the box
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(corners(made)[0] - seen).max() < 2.5
    assert bool(columns.mean() > SIZE / 2) is (flip == 1.0)
    assert (made.class_id.tolist(), made.weights.tolist()) == ([1], [1.0])
    assert np.abs(added).max() <= 1.15 * 60 + 1
    assert (below.image == striped().image).all()  # the film itself is as it was


def test_parents_come_along_and_their_place_is_cut_once() -> None:
    (region,) = cut_regions([film(BOX, BOX, (60, 10, 70, 20), classes=(0, 2, 1))], ALWAYS, 0).findings[:1]
    assert region.class_id.tolist() == [0, 2]
    assert len(cut_regions([film(BOX, BOX, (60, 10, 70, 20), classes=(0, 2, 1))], ALWAYS, 0).findings) == 2


def test_no_region_cuts_a_finding_in_half_and_none_is_larger_than_told() -> None:
    half = film(BOX, (34, 36, 54, 60), classes=(0, 1))  # a sixth of the other lies in BOX: more than may stay behind
    small = ALWAYS.model_copy(update={"largest": 0.02})  # 184 px of 9216; the other box has 480
    assert cut_regions([half], small, 0).findings == ()
    apart = film(BOX, (60, 60, 80, 84), classes=(0, 1))
    assert [region.class_id.tolist() for region in cut_regions([apart], small, 0).findings] == [[0]]
    around = film(BOX, (5, 5, 90, 90), classes=(0, 1))  # a large one around it stays behind
    assert [region.class_id.tolist() for region in cut_regions([around], small, 0).findings] == [[0]]


def test_nothing_is_pasted_onto_the_same_finding_or_half_out_of_the_square() -> None:
    regions = cut_regions([film(BOX, classes=(1,))], ALWAYS, 0)
    taken = film((20, 30, 52, 60), classes=(1,))
    assert paste(taken, regions, ALWAYS, 0.0, np.random.default_rng(0)) is taken
    other = film((20, 30, 52, 60), classes=(2,))
    assert paste(other, regions, ALWAYS, 0.0, np.random.default_rng(0)).class_id.tolist() == [2, 1]
    (region,) = regions.findings
    out = Regions((replace(region, corner_xy=(-region.added.shape[1] + 3, 40)),))
    empty = film()
    assert paste(empty, out, ALWAYS, 0.0, np.random.default_rng(0)) is empty


def test_empty_regions_come_from_images_without_a_finding_there_and_bring_no_box() -> None:
    regions = cut_regions([film(BOX, classes=(1,)), striped()], ALWAYS, 3)
    assert len(regions.findings) == 1
    assert all(not len(region.class_id) for region in regions.empty)
    drawn = [cut_regions([film(BOX, classes=(1,)), striped()], ALWAYS, seed).empty for seed in range(20)]
    assert {len(empty) for empty in drawn} == {0, 1}  # none where the film itself is drawn
    only = Regions(regions.findings, (Region(np.full((9, 9, 1), 20, np.float32), (40, 40), np.zeros(0, int), NO_BOX),))
    config = ALWAYS.model_copy(update={"empty": 1.0})
    made = paste(film(BOX, classes=(1,)), only, config, 0.0, np.random.default_rng(0))
    assert made.class_id.tolist() == [1]
    assert not (made.image == film(BOX, classes=(1,)).image).all()


def test_off_is_off_and_on_moves_no_other_draw() -> None:
    off, config = AugmentConfig(), AugmentConfig(paste=PasteConfig(probability=0.5))
    films = [film((10 + 9 * i, 12, 22 + 9 * i, 25), classes=(1,)) for i in range(5)]
    assert cut_regions(films, off.paste, 0) == Regions()
    regions = cut_regions(films, config.paste, 0)
    with_none = list(batches(films, Regions(), config, 5, (1, 0), range(4)))
    for a, b in zip(with_none, batches(films, regions, off, 5, (1, 0), range(4)), strict=True):
        assert all(a[name].equal(b[name]) for name in a)
    with_some = list(batches(films, regions, config, 5, (1, 0), range(4)))
    before, after = (np.concatenate([batch["img"] for batch in made]) for made in (with_none, with_some))
    same = (before == after).all(axis=(1, 2, 3))
    assert 3 < same.sum() < 17  # images that nothing was pasted onto are byte for byte those of before


def test_a_training_pastes_true_boxes_alone(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, pseudo_boxes: tuple[object, Path]
) -> None:
    dataset, boxes = make_dataset(name="other"), pseudo_boxes[1]
    pasted = {"augment": {"paste": {"probability": 1.0, "largest": 1.0}}}
    for source, changes in (("tune", True), ("ceiling", True), ("pseudo", False)):
        given = {"source": source, "steps": 3} | ({"boxes": boxes} if source == "pseudo" else {})
        results = [
            train(config_of(dataset, tmp_path / f"{source}{number}", tiny_architecture, **given, **own))
            for number, own in enumerate(({}, pasted))
        ]
        assert (results[0].weights_sha256 != results[1].weights_sha256) is changes, source
