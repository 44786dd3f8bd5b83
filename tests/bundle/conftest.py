"""A tiny bundle whose every number can be worked out by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from weakray.bundle.graph import tidy
from weakray.bundle.manifest import ClassifierPart, DetectorPart, Manifest, Origin
from weakray.bundle.writing import write_bundle
from weakray.coco import BoxTruth
from weakray.dataset import Dataset, write_dataset
from weakray.files import sha256_file, write_yaml
from weakray.imaging import InputSpec, prepare, read_image, to_batch, write_image
from weakray.taxonomy import Finding, Taxonomy

WriteTiny = Callable[..., Manifest]

NAMES = ("Opacity", "Nodule", "Effusion")
SPEC = InputSpec(size_px=32, channels=1, minmax=False)
TAXONOMY = Taxonomy((Finding("Opacity"), Finding("Nodule", "Opacity"), Finding("Effusion")))
# cx, cy, w, h in the letterboxed square, then the scores of the three findings.
ANCHORS = (
    (16.0, 16.0, 8.0, 4.0, 0.9, 0.0, 0.0),
    (16.0, 16.0, 8.0, 5.0, 0.8, 0.0, 0.0),  # overlaps the first by 0.8: suppressed
    (8.0, 16.0, 4.0, 4.0, 0.0, 0.3, 0.0),  # below the threshold of Nodule, 0.5
    (24.0, 14.0, 6.0, 8.0, 0.0, 0.0, 0.25),  # just at the threshold of Effusion, 0.25
)


class TinyClassifier(nn.Module):
    """Maps are the image pooled to 4 x 4, half of it, and its complement; probabilities are their means."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = nn.functional.avg_pool2d(images[:, :1], SPEC.size_px // 4)
        maps = torch.cat([pooled, pooled / 2, 1 - pooled], dim=1)
        return maps.mean(dim=(2, 3)), maps


class TinyDetector(nn.Module):
    """Gives `ANCHORS` whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.tensor(ANCHORS).T[None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.anchors + 0 * images.mean(dim=(1, 2, 3))[:, None, None]


def export(module: nn.Module, path: Path, outputs: dict[str, tuple[int, ...]], channels: int = 1) -> Path:
    """The torch module as a tidied ONNX file with a free batch size."""
    shape = (channels, SPEC.size_px, SPEC.size_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the TorchScript exporter is deprecated, and 20 x faster
        torch.onnx.export(
            module.eval(),
            (torch.zeros(2, *shape),),
            path,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in ("images", *outputs)},
            opset_version=18,
            dynamo=False,
        )
    tidy(path, {"images": ("n", *shape), **{name: ("n", *tail) for name, tail in outputs.items()}})
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and much slower where other work holds the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`detector` and `classifiers` as ONNX, and a recipe."""
    folder = tmp_path_factory.mktemp("graphs")
    write_yaml(folder / "recipe.yaml", {"findings": list(NAMES)})
    return {
        "detector_onnx": export(TinyDetector(), folder / "d.onnx", {"raw": (7, len(ANCHORS))}),
        "classifiers_onnx": export(TinyClassifier(), folder / "c.onnx", {"probabilities": (3,), "maps": (3, 4, 4)}),
        "recipe": folder / "recipe.yaml",
    }


@pytest.fixture(scope="session")
def write_tiny(graphs: dict[str, Path]) -> WriteTiny:
    """Writes the tiny bundle to a folder; further arguments replace those of `write_bundle`."""

    def write(folder: Path, **changes: Any) -> Manifest:
        arguments: dict[str, Any] = {
            **graphs,
            "taxonomy": TAXONOMY,
            "detector": DetectorPart(
                input=SPEC,
                findings=NAMES,
                score_thresholds={"Opacity": 0.5, "Nodule": 0.5, "Effusion": 0.25},
                iou_above=0.5,
                max_boxes=10,
                weights_sha256="0" * 64,
                parity_passed=True,
            ),
            "classifiers": ClassifierPart(
                input=SPEC,
                findings=NAMES,
                decision_thresholds={"Opacity": 0.25, "Nodule": 0.25, "Effusion": 0.85},
                calibration="none",
                members=("1" * 64, "2" * 64),
                parity_passed=True,
            ),
            "origin": Origin(commit="abc", dataset="made", dataset_sha256="3" * 64),
            "trial": np.zeros((5, 9), np.uint8),
        }
        return write_bundle(folder, **(arguments | changes))

    return write


