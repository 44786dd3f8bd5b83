"""Smooth random maps: what boxes are worth when the map knows nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from camgen.maps import MapArray

_WIDTH = 1 / 8  # standard deviation of the blur, as a fraction of the map


def random_maps(image_ids: Sequence[str], finding: str, grid_hw: tuple[int, int], seed: int) -> MapArray:
    """`(n, h, w)` in (0, 1): blurred noise through the normal distribution, so that each value is uniform.

    A map depends on its image's id, the finding's name and the seed, not on the order or number of images.
    """
    sigma = (grid_hw[0] * _WIDTH, grid_hw[1] * _WIDTH)
    impulse = np.zeros(grid_hw)
    impulse[grid_hw[0] // 2, grid_hw[1] // 2] = 1
    # The blurred noise has the same deviation everywhere: the root of the kernel's sum of squares.
    deviation = np.sqrt((gaussian_filter(impulse, sigma, mode="wrap") ** 2).sum())
    maps = np.empty((len(image_ids), *grid_hw), np.float32)
    for i, image_id in enumerate(image_ids):
        digest = hashlib.sha256(f"{seed}\0{finding}\0{image_id}".encode()).digest()
        noise = np.random.default_rng(list(digest)).standard_normal(grid_hw)
        maps[i] = ndtr(gaussian_filter(noise, sigma, mode="wrap") / deviation)
    return maps
