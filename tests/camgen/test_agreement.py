"""How far members agree on a box: by hand, and the same in search and recipe."""

from __future__ import annotations

import numpy as np
import pytest

from camgen.agreement import mass_of, with_agreement
from camgen.calibration import FEATURES
from camgen.candidates import Cutter, Option
from camgen.components import SHAPE_NAMES, fine_map
from camgen.fusion import Fusion
from camgen.maps import MapSet
from camgen.recipe import Threshold
from camgen.scoring import PaddedTruth
from camgen.sources import MapSource
from camgen.tuning import TuneFinding
from tests.camgen.makers import components, placed, whole
from tests.camgen.test_recipe import entry, map_set, recipe, wild_calibration

COLUMN = SHAPE_NAMES.index("agreement")


def test_the_least_share_over_the_largest() -> None:
    one, two = np.zeros((10, 10)), np.zeros((10, 10))
    one[1:3, 1:5], one[8, 8] = 1.0, 2.0  # 8 of 10 in the first box
    two[1:3, 3:5], two[5:8, 0:2] = 0.1, 0.1  # 4 of 10, on another scale
    found = components([[[0.1, 0.1, 0.5, 0.3], [0.8, 0.8, 0.9, 0.9], [0.6, 0.0, 0.7, 0.1]]])
    agreed = with_agreement(found, [mass_of([whole(one)]), mass_of([whole(two)])])
    assert agreed.shape[0, :, COLUMN] == pytest.approx([0.4 / 0.8, 0, 0])  # the others: one has nothing, none has
    assert (found.shape == 0).all()  # what was given is left alone
    assert with_agreement(found, [mass_of([whole(one)])]) is found
    same = with_agreement(found, [mass_of([whole(own)]) for own in (one, one * 1e-4)])
    assert same.shape[0, :2, COLUMN] == pytest.approx([1, 1])
    nowhere = with_agreement(found, [mass_of([whole(own)]) for own in (one, two * 0)])
    assert (nowhere.shape[0, :, COLUMN] == 0).all()


@pytest.mark.parametrize("n", [1, 3])
def test_each_image_has_its_own_part_of_the_square(n: int) -> None:
    """Films of several shapes, on grids of two sizes; under options too."""
    places = [placed(*[(20, 40), (40, 20), (40, 40)][i], 40) for i in range(n)]
    rng = np.random.default_rng(n)
    boxes = np.repeat(np.array([[[0.0, 0.0, 0.5, 1.0], [0.25, 0.25, 0.75, 0.75]]]), n, axis=0)
    found = components(boxes)
    maps = [rng.random((n, side, side)).astype(np.float32) for side in (8, 16)]
    members = [mass_of([fine_map(own[i], places[i], 8) for i in range(n)]) for own in maps]
    agreed = with_agreement(found, members).shape[..., COLUMN]
    for i, place in enumerate(places):
        for j, (x0, y0, x1, y1) in enumerate(boxes[i].tolist()):
            shares = []
            for own in maps:
                cells = own.shape[1]
                rows, columns = (slice(s.start * cells // 40, s.stop * cells // 40) for s in place.inner())
                part = own[i, rows, columns].astype(np.float64)
                height, width = part.shape
                inside = part[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
                shares.append(inside.sum() / part.sum())
            assert agreed[i, j] == pytest.approx(min(shares) / max(shares))
    under = with_agreement(found.with_options, members)
    assert under.shape.shape == (1, n, 2, len(SHAPE_NAMES))
    assert (under.shape[0, ..., COLUMN] == agreed).all()


def finding(n: int) -> TuneFinding:
    none = PaddedTruth(np.zeros((n, 0, 4)), np.zeros((n, 0), bool))
    return TuneFinding(np.arange(n), none, np.arange(n) % 2)


@pytest.mark.parametrize("fusion", ["maps", "boxes"])
def test_search_and_recipe_see_the_same_agreement(fusion: Fusion) -> None:
    maps: MapSet = map_set(5, 1)
    made = recipe(entry("A", fusion=fusion, calibration=wild_calibration()), resolution=48)
    cut = Threshold(kind="range", value=0.5)
    option = Option((0, 1), MapSource("pcam"), 0.0, cut, 2, 0.0, fusion)
    cutter = Cutter(maps, finding(5), 0, 48, 0.0, agreement=True)
    (mapped,), (own,) = made.maps(maps), made.findings
    seen, used = cutter.components(option), made.components(own, mapped, maps.placements)
    assert len(mapped.members) == 2
    assert used.boxes_rel == pytest.approx(seen.boxes_rel)
    assert used.shape == pytest.approx(seen.shape)
    agreement = seen.shape[seen.valid][:, COLUMN]
    assert ((agreement > 0) & (agreement <= 1)).all()  # 1: the whole image is in the box
    assert agreement.min() < 0.5
    plain = Cutter(maps, finding(5), 0, 48, 0.0).components(option)
    assert plain.shape[plain.valid][:, COLUMN] == pytest.approx(1)
    assert FEATURES[-1] == "agreement"
