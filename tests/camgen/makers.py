"""Seeded makers: films, maps and classifiers that cost nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from camgen.components import SHAPE_NAMES, Components, FineMap, fine_map
from camgen.layers import LAST
from camgen.maps import MapName, MapSet
from classify.ensemble import EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.member import save_member
from classify.model import Classifier, ModelConfig
from weakray.coco import BoxTruth
from weakray.dataset import Dataset, write_dataset
from weakray.detections import Detections
from weakray.files import write_json
from weakray.imaging import InputSpec, Placement, letterbox, write_image
from weakray.stack import silence
from weakray.taxonomy import Taxonomy

NAMES = ["Nodule", "Effusion", "Mass"]


class Output(NamedTuple):
    logits: Tensor
    logit_maps: Tensor


class TinyClassifier(nn.Module):
    """Two convolutions and a PCAM head, in any precision; counts its backbone passes."""

    def __init__(self, findings: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 5, 3, 2, 1))
        self.point = nn.Conv2d(5, findings, 1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.7
        self.passes = 0
        self.body.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found

    def head(self, features: Tensor) -> Output:
        maps = self.point(features)
        weight = maps.sigmoid()
        return Output((weight * maps).sum((2, 3)) / weight.sum((2, 3)), maps)


class Averaged(nn.Module):
    """A timm backbone and a linear head on averages, of random weights and statistics; tokens become maps."""

    def __init__(self, backbone: str, findings: int, seed: int = 0, size_px: int = 64) -> None:
        super().__init__()
        silence()
        import timm

        whole: Any = {"img_size": size_px} if "vit" in backbone else {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.backbone: Any = timm.create_model(backbone, num_classes=0, in_chans=1, **whole)
            self.fc = nn.Linear(self.backbone.num_features, findings)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for value in (module.bias, module.running_mean):
                        nn.init.normal_(cast("Tensor", value), std=0.3)
            nn.init.normal_(self.fc.weight, std=0.5)
            nn.init.normal_(self.fc.bias, std=0.5)
        self.eval()
        self.batches: list[int] = []

    def features(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        found: Tensor = self.backbone.forward_features(x)
        if found.ndim == 3:
            side = int((found.shape[1] - self.backbone.num_prefix_tokens) ** 0.5)
            return found[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
        return found

    def head(self, features: Tensor) -> Output:
        maps = torch.einsum("kd,ndhw->nkhw", self.fc.weight, features) + self.fc.bias[:, None, None]
        return Output(maps.mean((2, 3)), maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).logits


def named(maps: Mapping[str, npt.NDArray[np.float32]], layer: str = LAST) -> dict[MapName, npt.NDArray[np.float32]]:
    """Method → `(m, n, k, h, w)` as a map set holds it."""
    return {
        MapName(member, method, layer, k): whole[member, :, k]
        for method, whole in maps.items()
        for member in range(whole.shape[0])
        for k in range(whole.shape[2])
    }


def placed(height: int, width: int, side: int) -> Placement:
    """Where an image of this size goes in a square of `side` pixels."""
    return letterbox(np.zeros((height, width), np.uint8), side)[1]


def whole(values: npt.ArrayLike, upsample: int = 1) -> FineMap:
    """A map over a square image of as many pixels."""
    array = np.asarray(values, np.float32)
    side = max(array.shape)
    return fine_map(array, Placement((side, side), (1.0, 1.0), 0, 0), upsample * min(array.shape))


def components(boxes_rel: npt.ArrayLike, peak: npt.ArrayLike | None = None) -> Components:
    """Components with these boxes `(n, p, 4)`, all valid, of featureless maps."""
    boxes = np.asarray(boxes_rel, np.float64)
    valid = np.ones(boxes.shape[:2], bool)
    peaks = np.full(boxes.shape[:2], 0.9) if peak is None else np.asarray(peak, np.float64)
    return Components(boxes, valid, peaks, np.zeros((*boxes.shape[:2], len(SHAPE_NAMES))), np.zeros(len(boxes), bool))


def films(
    root: Path,
    splits: Sequence[str],
    boxes: dict[str, Detections],
    names: Sequence[str] = NAMES,
    images_a_patient: int = 1,
    size_hw: tuple[int, int] = (30, 44),
) -> Dataset:
    """A dataset of noise films i000, i001, … with these splits and true boxes; all tune and test pairs annotated."""
    rng = np.random.default_rng(5)
    (root / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i, split in enumerate(splits):
        write_image(root / "images" / f"i{i:03d}.png", rng.integers(0, 256, size_hw).astype(np.uint8))
        rows.append(
            {
                "image_id": f"i{i:03d}",
                "path": f"images/i{i:03d}.png",
                "patient_id": f"p-{split}-{i // images_a_patient}",
                "study_id": f"s{i}",
                "view": "PA",
                "height": size_hw[0],
                "width": size_hw[1],
                "split": split,
                "sha256": f"{i}",
                "source": "made",
            }
        )
    images = pd.DataFrame(rows)
    looked = [row["image_id"] for row in rows if row["split"] in ("tune", "test")]
    truth = BoxTruth(
        {image_id: boxes.get(image_id, Detections.empty()) for image_id in looked},
        frozenset((image_id, k) for image_id in looked for k in range(len(names))),
    )
    labels = pd.DataFrame(
        {name: (rng.random(len(rows)) < 0.5).astype(float) for name in names}, index=pd.Index(images["image_id"])
    )
    return write_dataset(
        root,
        images=images,
        labels=labels,
        taxonomy=Taxonomy.flat(names),
        truth=truth,
        ceiling=None,
        rejected=[],
        info={"origin": "made"},
    )


def blob_maps(
    dataset: Dataset, image_ids: Sequence[str], seen: dict[tuple[str, int], list[float]], grid: int
) -> MapSet:
    """PCAM and Grad-CAM maps `(2 members)` with a Gaussian hill over each box in `seen`, found with probability 0.9."""
    names = dataset.taxonomy.names
    placements = [placed(*dataset.size_hw(image_id), 4 * grid) for image_id in image_ids]
    rng = np.random.default_rng(3)
    pcam = rng.uniform(0.0, 0.05, (2, len(image_ids), len(names), grid, grid))
    probability = rng.uniform(0.02, 0.3, (len(image_ids), len(names)))
    at = (np.arange(grid) + 0.5) * 4
    for i, image_id in enumerate(image_ids):
        for k in range(len(names)):
            if (image_id, k) not in seen:
                continue
            x0, y0, x1, y1 = placements[i].forward(np.array([seen[image_id, k]], np.float32))[0].tolist()
            hill_x = np.exp(-0.5 * ((at - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2)
            hill_y = np.exp(-0.5 * ((at - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2)
            pcam[:, i, k] += 0.9 * hill_y[:, None] * hill_x[None]
            probability[i, k] = 0.9 - 0.001 * i
    maps = np.clip(pcam, 0, 1).astype(np.float32)
    scales = {"pcam": 1.0, "gradcam": 1e-3}
    return MapSet(
        list(image_ids),
        placements,
        named({method: (maps * scale).astype(np.float32) for method, scale in scales.items()}),
        probability,
        np.stack([probability, probability * 0.5]),
        (grid, grid),
    )


def made_ensemble(root: Path) -> Path:
    """Two untrained members with different weights, as an ensemble on disk."""
    dataset = films(root / "data", ["val"] * 6, {})
    config = ModelConfig(backbone="test_resnet", output_stride=8, input=InputSpec(size_px=64))
    for seed in (0, 1):
        folder = root / f"member_{seed}"
        folder.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Classifier(config, len(NAMES))
            nn.init.normal_(model.conv.weight, std=1.0)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_member(folder, weights, config, dataset.taxonomy, "none", "zeros")
        write_json(folder / "done.json", {})
    members = [root / "member_0", root / "member_1"]
    make_ensemble(EnsembleConfig(data=root / "data", members=members, out=root / "ensemble", device="cpu"))
    return root / "ensemble"
