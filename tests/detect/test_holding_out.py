"""A part of tune that a training does not see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from detect.holding_out import HeldOutConfig, held_out_ids, patient_folds
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of, weights_of
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import read_json, write_json


def of_patients(dataset: Dataset, patients: str) -> Dataset:
    """The dataset, its tune images given to these patients in turn."""
    images = dataset.images.copy()
    images.loc[dataset.ids_of("tune"), "patient_id"] = list(patients)
    return dataclasses.replace(dataset, images=images)


@pytest.mark.parametrize("seed", range(5))
def test_folds_part_the_patients_of_tune(make_dataset: DatasetMaker, seed: int) -> None:
    dataset = of_patients(make_dataset(tune=7), "aabbcde")
    parts = [held_out_ids(dataset, HeldOutConfig(folds=3, fold=fold, seed=seed)) for fold in range(3)]
    assert sorted(image_id for part in parts for image_id in part) == dataset.ids_of("tune")
    patients = [{dataset.patient_of(image_id) for image_id in part} for part in parts]
    assert sorted(len(part) for part in patients) == [1, 2, 2]
    assert not patients[0] & patients[1] | patients[0] & patients[2] | patients[1] & patients[2]
    assert parts == [held_out_ids(dataset, HeldOutConfig(folds=3, fold=fold, seed=seed)) for fold in range(3)]


def test_other_seeds_deal_otherwise(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset(tune=9)
    assert len({tuple(held_out_ids(dataset, HeldOutConfig(seed=seed))) for seed in range(5)}) > 1


@pytest.mark.parametrize("seed", range(5))
def test_the_rarest_finding_is_spread_first(make_dataset: DatasetMaker, seed: int) -> None:
    # tune 0 … 7 hold Disc on 0, 1, 3, 4, 6, 7 and Bar on 0, 2, 3, 5, 6; patients: Bar is the rarer, five in three folds
    dataset = make_dataset(tune=8)
    fold_of = patient_folds(dataset, 3, seed)
    truth = dataset.truth_of("tune").boxes
    bars = [0, 0, 0]
    for image_id in dataset.ids_of("tune"):
        bars[fold_of[dataset.patient_of(image_id)]] += len(truth[image_id].of_class(1))
    assert sorted(bars) == [1, 2, 2]


def test_a_dataset_without_images_has_nothing_of_theirs(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset(train=2, tune=3, test=1)
    less = dataset.without(["tune1", "train0"])
    assert less.image_ids == ["train1", "tune0", "tune2", "test0"]
    assert list(less.labels.index) == less.image_ids
    assert sorted(less.truth.boxes) == ["test0", "tune0", "tune2"]
    assert less.truth_of("tune").image_ids == ["tune0", "tune2"]
    assert dataset.ids_of("tune") == ["tune0", "tune1", "tune2"]
    assert less.sha256 == dataset.sha256


@pytest.mark.parametrize("source", ["pseudo_then_tune", "ceiling"])
def test_what_is_held_out_has_no_say_in_the_weights(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path, source: str
) -> None:
    dataset, boxes = pseudo_boxes
    settings: dict[str, Any] = {"source": source, "boxes": boxes if source == "pseudo_then_tune" else None}
    settings |= {"course": {"rounds": 1}} if source == "pseudo_then_tune" else {}
    held: dict[str, Any] = {**settings, "held_out": {"folds": 3, "fold": 1}}
    first = train(config_of(dataset, tmp_path / "held", tiny_architecture, **held))
    before = train(config_of(dataset, tmp_path / "all", tiny_architecture, **settings))
    (hidden,) = held_out_ids(dataset, HeldOutConfig(folds=3, fold=1))
    content = read_json(dataset.root / "boxes.json")
    number = next(image["id"] for image in content["images"] if image["file_name"] == hidden)
    for annotation in content["annotations"]:
        if annotation["image_id"] == number:
            annotation["bbox"] = [1, 1, 4, 3]
    write_json(dataset.root / "boxes.json", content)
    changed = Dataset.load(dataset.root)
    second = train(config_of(changed, tmp_path / "held_changed", tiny_architecture, **held))
    assert weights_of(tmp_path / "held") == weights_of(tmp_path / "held_changed")
    assert second.weights_sha256 == first.weights_sha256 != before.weights_sha256
    after = train(config_of(changed, tmp_path / "all_changed", tiny_architecture, **settings))
    assert after.weights_sha256 != before.weights_sha256
    assert all(row.ap50 is not None for row in first.rounds)
    assert all(row.ap50 is None for row in before.rounds)


def test_folds_that_cannot_be_are_refused(make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"held_out: .*expected fold below folds \(2\), got 2"):
        validate(HeldOutConfig, {"folds": 2, "fold": 2}, "held_out")
    message = r"expected at least as many patients on tune as folds \(4\), got 3; take fewer folds, or annotate"
    with pytest.raises(DataError, match=message):
        train(config_of(make_dataset(tune=3), tmp_path / "run", tiny_architecture, held_out={"folds": 4}))
