"""Images that look the same: a perceptual hash of each, and all pairs within a radius without comparing every two.

The hash is imagehash's `phash` of 16 × 16 = 256 bits: which of the lowest frequencies of the grey image lie above
their median. On chest films, a copy that was halved, saved again as a poor JPEG or made brighter differs in up to 26
bits; two films of different patients in 50 and more (64 bits would not tell them apart).

The search cuts a hash into 16 bands of 16 bits. Two hashes within `radius` ≤ 31 bits differ in at most one bit in at
least one band (else they would differ in 2 · 16 = 32), so only hashes that share a band but for one bit are compared
(Norouzi, Punjani, Fleet 2012).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from weakray.imaging import Image

BITS, _BANDS, _BAND_BITS = 256, 16, 16
MOST_RADIUS = 2 * _BANDS - 1
_AT_ONCE = 2_000_000  # candidate pairs in memory
Hashes = npt.NDArray[np.uint64]  # (n, 4)
Pairs = npt.NDArray[np.int64]  # (m, 2)


@dataclass(frozen=True)
class Alike:
    """A group of images, each within the radius of another of the group.

    Attributes:
        members: rows of the images, in order.
        distance: the largest number of bits between two that were found alike.
    """

    members: tuple[int, ...]
    distance: int


def perceptual_hash(grey: Image) -> Hashes:
    """The hash `(4,)` of a grey image `(h, w)`."""
    import imagehash
    from PIL import Image as Pillow

    bits = imagehash.phash(Pillow.fromarray(grey), hash_size=16).hash.ravel()
    return np.packbits(bits[_shuffle()]).view(np.uint64)


def _shuffle() -> npt.NDArray[np.int64]:
    """A fixed order of the bits, so that neighbouring frequencies, which go together, fall into different bands."""
    return np.arange(BITS).reshape(_BANDS, _BAND_BITS).T.ravel() * 37 % BITS


def near_pairs(hashes: Hashes, radius: int) -> tuple[Pairs, npt.NDArray[np.int64]]:
    """All pairs (i < j) within the radius, and their distances; of equal hashes, each with the first alone.

    Args:
        hashes: `(n, 4)`.
        radius: bits, 0…`MOST_RADIUS`.

    Raises:
        ValueError: if the radius is one that the search would miss pairs of.
    """
    if not 0 <= radius <= MOST_RADIUS:
        raise ValueError(f"radius: expected 0 to {MOST_RADIUS} bits, got {radius}")
    if not len(hashes):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    unique, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    same = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
    found = [np.stack([first[inverse[same]], same], axis=1)]
    found += [first[pair] for pair in _candidates(unique, radius)]
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs, _distance(hashes[pairs[:, 0]], hashes[pairs[:, 1]])


def _candidates(unique: Hashes, radius: int) -> Iterator[Pairs]:
    """Pairs of rows within the radius, some of them several times."""
    keys = unique.view(np.uint16)  # (n, 16): a band each
    masks = [0, *(1 << bit for bit in range(_BAND_BITS))]
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        ordered = keys[order, band]
        start = np.searchsorted(ordered, np.arange(65537))
        for mask in masks:
            wanted = keys[:, band] ^ np.uint16(mask)
            low, count = start[wanted], start[wanted.astype(np.int64) + 1] - start[wanted]
            for rows in _chunks(count):
                left = np.repeat(rows, count[rows])
                within = np.arange(len(left)) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
                right = order[np.repeat(low[rows], count[rows]) + within]
                left, right = left[left < right], right[left < right]
                close = _distance(unique[left], unique[right]) <= radius
                yield np.stack([left[close], right[close]], axis=1)


def _chunks(count: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    rows = np.flatnonzero(count)
    piece = np.cumsum(count[rows]) // _AT_ONCE
    for number in np.unique(piece):
        yield rows[piece == number]


def _distance(one: Hashes, other: Hashes) -> npt.NDArray[np.int64]:
    return np.asarray(np.bitwise_count(one ^ other).sum(axis=1), np.int64)


def alike(count: int, pairs: Pairs, distances: Sequence[int] | npt.NDArray[np.int64]) -> list[Alike]:
    """Groups of images that pairs tie together, the largest first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    farthest: dict[int, int] = {}
    members: dict[int, set[int]] = {}
    for (i, j), distance in zip(pairs.tolist(), np.asarray(distances).tolist(), strict=True):
        group = int(label[i])
        members.setdefault(group, set()).update((i, j))
        farthest[group] = max(farthest.get(group, 0), cast("int", distance))
    groups = [Alike(tuple(sorted(found)), farthest[group]) for group, found in members.items()]
    return sorted(groups, key=lambda group: (-len(group.members), group.members))
