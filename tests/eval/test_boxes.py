"""`weakray eval boxes` on a dataset folder and a boxes file, with pycocotools reading the same files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from eval.box_errors import ERROR_TYPES
from eval.boxes import BoxesConfig, run
from tests.eval.makers import NAMES, boxes_of
from weakray.cli import main
from weakray.coco import save_results
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_json


@pytest.fixture
def boxes_file(dataset: Dataset, tmp_path: Path) -> Path:
    """Boxes of every image of the dataset, train images too; scores often equal."""
    rng = np.random.default_rng(1)
    predictions = {}
    for image_id in dataset.image_ids:
        true = dataset.truth.boxes.get(image_id, Detections.empty())
        near = true.boxes_xyxy_px + rng.integers(-4, 5, true.boxes_xyxy_px.shape)
        found = np.concatenate([near, boxes_of(rng, 4)])
        classes = np.concatenate([true.class_id, rng.integers(0, 2, 4)])
        predictions[image_id] = Detections(found, classes, rng.integers(1, 10, len(found)) / 10)
    save_results(tmp_path / "boxes.json", predictions, dataset.image_ids)
    return tmp_path / "boxes.json"


def test_the_files_score_as_pycocotools_scores_them(dataset: Dataset, boxes_file: Path, tmp_path: Path) -> None:
    result = run(BoxesConfig(data=dataset.root, boxes=boxes_file, out=tmp_path / "scores.json", draws=30))
    rows = {image_id: row + 1 for row, image_id in enumerate(dataset.image_ids)}
    test_rows = [rows[image_id] for image_id in dataset.ids_of("test")]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(dataset.root / "boxes.json"))
        listed = set(coco.getImgIds())
        results = [r for r in read_json(boxes_file)["results"] if r["image_id"] in listed]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.imgIds = test_rows
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert result.ap50["value"] == pytest.approx(evaluation.stats[1], abs=1e-9)
    assert result.map["value"] == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert 0 < result.map["value"] < result.ap50["value"] < 1
    written = read_json(tmp_path / "scores.json")
    assert (written["split"], written["images"]) == ("test", 12)
    assert written["ap50"] == result.ap50
    assert set(written["per_finding"]) == set(NAMES)
    assert written["thresholds"]["macro"]["AP50"] == result.ap50["value"]
    assert len(written["thresholds"]["Mass"]) == 14
    assert set(written["errors"]["per_finding"]) == set(NAMES)
    assert 0 <= written["errors"]["location"]["low"] <= written["errors"]["location"]["high"] <= 1
    assert result.errors.split()[:6] == ["class", "location", "both", "duplicate", "background", "missed"]
    assert result.errors.split()[-7:] == ["macro", *(f"{written['errors'][k]['value']:.3f}" for k in ERROR_TYPES)]


def test_images_outside_the_split_are_counted(dataset: Dataset, boxes_file: Path) -> None:
    on_test = run(BoxesConfig(data=dataset.root, boxes=boxes_file, draws=5))
    on_tune = run(BoxesConfig(data=dataset.root, boxes=boxes_file, draws=5, split="tune"))
    assert (on_test.images, on_test.other_images, on_test.ignored_predictions) == (12, 5, 0)
    assert (on_tune.images, on_tune.other_images) == (3, 14)
    assert on_tune.ap50 != on_test.ap50


def test_the_command_prints_the_table(dataset: Dataset, boxes_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "boxes", "--data", str(dataset.root), "--boxes", str(boxes_file), "--draws", "5"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "AP10" in printed
    assert "macro" in printed
    assert "images: 12" in printed
    assert main([*words, "--split", "train"]) == 2
    assert "split: input should be 'tune' or 'test'" in capsys.readouterr().err


def test_boxes_of_another_dataset_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    other = {"elsewhere": Detections(np.array([[0, 0, 5, 5]]), np.array([0]), np.array([0.5]))}
    save_results(tmp_path / "other.json", other, ["elsewhere"])
    with pytest.raises(DataError, match="1 images are not in .*, e.g. 'elsewhere'; name the dataset"):
        run(BoxesConfig(data=dataset.root, boxes=tmp_path / "other.json"))


def test_a_split_without_annotated_images_is_refused(dataset: Dataset, boxes_file: Path) -> None:
    path = dataset.root / "boxes.json"
    content = read_json(path)
    tune = {dataset.image_ids.index(image_id) + 1 for image_id in dataset.ids_of("tune")}
    for name, of_image in (("images", "id"), ("annotations", "image_id"), ("annotated", 0)):
        content[name] = [entry for entry in content[name] if entry[of_image] in tune]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="split 'test' has no annotated image"):
        run(BoxesConfig(data=dataset.root, boxes=boxes_file))
