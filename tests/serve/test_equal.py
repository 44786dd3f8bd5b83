"""What is served is what the pipeline says: probabilities, boxes and maps, each by its own command."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from camgen.layers import LAST
from camgen.mapper import Making, map_dataset
from camgen.maps import MapName
from classify import export as classify_export
from classify import predict as classify_predict
from classify.ensemble import Ensemble
from detect import export as detect_export
from detect import predict as detect_predict
from serve.answering import over_film
from serve.answers import ImageAnswer, Predicted
from tests.bundle.conftest import dataset, detector, ensemble  # noqa: F401 - fixtures, found by name
from tests.serve.conftest import Running
from weakray.coco import load_results
from weakray.dataset import Dataset
from weakray.files import write_yaml


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory,
    dataset: Dataset,  # noqa: F811
    ensemble: Path,  # noqa: F811
    detector: Path,  # noqa: F811
) -> Path:
    """A bundle of real, untrained models, exported as the pipeline does."""
    root = tmp_path_factory.mktemp("real")
    write_yaml(root / "recipe.yaml", {"findings": {}})
    common: dict[str, Any] = {"data": dataset.root, "parity_images": 2, "threads": 1}
    classify_export.run(classify_export.ExportConfig(ensemble=ensemble, out=root / "classifiers", **common))
    parts = {"classifiers": root / "classifiers", "recipe": root / "recipe.yaml", "detector": detector}
    result = detect_export.run(
        detect_export.ExportConfig(out=root / "out", default_score_threshold=0.5, max_boxes=5000, **parts, **common)
    )
    return result.bundle


@pytest.fixture
def served(start: Callable[..., Running], exported: Path, dataset: Dataset) -> dict[str, ImageAnswer]:  # noqa: F811
    """Image id → what is served of the image, each a study of its own."""
    running = start(bundle=exported, load={"requests": 64})
    answers: dict[str, ImageAnswer] = {}
    for image_id in dataset.ids_of("test"):
        answer = running.predict(dataset.path_of(image_id).read_bytes(), include=("maps",))
        answers[image_id] = Predicted.model_validate_json(answer.content).images[0]
    assert len(answers) == 5
    return answers


def test_probabilities_are_those_of_classify_predict(
    served: dict[str, ImageAnswer],
    dataset: Dataset,  # noqa: F811
    ensemble: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = {"data": dataset.root, "ensemble": ensemble, "out": tmp_path / "p", "threads": 1, "device": "cpu"}
    classify_predict.run(classify_predict.PredictConfig.model_validate(config))
    expected = pd.read_parquet(tmp_path / "p" / "probabilities.parquet").set_index("image_id")
    for image_id, image in served.items():
        for finding in image.findings:
            assert finding.probability == pytest.approx(expected.loc[image_id, finding.finding], abs=1e-4)


def test_boxes_are_those_of_detect_predict(
    served: dict[str, ImageAnswer],
    dataset: Dataset,  # noqa: F811
    detector: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = {"data": dataset.root, "detector": detector, "out": tmp_path / "d", "max_boxes": 100_000, "threads": 1}
    detect_predict.run(detect_predict.DetectPredictConfig.model_validate(config))
    found = load_results(tmp_path / "d" / "boxes.json")
    compared = 0
    for image_id, image in served.items():
        for k, finding in enumerate(image.findings):
            # 0.5 is the threshold; what lies on it may fall to either side in torch and onnxruntime
            expected = found[image_id].of_class(k)
            expected = expected.where(expected.score >= 0.501)
            boxes = [box for box in finding.boxes if box.score >= 0.501]
            assert len(boxes) == len(expected)
            for box in boxes:
                near = np.abs(expected.boxes_xyxy_px - np.array(box.xyxy_px)).max(axis=1)
                best = int(near.argmin())
                assert near[best] < 0.1
                assert box.score == pytest.approx(float(expected.score[best]), abs=1e-3)
                compared += 1
    assert compared > 20


def test_maps_are_those_of_camgen(
    served: dict[str, ImageAnswer],
    dataset: Dataset,  # noqa: F811
    ensemble: Path,  # noqa: F811
    exported: Path,
) -> None:
    graph = Ensemble.load(ensemble)
    method = "pcam"
    wanted = [MapName(m, method, LAST, k) for m in range(len(graph.members)) for k in range(len(graph.findings))]
    for part in map_dataset(graph, dataset, list(served), wanted, Making(), 2, 1):
        for i, image_id in enumerate(part.image_ids):
            for k, finding in enumerate(served[image_id].findings):
                members = [torch.from_numpy(part.maps[name][i]) for name in wanted if name.class_id == k]
                grids = [
                    torch.nn.functional.interpolate(own[None, None], part.grid_hw, mode="bilinear", align_corners=False)
                    for own in members
                ]
                joined = torch.stack(grids).mean(0)[0, 0].numpy()
                expected = over_film(joined, part.placements[i], graph.input.size_px)
                assert finding.map is not None
                shown = cv2.imdecode(np.frombuffer(base64.b64decode(finding.map.png), np.uint8), cv2.IMREAD_UNCHANGED)
                assert shown is not None
                step = (finding.map.high - finding.map.low) / 255
                np.testing.assert_allclose(shown * step + finding.map.low, expected, atol=step / 2 + 1e-4)
                assert finding.map.high == pytest.approx(float(expected.max()), abs=1e-4)
