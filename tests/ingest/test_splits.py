"""Splits keep patients whole, meet their sizes, keep the share of each finding, and never depend on the machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.splits import Patient, split_patients
from weakray.dataset import Split
from weakray.errors import DataError


def _cohort(seed: int, count: int = 300) -> dict[str, Patient]:
    draw = np.random.default_rng(seed)
    shares = [0.5, 0.2, 0.05, 0.02]
    patients: dict[str, Patient] = {}
    for at in range(count):
        images = int(draw.integers(1, 5))
        positives = {k: int(draw.binomial(images, share)) for k, share in enumerate(shares)}
        patients[f"p{at:04d}"] = Patient(images, {k: n for k, n in positives.items() if n})
    return patients


def _sizes(of: dict[str, Split], patients: dict[str, Patient]) -> dict[str, int]:
    return {s: sum(patients[p].images for p, split in of.items() if split == s) for s in sorted(set(of.values()))}


def test_sizes_are_met_exactly_and_every_patient_has_one_split() -> None:
    patients = _cohort(0)
    found = split_patients(patients, {"tune": 100, "test": 200, "val": 50}, "train", seed=0)
    assert sorted(found.of) == sorted(patients)
    total = sum(p.images for p in patients.values())
    assert _sizes(found.of, patients) == {"test": 200, "train": total - 350, "tune": 100, "val": 50}
    assert found.short == {}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_finding_keeps_its_share(seed: int) -> None:
    patients = _cohort(seed)
    total = sum(p.images for p in patients.values())
    found = split_patients(patients, {"tune": 100, "test": 200}, "train", seed=seed)
    for finding in range(4):
        everywhere = sum(p.positives.get(finding, 0) for p in patients.values())
        for split, size in (("tune", 100), ("test", 200)):
            here = sum(patients[p].positives.get(finding, 0) for p, s in found.of.items() if s == split)
            assert abs(here - everywhere * size / total) <= 3, (finding, split)


def test_a_seed_gives_this_split_on_every_machine() -> None:
    patients = {name: Patient(1, {at % 2: 1}) for at, name in enumerate("abcdefgh")}
    found = split_patients(patients, {"val": 2}, "train", seed=7)
    assert [name for name, split in found.of.items() if split == "val"] == ["c", "f"]
    again = split_patients(dict(reversed(patients.items())), {"val": 2}, "train", seed=7)
    assert again == found
    others = [split_patients(patients, {"val": 2}, "train", seed=seed).of for seed in range(8)]
    assert any(other != found.of for other in others)


def test_fractions_are_shares_of_all_images() -> None:
    patients = {f"{at}": Patient(1) for at in range(50)}
    found = split_patients(patients, {"val": 0.1, "test": 0.2}, "train", seed=0)
    assert _sizes(found.of, patients) == {"test": 10, "train": 35, "val": 5}


def test_patients_are_not_cut_so_a_split_may_stay_short_and_says_so() -> None:
    patients = {f"{at}": Patient(4, {0: 4}) for at in range(5)}
    found = split_patients(patients, {"tune": 6}, "test", seed=0)
    assert _sizes(found.of, patients) == {"test": 16, "tune": 4}
    assert found.short == {"tune": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tune": 10}, r"asked for tune 10 images, but 10 are there and test needs at least one; ask for fewer"),
        ({"tune": 6, "val": 7}, r"asked for tune 6 \+ val 7 images, but 10 are there"),
        ({"tune": 0}, r"expected at least one image in each, got tune 0 of 10 images; ask for more"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[Split, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_patients({f"{at}": Patient(2) for at in range(5)}, sizes, "test", seed=0)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(0, 4), max_size=3)), min_size=3, max_size=25),
    tune=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_no_split_grows_past_its_size_and_none_is_lost(
    counts: list[tuple[int, list[int]]], tune: int, seed: int
) -> None:
    patients = {f"{at}": Patient(n, dict.fromkeys(classes, n)) for at, (n, classes) in enumerate(counts)}
    if sum(p.images for p in patients.values()) <= tune:
        return
    found = split_patients(patients, {"tune": tune}, "test", seed=seed)
    sizes = _sizes(found.of, patients)
    assert sizes.get("tune", 0) + found.short.get("tune", 0) == tune
    assert sizes["test"] > 0
    assert set(found.of) == set(patients)
