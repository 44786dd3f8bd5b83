from __future__ import annotations

import numpy as np

from camgen.random_maps import random_maps

IDS = [f"i{i}" for i in range(60)]


def test_a_map_depends_on_id_finding_and_seed_alone() -> None:
    maps = random_maps(IDS[:3], "Mass", (9, 13), 0)
    assert maps.shape == (3, 9, 13)
    assert (random_maps(IDS[2::-1], "Mass", (9, 13), 0) == maps[::-1]).all()
    assert (random_maps(IDS[1:2], "Mass", (9, 13), 0) == maps[1:2]).all()
    assert (random_maps(IDS[:3], "Nodule", (9, 13), 0) != maps).any()
    assert (random_maps(IDS[:3], "Mass", (9, 13), 1) != maps).any()
    assert (maps[0] != maps[1]).any()


def test_values_are_uniform_and_smooth() -> None:
    maps = random_maps(IDS, "Mass", (24, 32), 0).astype(np.float64)
    assert ((maps > 0) & (maps < 1)).all()
    # Neighbours are alike, so quantiles are those of some hundred draws and not of 46,080.
    assert np.abs(np.quantile(maps, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.05
    assert np.abs(maps.mean(axis=0) - 0.5).max() < 0.2  # no place is special
    assert np.abs(np.diff(maps, axis=2)).mean() < 0.1
