"""Which boxes are learnt from, and the YOLO folder they are written to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from detect.quiet_import import import_ultralytics
from detect.training_set import (
    PseudoBoxConfig,
    TrainingBoxes,
    ceiling_training_boxes,
    pseudo_training_boxes,
    tune_training_boxes,
)
from detect.yolo_folder import read_yolo_folder, write_yolo_folder
from tests.detect.conftest import DatasetMaker, found_boxes, noisy
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import DataError, RunError
from weakray.files import read_json, sha256_file
from weakray.imaging import InputSpec

EVERYTHING = PseudoBoxConfig(score_at_least=0.0, background_share=0.9)
SPEC = InputSpec(size_px=64, minmax=False)


def relabelled(dataset: Dataset, **labels: list[float]) -> Dataset:
    table = dataset.labels.copy()
    for image_id, values in labels.items():
        table.loc[image_id] = values
    return dataclasses.replace(dataset, labels=table)


def one_of_each(dataset: Dataset) -> dict[str, Detections]:
    box = [[4, 6, 24, 26], [8, 6, 28, 20]]
    return {image_id: found_boxes(box, [0, 1], [0.8, 0.6]) for image_id in dataset.ids_of("train")}


@pytest.mark.parametrize(
    ("settings", "kept", "vetoed"),
    [
        ({}, {"train0": [0], "train1": [0, 1]}, 3),  # absent and blank are vetoed, uncertain is not
        ({"uncertain": "drop"}, {"train0": [0], "train1": [0]}, 4),
        ({"blank": "keep"}, {"train0": [0], "train1": [0, 1], "train2": [1]}, 2),
        ({"uncertain": "drop", "blank": "keep"}, {"train0": [0], "train1": [0], "train2": [1]}, 3),
    ],
)
def test_labels_veto_boxes(
    make_dataset: DatasetMaker, settings: dict[str, str], kept: dict[str, list[int]], vetoed: int
) -> None:
    blank = float("nan")
    dataset = relabelled(make_dataset(train=3), train0=[1, 0], train1=[1, -1], train2=[0, blank])
    config = PseudoBoxConfig.model_validate({"score_at_least": 0.0, "background_share": 0.0, **settings})
    made = pseudo_training_boxes(dataset, one_of_each(dataset), config, seed=0)
    assert {image_id: found.class_id.tolist() for image_id, found in made.boxes.items()} == kept
    assert made.counts.vetoed == vetoed
    assert made.counts.boxes == 6 - vetoed
    assert made.counts.boxes_of_finding == {
        name: sum(ids.count(class_id) for ids in kept.values()) for class_id, name in enumerate(["Disc", "Bar"])
    }


def test_background_images_have_no_finding_and_keep_to_their_share(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset(train=12)
    negative = {f"train{i}": [0.0, float("nan")] for i in range(4, 12)}
    dataset = relabelled(dataset, train0=[1, 0], train1=[1, 1], train2=[1, 0], train3=[0, -1], **negative)
    predictions = one_of_each(dataset)
    predictions["train2"] = predictions["train3"] = Detections.empty()  # a finding without a box: no background
    made = pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least=0.0, background_share=0.6), 0)
    assert made.counts.images_left_out == 2
    assert made.counts.images == 5
    assert made.counts.backgrounds == 3  # 0.6 of 5
    assert made.counts.backgrounds_left_out == 5
    assert {"train0", "train1"} < set(made.boxes) <= {"train0", "train1", *negative}
    assert list(made.boxes) == [image_id for image_id in dataset.ids_of("train") if image_id in made.boxes]
    other = pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least=0.0, background_share=0.6), 1)
    assert set(other.boxes) != set(made.boxes)
    none = pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least=0.0), 0)
    assert list(none.boxes) == ["train0", "train1"]  # by default there are none
    assert none.counts.backgrounds_left_out == 8


def test_a_finding_that_may_be_there_makes_no_background(make_dataset: DatasetMaker) -> None:
    blank = float("nan")
    dataset = relabelled(make_dataset(train=4), train0=[1, 0], train1=[0, -1], train2=[0, blank], train3=[0, 0])
    only = {"train0": one_of_each(dataset)["train0"]}
    for settings, backgrounds in (
        ({}, {"train2", "train3"}),
        ({"uncertain": "drop"}, {"train2", "train3"}),
        ({"blank": "keep"}, {"train3"}),
    ):
        config = PseudoBoxConfig.model_validate({"score_at_least": 0.0, "background_share": 0.9, **settings})
        made = pseudo_training_boxes(dataset, only, config, 0)
        assert {image_id for image_id, found in made.boxes.items() if not len(found)} == backgrounds
        assert made.counts.images_left_out == 3 - len(backgrounds)


def test_cutoff_as_a_number_or_chosen_on_tune(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset(train=6, tune=6)
    predictions = noisy(dataset)
    made = pseudo_training_boxes(dataset, predictions, EVERYTHING.model_copy(update={"score_at_least": 0.45}), 0)
    assert made.counts.cutoffs == {"Disc": 0.45, "Bar": 0.45}
    assert made.counts.boxes == 8
    assert made.counts.below_cutoff + made.counts.vetoed == 6
    chosen = pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least="tune"), 0)
    assert chosen.counts.boxes == 8
    assert chosen.counts.cutoffs is not None
    assert all(cutoff is not None and 0 <= cutoff <= 0.5 for cutoff in chosen.counts.cutoffs.values())
    train_only = {image_id: predictions[image_id] for image_id in dataset.ids_of("train")}
    with pytest.raises(RunError, match="expected pseudo-boxes of tune images too, found none"):
        pseudo_training_boxes(dataset, train_only, PseudoBoxConfig(score_at_least="tune"), 0)


def test_boxes_are_clipped_and_counted(make_dataset: DatasetMaker) -> None:
    dataset = relabelled(make_dataset(train=1), train0=[1, 1])
    height, width = dataset.size_hw("train0")
    rows = [[-5, 3, 12, 18], [width + 1, 0, width + 9, 9], [5, 5, 20, height + 30], [1, 2, 3, 4]]
    found = found_boxes(rows, [0, 0, 1, 1], [0.9, 0.8, 0.7, 0.6])
    made = pseudo_training_boxes(dataset, {"train0": found}, EVERYTHING, 0)
    assert made.boxes["train0"].boxes_xyxy_px.tolist() == [[0, 3, 12, 18], [5, 5, 20, height], [1, 2, 3, 4]]
    assert (made.counts.clipped, made.counts.outside) == (2, 1)


def test_weights_follow_a_box_rank_among_its_finding(make_dataset: DatasetMaker) -> None:
    dataset = relabelled(make_dataset(train=2), train0=[1, 1], train1=[1, 0])
    box = [4, 6, 24, 26]
    predictions = {
        "train0": found_boxes([box, box, box], [0, 0, 1], [0.9, 0.1, 0.2]),
        "train1": found_boxes([box, box], [0, 0], [0.1, 0.3]),
    }
    made = pseudo_training_boxes(dataset, predictions, EVERYTHING.model_copy(update={"weights": "score"}), 0)
    # of four boxes of Disc, .9 beats or equals 4, .3 three, each .1 two; .3 + .7 · share. Bar's only box is its best.
    assert made.boxes["train0"].score.tolist() == pytest.approx([1.0, 0.65, 1.0])
    assert made.boxes["train1"].score.tolist() == pytest.approx([0.65, 0.825])
    plain = pseudo_training_boxes(dataset, predictions, EVERYTHING, 0)
    assert [found.score.tolist() for found in plain.boxes.values()] == [[1, 1, 1], [1, 1]]


def test_a_finding_that_may_be_there_is_not_taught_as_background(make_dataset: DatasetMaker) -> None:
    dataset = relabelled(make_dataset(train=3), train0=[1, -1], train1=[1, 0], train2=[0, 1])
    predictions = {image_id: found.of_class(0) for image_id, found in one_of_each(dataset).items()}
    predictions["train2"] = one_of_each(dataset)["train2"].of_class(1)
    made = pseudo_training_boxes(dataset, predictions, EVERYTHING, 0)
    assert {image_id: row.tolist() for image_id, row in made.elsewhere.items()} == {
        "train0": [1, 0],  # Bar is uncertain and has no box
        "train1": [1, 1],
        "train2": [1, 1],
    }
    assert made.counts.unplaced == 1
    softer = EVERYTHING.model_copy(update={"unplaced": 0.25, "elsewhere": 0.5})
    told = pseudo_training_boxes(dataset, predictions, softer, 0).elsewhere
    assert told["train0"].tolist() == [0.5, 0.25]
    assert told["train1"].tolist() == [0.5, 1]


def test_as_many_boxes_an_image_as_tune_has(make_dataset: DatasetMaker) -> None:
    dataset = relabelled(make_dataset(train=3, tune=3), train0=[1, 1], train1=[1, 0], train2=[1, 1])
    box = [4, 6, 24, 26]
    scores = {"train0": [0.9, 0.2, 0.1], "train1": [0.5, 0.4, 0.95], "train2": [0.8, 0.3, 0.7]}
    predictions = {image_id: found_boxes([box] * 3, [0, 0, 1], values) for image_id, values in scores.items()}
    made = pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least="count"), 0)
    # tune: one box an image of each; three images may hold Disc, two Bar, whose .95 is vetoed
    assert made.counts.cutoffs == pytest.approx({"Disc": 0.5, "Bar": 0.0})  # both of Bar are wanted
    assert made.counts.boxes_of_finding == {"Disc": 3, "Bar": 2}


def test_no_box_at_all_is_an_error(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset()
    with pytest.raises(DataError, match="expected at least one box on train images, got none.*lower pseudo.score"):
        pseudo_training_boxes(dataset, noisy(dataset), PseudoBoxConfig(score_at_least=0.95), 0)
    with pytest.raises(DataError, match="expected at least one box on tune images, got none"):
        tune_training_boxes(make_dataset(tune=0, name="untuned"))


def test_tune_and_ceiling_hold_true_boxes(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset(train=4, tune=3)
    tune = tune_training_boxes(dataset)
    assert list(tune.boxes) == ["tune0", "tune1", "tune2"]
    ceiling = ceiling_training_boxes(dataset)
    assert list(ceiling.boxes) == ["train0", "train1", "train2", "train3", *tune.boxes]
    assert ceiling.counts.boxes == 10
    (dataset.root / "ceiling_boxes.json").unlink()
    with pytest.raises(DataError, match="expected ceiling_boxes.json for source=ceiling, found none"):
        ceiling_training_boxes(dataset)


def training(dataset: Dataset, boxes: dict[str, Detections]) -> TrainingBoxes:
    return TrainingBoxes(boxes, tune_training_boxes(dataset).counts, {})


def test_label_files_by_hand(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    dataset = make_dataset(train=2, prefix="a b/")
    first, second = dataset.ids_of("train")
    height, width = 32, 64  # letterboxed into 64: scale 1, 16 px of padding above and below
    cv2.imwrite(str(dataset.path_of(first)), np.full((height, width), 77, np.uint8))
    found = found_boxes([[8, 4, 24, 20], [0, 0, 64, 32]], [1, 0], [0.9, 0.8])
    write_yolo_folder(tmp_path / "yolo", dataset, training(dataset, {first: found, second: Detections.empty()}), SPEC)
    labels = tmp_path / "yolo" / "labels" / "train"
    assert (labels / "a%20b%2Ftrain0.txt").read_text() == (
        "1 0.250000 0.437500 0.250000 0.250000\n0 0.500000 0.500000 1.000000 0.500000\n"
    )
    assert (labels / "a%20b%2Ftrain1.txt").read_text() == ""
    assert read_json(tmp_path / "yolo" / "weights.json") == {first: {"boxes": [0.9, 0.8], "elsewhere": [1, 1]}}
    examples = read_yolo_folder(tmp_path / "yolo", 1)
    assert [example.image_id for example in examples] == [first, second]
    assert examples[0].weights.tolist() == pytest.approx([0.9, 0.8])
    assert (examples[1].weights.shape, examples[1].elsewhere.tolist()) == ((0,), [1, 1])
    assert examples[0].image.shape == (64, 64, 1)
    assert examples[0].image[:16].max() == 0
    assert examples[0].image[16:48].min() == 77
    assert examples[0].class_id.tolist() == [1, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_ultralytics_reads_the_folder_alike(make_dataset: DatasetMaker, tmp_path: Path, channels: int) -> None:
    import_ultralytics()
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    dataset = make_dataset(train=5)
    spec = InputSpec.model_validate({"size_px": 96, "channels": channels})
    write_yolo_folder(tmp_path / "yolo", dataset, tune_training_boxes(dataset), spec)
    data = check_det_dataset(str(tmp_path / "yolo" / "data.yaml"), autodownload=False)
    theirs = YOLODataset(img_path=data["train"], imgsz=96, augment=False, data=data, cache=False)
    examples = read_yolo_folder(tmp_path / "yolo", channels)
    assert data["names"] == {0: "Disc", 1: "Bar"}
    assert len(theirs) == len(examples) == 3
    for index, example in enumerate(examples):
        peer = theirs[index]
        np.testing.assert_array_equal(peer["img"].numpy(), example.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(peer["cls"].numpy().ravel(), example.class_id)
        np.testing.assert_allclose(peer["bboxes"].numpy(), example.boxes_cxcywh_rel, atol=1e-6)


def test_ceiling_boxes_change_no_other_training_set(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    dataset = make_dataset()
    predictions = noisy(dataset)

    def hashes(folder: Path) -> dict[str, str]:
        again = Dataset.load(dataset.root)
        write_yolo_folder(folder / "pseudo", again, pseudo_training_boxes(again, predictions, EVERYTHING, 0), SPEC)
        write_yolo_folder(folder / "tune", again, tune_training_boxes(again), SPEC)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): sha256_file(path) for path in files}

    before = hashes(tmp_path / "with")
    (dataset.root / "ceiling_boxes.json").unlink()
    assert hashes(tmp_path / "without") == before
    assert len(before) > 10


def test_broken_label_file_is_named(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    dataset = make_dataset()
    write_yolo_folder(tmp_path / "yolo", dataset, tune_training_boxes(dataset), SPEC)
    (tmp_path / "yolo" / "labels" / "train" / "tune1.txt").write_text("1 0.5 half\n")
    with pytest.raises(DataError, match=r"tune1.txt: expected lines of class and four numbers"):
        read_yolo_folder(tmp_path / "yolo", 1)
