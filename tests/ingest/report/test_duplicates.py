from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.report.content import gather
from ingest.report.duplicates import MOST_RADIUS, Hashes, alike, near_pairs, perceptual_hash
from ingest.report.scan import scan_images
from weakray.dataset import Rejection
from weakray.imaging import Image

Film = Callable[..., Image]


def _bits(one: Hashes, other: Hashes) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def test_copies_are_near_and_other_pictures_far(make_film: Film) -> None:
    plain = make_film(1, 300, 420)
    own = perceptual_hash(plain)
    assert own.shape == (4,)
    half = cv2.resize(plain, (210, 150), interpolation=cv2.INTER_AREA)
    poor = cv2.imdecode(cv2.imencode(".jpg", plain, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    brighter = np.clip(plain * 0.8 + 30, 0, 255).astype(np.uint8)
    for copy in (half, poor, brighter):
        assert _bits(own, perceptual_hash(np.asarray(copy, np.uint8))) <= 28
    for seed in range(2, 8):
        assert _bits(own, perceptual_hash(make_film(seed, 300, 420))) > 60


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), radius=st.integers(0, MOST_RADIUS), count=st.integers(2, 60))
def test_the_search_finds_every_pair_that_comparing_all_finds(seed: int, radius: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    bits = draw.integers(0, 2, (count, 256), dtype=np.uint8)
    for at in range(0, count - 1, 2):  # plant pairs from equal to just beyond any radius, some of them thrice
        bits[at + 1] = bits[at if at % 4 else 0]
        bits[at + 1, draw.choice(256, draw.integers(0, 40), replace=False)] ^= 1
    hashes: Hashes = np.packbits(bits, axis=1).view(np.uint64)
    pairs, distances = near_pairs(hashes, radius)
    found = {(i, j): d for (i, j), d in zip(pairs.tolist(), distances.tolist(), strict=True)}
    every = {(i, j): int((bits[i] != bits[j]).sum()) for i in range(count) for j in range(i + 1, count)}
    wanted = {pair: d for pair, d in every.items() if d <= radius}
    assert all(wanted[pair] == d for pair, d in found.items())
    # equal hashes are tied to the first of them alone; of the others every pair is there
    lone = [row for row in range(count) if not any((bits[row] == bits[at]).all() for at in range(row))]
    assert {(i, j) for i, j in wanted if i in lone and j in lone} <= set(found)
    groups = alike(count, pairs, distances)
    linked = alike(count, np.array(sorted(wanted), np.int64).reshape(-1, 2), [wanted[p] for p in sorted(wanted)])
    assert {group.members for group in groups} == {group.members for group in linked}


def test_many_equal_pictures_are_one_group_and_not_all_their_pairs() -> None:
    hashes = np.zeros((5000, 4), np.uint64)
    pairs, distances = near_pairs(hashes, 28)
    assert len(pairs) == 4999
    [group] = alike(5000, pairs, distances)
    assert (len(group.members), group.distance) == (5000, 0)


def test_groups_are_chains_the_largest_first() -> None:
    groups = alike(9, np.array([[0, 1], [4, 7], [7, 8]]), [3, 20, 10])
    assert [(group.members, group.distance) for group in groups] == [((4, 7, 8), 20), ((0, 1), 3)]
    pairs, distances = near_pairs(np.zeros((0, 4), np.uint64), 28)
    assert alike(0, pairs, distances) == []
    with pytest.raises(ValueError, match="radius: expected 0 to 31 bits, got 32"):
        near_pairs(np.zeros((1, 4), np.uint64), 32)


def test_a_scan_says_what_it_could_not_read_and_any_number_of_workers_agrees(tmp_path: Path, make_film: Film) -> None:
    paths = [tmp_path / f"{at}.png" for at in range(5)]
    for at in (0, 1, 3):
        cv2.imwrite(str(paths[at]), make_film(at))
    paths[4].write_bytes(b"no image")
    one, three = scan_images(paths, 1), scan_images(paths, 3)
    assert one.rows.tolist() == three.rows.tolist() == [0, 1, 3]
    assert (one.hashes == three.hashes).all()
    assert list(one.unread) == [2, 4]
    small = [cv2.resize(make_film(at), (96, 96), interpolation=cv2.INTER_AREA).astype(float) for at in (0, 1, 3)]
    assert one.mean is not None
    assert three.mean is not None
    assert (one.mean == three.mean).all()
    assert np.abs(one.mean - np.mean(small, axis=0)).max() <= 0.5
    assert scan_images(paths[4:], 1).mean is None


def test_duplicates_across_patients_and_splits_are_counted_and_shown_first(
    tmp_path: Path, make_dataset: Any, make_film: Film
) -> None:
    same = make_film(100)
    brighter = np.clip(same * 0.9 + 12, 0, 255).astype(np.uint8)
    inside = make_film(200)
    rows = [
        ("a", "1", "train", (1, 0)),
        ("b", "2", "test", (0, 1)),
        ("c", "3", "train", (0, 0)),
        ("d", "3", "train", (0, 0)),
        ("e", "4", "val", (0, 0)),
    ]
    films = {"a": same, "b": brighter, "c": inside, "d": np.clip(inside * 0.95, 0, 255).astype(np.uint8)}
    rejected = [Rejection("x.png", "same_content", "the same bytes as a; keep one of them")]
    data = make_dataset(tmp_path / "d", rows, films=films, rejected=rejected)
    content = gather(data, title="t", examples=1, thumbnail_px=64, radius=28, workers=2)
    found = content.duplicates
    assert (found.exact, found.refused, found.groups, found.images) == (0, 1, 2, 4)
    assert (found.across_patients, found.across_splits) == (1, 1)
    first, second = found.shown
    assert [member.image_id for member in first.members] == ["a", "b"]
    assert (first.count, first.patients, first.splits) == (2, 2, ["train", "test"])
    assert ([m.image_id for m in second.members], second.patients, second.splits) == (["c", "d"], 1, ["train"])
    none = gather(data, title="t", examples=0, thumbnail_px=64, radius=0, workers=1).duplicates
    assert [[m.image_id for m in group.members] for group in none.shown] == [["c", "d"]]  # darker alone: equal hashes
