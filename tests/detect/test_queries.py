"""A detector of queries (RT-DETR) from training to exports: what differs from one of anchors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detect.detector import Detector, load_detector
from detect.exporting import export_detector, write_export
from detect.formats import open_graph
from detect.network import new_network, save_network
from detect.parity import ToleranceConfig, compare, in_order_of
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of, train_interrupted, weights_of
from weakray.boxes.geometry import iou
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.imaging import InputSpec, read_image


def test_an_interrupted_training_ends_with_the_same_bytes(
    pseudo_boxes: tuple[Dataset, Path], query_architecture: Path, tmp_path: Path
) -> None:
    dataset, boxes = pseudo_boxes
    settings = {"source": "pseudo_then_tune", "boxes": boxes, "pseudo": {"weights": "score"}}
    settings["course"] = {"rounds": 1, "continued": True, "first_share": 0.5, "tune_mixed": 0.4}
    train(config_of(dataset, tmp_path / "whole", query_architecture, **settings))
    config = config_of(dataset, tmp_path / "killed", query_architecture, **settings)
    train_interrupted(config, 5)
    train(config)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")


def test_it_learns_and_predicts_in_image_pixels(
    make_dataset: DatasetMaker, query_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset(train=8)
    optimizer = {"lr": 0.01, "warmup_steps": 10, "ema_decay": 0.9, "ema_warmup_steps": 10}
    settings = {
        "steps": 200,
        "batch_size": 8,
        "checkpoint_every_steps": 200,
        "augment": {"scale": 0.1, "rotate_deg": 0},
    }
    train(config_of(dataset, tmp_path / "run", query_architecture, optimizer=optimizer, **settings))
    detector, truth = load_detector(tmp_path / "run"), dataset.truth_of("tune").boxes
    assert detector.network.queries
    images = [read_image(dataset.path_of(image_id)) for image_id in truth]
    found = detector.predict(images)
    best = [
        float(iou(own.of_class(c).boxes_xyxy_px[:1], true.of_class(c).boxes_xyxy_px).max(initial=0))
        for own, true in zip(found, truth.values(), strict=True)
        for c in true.class_id.tolist()
    ]
    assert np.mean(best) > 0.5
    for image, own in zip(images, found, strict=True):
        assert (own.boxes_xyxy_px >= 0).all()
        assert (own.boxes_xyxy_px <= [image.shape[1], image.shape[0]] * 2).all()
        np.testing.assert_allclose(detector.predict([image])[0].score, own.score, atol=1e-4)


@pytest.fixture
def spread_detector(query_architecture: Path, tmp_path: Path) -> Path:
    """An untrained one, whose boxes and scores differ."""
    network = new_network(str(query_architecture), ["A", "B", "C"], InputSpec(size_px=64), 0)
    head = network.module.model[-1]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for branch in (*head.dec_score_head, head.enc_score_head):
            torch.nn.init.normal_(branch.weight, std=0.3)
            torch.nn.init.constant_(branch.bias, -2.0)
        for branch in (*head.dec_bbox_head, head.enc_bbox_head):
            torch.nn.init.normal_(branch.layers[-1].weight, std=0.05)
    save_network(tmp_path / "detector", network, {})
    return tmp_path / "detector"


FILMS = list(np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8))


def test_raw_is_in_pixels_and_folding_changes_nothing(spread_detector: Path) -> None:
    detector = load_detector(spread_detector)
    raw = detector.raw(FILMS)
    assert raw.shape == (5, 7, 20)
    with torch.no_grad():
        network = detector.network.module
        boxes, scores = network(torch.from_numpy(np.stack(FILMS)[:, None] / np.float32(255)))[1][:2]
    np.testing.assert_allclose(raw[:, :4].transpose(0, 2, 1), boxes[0].numpy() * 64, rtol=1e-4)
    np.testing.assert_allclose(raw[:, 4:].transpose(0, 2, 1), scores[0].sigmoid().numpy(), rtol=1e-4)
    np.testing.assert_allclose(Detector(detector.network.folded()).raw(FILMS), raw, atol=1e-3)
    rough = in_order_of(raw, Detector(detector.network, bf16=True).raw(FILMS), 64)
    assert np.abs(rough[:, 4:] - raw[:, 4:]).mean() < 0.02


@pytest.mark.parametrize(("kind", "agree"), [("onnx", 1), ("onnx-fp16", 0.95), ("openvino", 1), ("torchscript", 1)])
def test_exports_agree_with_torch(spread_detector: Path, tmp_path: Path, kind: Any, agree: float) -> None:
    detector = load_detector(spread_detector)
    export_detector(spread_detector, tmp_path / "detector.onnx", 18)
    write_export(tmp_path / kind, kind, spread_detector, tmp_path / "detector.onnx", [])
    graph = open_graph(tmp_path / kind, kind, ("A", "B", "C"), detector.spec, 1)
    parity = compare(detector, graph, FILMS, ToleranceConfig(), in_order=False)
    assert parity.boxes > 100
    assert parity.matched_fraction >= agree  # in half precision other places may be chosen as queries


def test_queries_are_brought_into_order() -> None:
    rng = np.random.default_rng(0)
    expected = rng.uniform(0, 1, (3, 6, 30)).astype(np.float32)
    expected[:, :4] *= 64
    moved = expected + rng.uniform(-0.01, 0.01, expected.shape).astype(np.float32)
    mixed = np.stack([image[:, rng.permutation(30)] for image in moved])
    assert np.abs(mixed - expected).max() > 10
    np.testing.assert_array_equal(in_order_of(expected, mixed, 64), moved)


def test_channels_that_an_architecture_has_fixed_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"input.channels: expected 3, which rtdetr-resnet50.yaml has fixed, got 1"):
        new_network("rtdetr-resnet50.yaml", ["A"], InputSpec(size_px=64), 0)
