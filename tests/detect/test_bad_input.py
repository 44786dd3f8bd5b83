"""What goes wrong in the field: images gone, findings without a box, black films, other architectures' heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.detector import load_detector, predict_boxes
from detect.exporting import export_detector, write_export
from detect.formats import open_graph, seal
from detect.network import new_network, save_network
from detect.opening import open_detector
from detect.self_training import own_boxes
from detect.train import run as train
from detect.training_set import PseudoBoxConfig, pseudo_training_boxes
from tests.detect.conftest import NAMES, DatasetMaker, config_of, noisy, weights_of
from weakray.bundle.manifest import DETECTOR
from weakray.coco import save_results
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_json, write_json
from weakray.imaging import InputSpec, read_image


def test_an_image_deleted_before_training_is_named(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset()
    dataset.path_of(dataset.ids_of("train")[0]).unlink()
    with pytest.raises(DataError, match=r"images/0.png: expected an image file, got No such file or directory"):
        train(config_of(dataset, tmp_path / "run", tiny_architecture))
    assert not (tmp_path / "run" / "done.json").exists()


def test_a_finding_without_a_pseudo_box_is_counted_and_the_others_are_learnt(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset()
    discs = {image_id: found.of_class(0) for image_id, found in noisy(dataset).items()}
    training = pseudo_training_boxes(dataset, discs, PseudoBoxConfig(score_at_least=0.0), seed=0)
    assert training.counts.boxes_of_finding["Bar"] == 0
    assert training.counts.boxes_of_finding["Disc"] > 0
    save_results(tmp_path / "boxes.json", discs, dataset.image_ids, "recipe")
    settings = {"source": "pseudo", "boxes": tmp_path / "boxes.json", "pseudo": {"score_at_least": 0.0}, "steps": 2}
    result = train(config_of(dataset, tmp_path / "run", tiny_architecture, **settings))
    assert result.training_sets["pseudo"].boxes_of_finding["Bar"] == 0


def test_an_image_deleted_between_rounds_is_named_and_put_back_changes_nothing(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "course": {"rounds": 1}}
    train(config_of(dataset, tmp_path / "whole", tiny_architecture, **settings))
    victim = dataset.path_of(dataset.ids_of("train")[2])
    image = victim.read_bytes()

    def after_a_deletion(*args: Any) -> Any:
        victim.unlink()
        return own_boxes(*args)

    config = config_of(dataset, tmp_path / "run", tiny_architecture, **settings)
    with monkeypatch.context() as patched:
        patched.setattr("detect.train.own_boxes", after_a_deletion)
        with pytest.raises(DataError, match=r"images/2.png: expected an image file, got No such file or directory"):
            train(config)
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 1  # the first round is kept
    victim.write_bytes(image)
    train(config)
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")


def test_images_all_without_boxes_are_an_error(
    pseudo_boxes: tuple[Dataset, Path], tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = pseudo_boxes
    save_results(boxes, {image_id: Detections.empty() for image_id in dataset.image_ids}, dataset.image_ids, "recipe")
    settings = {"source": "pseudo", "boxes": boxes, "pseudo": {"score_at_least": 0.0}}
    message = r"pseudo-boxes: expected at least one box on train images, got none \(0 vetoed .*check the boxes"
    with pytest.raises(DataError, match=message):
        train(config_of(dataset, tmp_path / "run", tiny_architecture, **settings))
    assert not (tmp_path / "run" / "done.json").exists()


def test_a_round_in_which_the_detector_finds_nothing_is_an_error(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(_: Any, images: list[Any], *__: Any) -> list[Detections]:
        return [Detections.empty()] * len(images)

    monkeypatch.setattr("detect.self_training.predict_boxes", nothing)
    message = r"the detector's own boxes: expected at least one box on train images, got none .*set course.rounds to 0"
    with pytest.raises(DataError, match=message):
        train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, source="tune", course={"rounds": 1}))


def test_weights_of_another_list_of_findings_are_refused(tiny_architecture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    folder.mkdir()
    save_network(folder, new_network(str(tiny_architecture), NAMES, InputSpec(size_px=64), 0), {})
    about = read_json(folder / "detector.json")
    write_json(folder / "detector.json", {**about, "names": [*NAMES, "Third"]})
    message = (
        r"expected weights of the network .* with 3 findings \['Disc', 'Bar', 'Third'\], got others \(size mismatch"
    )
    with pytest.raises(DataError, match=message):
        load_detector(folder)


@pytest.mark.parametrize("architecture", ["yolov8n.yaml", "yolov3-tiny.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_another_architecture_goes_the_whole_way(make_dataset: DatasetMaker, tmp_path: Path, architecture: str) -> None:
    """Other numbers of levels and strides, saved, loaded, exported, and predicting alike."""
    dataset, folder = make_dataset(), tmp_path / "detector"
    folder.mkdir()
    save_network(folder, new_network(architecture, NAMES, InputSpec(size_px=64), seed=1), {})
    export_detector(folder, tmp_path / DETECTOR, 18)
    write_export(tmp_path / "onnx", "onnx", folder, tmp_path / DETECTOR, [])
    seal(
        tmp_path / "onnx",
        "onnx",
        open_graph(tmp_path / "onnx", "onnx", NAMES, InputSpec(size_px=64), 1),
        "0" * 64,
        parity_passed=True,
    )
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")]
    theirs = load_detector(folder).predict(images)
    for mine, other in zip(predict_boxes(open_detector(tmp_path / "onnx", 1), images), theirs, strict=True):
        np.testing.assert_allclose(np.sort(mine.score), np.sort(other.score), atol=1e-4)


def test_black_films_have_boxes_or_none_but_no_error(tiny_architecture: Path, tmp_path: Path) -> None:
    (tmp_path / "detector").mkdir()
    save_network(tmp_path / "detector", new_network(str(tiny_architecture), NAMES, InputSpec(size_px=64), 0), {})
    black = [np.zeros((height, width), np.uint8) for height, width in ((40, 60), (1, 9), (64, 2))]
    found = load_detector(tmp_path / "detector").predict(black)
    assert len(found) == 3
    for image, boxes in zip(black, found, strict=True):
        height, width = image.shape
        assert (boxes.boxes_xyxy_px <= [width, height, width, height]).all()