@pytest.fixture
def bundle_folder(tmp_path: Path, write_tiny: WriteTiny) -> Path:
    """A whole tiny bundle."""
    write_tiny(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Grey films of three sizes, none square: an opacity is a bright left half, an effusion a bright foot."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    labels: list[list[float]] = []
    for i in range(16):
        height, width = [(30, 44), (44, 30), (40, 41)][i % 3]
        film = rng.integers(0, 100, (height, width)).astype(np.uint8)
        opacity, effusion = i % 2, i // 2 % 2
        film[:, : width // 2] += np.uint8(120 * opacity)
        film[-8:] += np.uint8(30 * effusion)
        write_image(root / f"i{i}.png", film)
        rows.append(
            {
                "image_id": f"i{i}",
                "path": f"i{i}.png",
                "patient_id": f"p{i}",
                "study_id": f"s{i}",
                "view": "PA",
                "height": height,
                "width": width,
                "split": "val" if i < 11 else "test",
                "source": "made",
                "sha256": sha256_file(root / f"i{i}.png"),
            }
        )
        labels.append([opacity, 0, effusion])  # no nodule anywhere
    images = pd.DataFrame(rows)
    table = pd.DataFrame(labels, index=pd.Index(images["image_id"]), columns=list(NAMES), dtype=float)
    return write_dataset(
        root,
        images=images,
        labels=table,
        taxonomy=TAXONOMY,
        truth=BoxTruth(),
        ceiling=None,
        rejected=[],
        info={"origin": "made for tests"},
    )


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """Two untrained members of different grids, calibrated on the films."""
    from classify import ensemble as command
    from classify.member import save_member
    from classify.model import Classifier, ModelConfig

    root = tmp_path_factory.mktemp("ensemble")
    members = []
    for seed, stride in enumerate([16, 32]):
        settings = {"backbone": "test_resnet", "output_stride": stride, "input": {"size_px": 64, "channels": 1}}
        config = ModelConfig.model_validate(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Classifier(config, len(NAMES))
            nn.init.normal_(model.conv.weight, std=1.0)
        folder = root / f"member{seed}"
        folder.mkdir()
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_member(folder, weights, config, TAXONOMY, "conditional", "zeros")
        members.append(folder)
    command.run(command.EnsembleConfig(data=dataset.root, members=members, out=root / "ensemble", threads=1))
    return root / "ensemble"


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """An untrained YOLO of small boxes whose scores spread over (0, 1)."""
    from detect.network import new_network, save_network

    folder = tmp_path_factory.mktemp("detector")
    network = new_network("yolo11n.yaml", NAMES, InputSpec(size_px=64, channels=1), seed=1)
    films = [prepare(read_image(dataset.path_of(i)), network.spec)[0] for i in dataset.image_ids]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for module in network.module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one batch fills the running statistics; without them no signal gets through
        network.module.train()(torch.from_numpy(to_batch(films)))
        head = network.module.model[-1]
        for box_branch, class_branch in zip(head.cv2, head.cv3, strict=True):
            nn.init.normal_(box_branch[-1].weight, std=0.003)
            box_branch[-1].bias.copy_((-0.7 * torch.arange(16.0)).repeat(4))  # each side about one stride away
            nn.init.normal_(class_branch[-1].weight, std=0.3)
            nn.init.constant_(class_branch[-1].bias, -2.0)
    save_network(folder, network, {})
    return folder
