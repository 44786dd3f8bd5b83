"""The detector's network: built, kept, read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from detect.detector import load_detector
from detect.network import load_network, new_network
from detect.quiet_import import import_ultralytics
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of, weights_of
from weakray.errors import ConfigError, DataError
from weakray.files import write_json
from weakray.imaging import InputSpec, read_image


@pytest.mark.parametrize("count", [1, 3])
def test_a_loaded_detector_predicts_alike_alone_and_in_a_batch(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, count: int
) -> None:
    dataset = make_dataset()
    train(config_of(dataset, tmp_path / "run", tiny_architecture))
    detector = load_detector(tmp_path / "run")
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")[:count]]
    together = detector.predict(images)
    alone = [detector.predict([image])[0] for image in images]
    assert len(together) == count
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.boxes_xyxy_px, b.boxes_xyxy_px, atol=1e-3)
    assert detector.predict([]) == []
    colour = np.repeat(images[0][..., None], 3, axis=2)
    np.testing.assert_array_equal(detector.predict([colour])[0].boxes_xyxy_px, alone[0].boxes_xyxy_px)


def test_weights_are_float32_and_no_pickle_is_left(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, bf16=True))
    weights = safetensors.torch.load(weights_of(tmp_path / "run"))
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}
    left = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {".json", ".jsonl", ".yaml", ".safetensors", ".png", ".txt"}
    assert not (tmp_path / "run" / "checkpoints").exists()
    network = load_network(tmp_path / "run")
    assert (network.names, network.strides, network.spec) == (["Disc", "Bar"], [8, 16], InputSpec(size_px=64))
    about = json.loads((tmp_path / "run" / "detector.json").read_text())
    assert about["training_sets"]["ceiling"]["images"] == 9


def test_shipped_architectures_have_their_known_sizes() -> None:
    spec, names = InputSpec(size_px=64, channels=3), [str(number) for number in range(80)]
    sizes = {name: new_network(name, names, spec, 0).parameters for name in ("yolo11n.yaml", "yolov8n.yaml")}
    assert sizes == {"yolo11n.yaml": 2_624_080, "yolov8n.yaml": 3_157_200}  # as ultralytics publishes them


@pytest.mark.parametrize(
    ("architecture", "size_px", "message"),
    [
        ("yolo77n.yaml", 64, "expected a YAML that ultralytics ships .* got 'yolo77n.yaml'"),
        ("nowhere.pt", 64, "expected weights at nowhere.pt, found none; nothing is ever downloaded"),
        ("yolo11n-seg.yaml", 64, "expected a head that finds boxes from the image alone.*got Segment"),
        ("yolov8n-world.yaml", 64, "expected a head that finds boxes from the image alone.*got WorldDetect"),
        ("yolo11n.yaml", 72, "input.size_px: expected a multiple of 32, the stride of yolo11n.yaml, got 72"),
    ],
)
def test_unfit_architectures_are_refused(architecture: str, size_px: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_network(architecture, ["A"], InputSpec(size_px=size_px), 0)


def test_weights_of_the_user_are_the_start(tiny_architecture: Path, tmp_path: Path) -> None:
    import_ultralytics()
    started = new_network(str(tiny_architecture), ["Other"], InputSpec(size_px=64, channels=3), 5)
    torch.save({"model": started.module, "train_args": {}}, tmp_path / "user.pt")
    network = new_network(str(tmp_path / "user.pt"), ["A", "B"], InputSpec(size_px=64, channels=3), 0)
    theirs, ours = started.module.state_dict(), network.module.state_dict()
    same = [name for name, value in theirs.items() if ours[name].shape == value.shape and ours[name].equal(value)]
    assert len(same) >= len(theirs) - 20
    assert "model.0.conv.weight" in same
    grey = new_network(str(tmp_path / "user.pt"), ["A", "B"], InputSpec(size_px=64), 0)
    first = theirs["model.0.conv.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.module.state_dict()["model.0.conv.weight"], first)


def test_a_detector_whose_files_do_not_match_is_refused(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train(config_of(make_dataset(), folder, tiny_architecture))
    (folder / "detector.safetensors").write_bytes(weights_of(folder)[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"detector.safetensors is not the file detector.json speaks of"):
        load_detector(folder)
    (folder / "detector.safetensors").unlink()
    with pytest.raises(DataError, match=r"expected detector.safetensors, found none"):
        load_detector(folder)
    write_json(folder / "detector.json", {"format": 9})
    with pytest.raises(DataError, match="expected a detector of format 1, got 9"):
        load_detector(folder)
