from __future__ import annotations

from pathlib import Path

import pytest

from ingest.phantom.command import LabelNoise, PhantomConfig, run
from weakray.dataset import Dataset

SIZES = {"train": 12, "val": 4, "tune": 5, "test": 9}
SMALL = {"seed": 1, "difficulty": "standard", "short_side_px": (192, 256), **SIZES}


def made(out: Path, **changes: object) -> Dataset:
    run(PhantomConfig.model_validate({**SMALL, "out": out, "workers": 1, **changes}))
    return Dataset.load(out)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("phantom"))


def test_splits_have_the_set_sizes_and_share_no_patient(small: Dataset) -> None:
    assert {split: len(small.ids_of(split)) for split in SIZES} == SIZES  # type: ignore[arg-type]
    assert set(small.truth_of("tune").image_ids) == set(small.ids_of("tune"))
    assert len(small.truth.annotated) == (SIZES["tune"] + SIZES["test"]) * len(small.taxonomy)
    ceiling = small.ceiling_truth()
    assert ceiling is not None
    assert set(ceiling.boxes) == set(small.ids_of("train"))


def test_any_number_of_workers_gives_the_same_bytes(small: Dataset, tmp_path: Path) -> None:
    made(tmp_path, workers=3)
    for path in sorted(small.root.rglob("*")):
        if path.is_file():
            assert (tmp_path / path.relative_to(small.root)).read_bytes() == path.read_bytes(), path


def test_a_split_does_not_depend_on_the_sizes_of_the_others(small: Dataset, tmp_path: Path) -> None:
    other = made(tmp_path, train=2, tune=3)
    assert other.ids_of("test") == small.ids_of("test")
    assert other.ids_of("tune") == small.ids_of("tune")[:3]
    for image_id in other.ids_of("test"):
        assert other.path_of(image_id).read_bytes() == small.path_of(image_id).read_bytes()


def test_a_set_may_have_no_annotated_image_to_choose_on(small: Dataset, tmp_path: Path) -> None:
    bare = made(tmp_path, tune=0)
    assert bare.ids_of("tune") == []
    assert "tune: no image at all" in bare.info["warnings"]
    assert set(bare.truth.boxes) == set(small.ids_of("test"))
    assert bare.truth_of("tune").annotated == frozenset()


def test_only_train_labels_err(small: Dataset, tmp_path: Path) -> None:
    rates = dict.fromkeys(LabelNoise.model_fields, 0.0)
    honest = made(tmp_path, noise={**rates, "uncertain_positive_rate": 1.0})
    for split in ("val", "tune", "test"):
        assert set(honest.labels.loc[honest.ids_of(split)].to_numpy().ravel()) <= {0.0, 1.0}
    assert (honest.labels.loc[honest.ids_of("train")].to_numpy() == -1).any()
    assert not (honest.labels.loc[honest.ids_of("train")].to_numpy() == 1).any()
