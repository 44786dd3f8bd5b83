"""Random streams that depend on names alone, never on the order in which things are drawn."""

from __future__ import annotations

import zlib

import numpy as np

SHARED = -1  # stands for an image number in streams that all films of a patient share


def stream(seed: int, patient: int, image: int, purpose: str, number: int = 0) -> np.random.Generator:
    """A generator for one purpose of one image (or, with SHARED, of all images of the patient).

    Two streams with different arguments are independent, so leaving out one finding changes no other, and any
    number of workers draws the same films.
    """
    key = (patient, image + 1, zlib.crc32(purpose.encode()), number)  # a spawn key holds no negative number
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))
