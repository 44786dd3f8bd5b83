from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from classify.checkpoint import weights_of
from classify.ensemble import EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.hierarchy import Hierarchy
from classify.member import save_member
from classify.model import ModelConfig
from classify.studies import StudyMode
from classify.study_network import classifiers_of, make_network
from weakray.coco import BoxTruth
from weakray.dataset import Dataset, write_dataset
from weakray.files import sha256_file
from weakray.imaging import InputSpec, write_image
from weakray.taxonomy import Finding, Taxonomy

TREE = Taxonomy(
    (Finding("Consolidation", "Opacity"), Finding("Opacity"), Finding("Pneumonia", "Consolidation"), Finding("Mass"))
)


def spots(root: Path, taxonomy: Taxonomy = TREE, seed: int = 0, train: int = 24, others: int = 10) -> Dataset:
    """Films of 30 × 44 px on which a bright square at a place of its own stands for each finding."""
    rng = np.random.default_rng(seed)
    splits = ["train"] * train + ["val"] * others + ["tune"] * 4 + ["test"] * others
    rows: list[dict[str, Any]] = []
    labels: list[list[float]] = []
    (root / "images").mkdir(parents=True)
    for i, split in enumerate(splits):
        present = rng.random(len(taxonomy)) < 0.6
        for k in taxonomy.top_down:
            parent = taxonomy.parents[k]
            present[k] &= parent is None or present[parent]
        film = rng.integers(40, 120, (30, 44)).astype(np.uint8)
        for k in np.flatnonzero(present).tolist():
            film[4 + 12 * (k // 2) : 12 + 12 * (k // 2), 4 + 20 * (k % 2) : 12 + 20 * (k % 2)] = 250
        path = root / "images" / f"i{i:03d}.png"
        write_image(path, film)
        rows.append(
            {
                "image_id": f"i{i:03d}",
                "path": f"images/i{i:03d}.png",
                "patient_id": f"p{i:03d}",
                "study_id": f"s{i:03d}",
                "view": "PA",
                "height": 30,
                "width": 44,
                "split": split,
                "sha256": sha256_file(path),
                "source": "spots",
            }
        )
        values = present.astype(float)
        if split == "train" and i % 7 == 3:
            values[3] = -1.0
        if split == "train" and i % 7 == 5:
            values[3] = np.nan
        labels.append(values.tolist())
    images = pd.DataFrame(rows)
    table = pd.DataFrame(labels, index=pd.Index(images["image_id"]), columns=taxonomy.names)
    return write_dataset(
        root,
        images=images,
        labels=table,
        taxonomy=taxonomy,
        truth=BoxTruth(),
        ceiling=None,
        rejected=[],
        info={"origin": "spots"},
    )


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return spots(tmp_path_factory.mktemp("spots") / "data")


@pytest.fixture(scope="session")
def make_spots() -> Callable[..., Dataset]:
    return spots


def untrained(folder: Path, seed: int = 0, taxonomy: Taxonomy = TREE, **settings: Any) -> Path:
    """A member with random weights, spread so that its outputs are not all one half."""
    hierarchy: Hierarchy = settings.pop("hierarchy", "conditional")
    studies: StudyMode = settings.pop("studies", "images")
    size: int = settings.pop("size_px", 64)
    config = ModelConfig(**{"backbone": "test_resnet", "input": InputSpec(size_px=size)} | settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make_network(config, len(taxonomy), studies)
        for model in classifiers_of(network):
            if isinstance(model.scorer, torch.nn.Conv2d):
                torch.nn.init.normal_(model.scorer.weight, std=0.5)
                torch.nn.init.normal_(model.scorer.bias, std=1.0)  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    save_member(folder, weights_of(network), config, taxonomy, hierarchy, "zeros", studies)
    return folder


VIEWS = ("PA", "LATERAL")


def visits_of_two(root: Path, views: tuple[str, str] = VIEWS, **settings: Any) -> Dataset:
    """`spots` in which each two neighbours of a split are a study, of these views."""
    spots(root, **settings)
    images = pd.read_parquet(root / "images.parquet")
    place = images.groupby("split").cumcount()
    visit = images["split"] + (place // 2).astype(str)
    images["patient_id"], images["study_id"] = "p" + visit, "s" + visit
    images["view"] = np.where(place % 2 == 0, *views)
    images.to_parquet(root / "images.parquet", index=False)
    return Dataset.load(root)


@pytest.fixture(scope="session")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return visits_of_two(tmp_path_factory.mktemp("visits") / "data")


@pytest.fixture(scope="session")
def make_visits() -> Callable[..., Dataset]:
    return visits_of_two


@pytest.fixture(scope="session")
def make_member() -> Callable[..., Path]:
    return untrained


@pytest.fixture(scope="session")
def ensemble(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained members of unlike grids, calibrated."""
    root = tmp_path_factory.mktemp("ensemble")
    members = [untrained(root / "a", 1), untrained(root / "b", 2, output_stride=32)]
    make_ensemble(EnsembleConfig(data=dataset.root, members=members, out=root / "both", threads=1))
    return root / "both"
