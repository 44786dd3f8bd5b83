"""A seeded dataset folder with true boxes and no image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weakray.coco import BoxTruth
from weakray.dataset import Dataset, write_dataset
from weakray.detections import Detections
from weakray.taxonomy import Taxonomy

NAMES = ["Nodule", "Mass"]
HEIGHT, WIDTH = 90, 160


def boxes_of(rng: np.random.Generator, n: int) -> Any:
    low = rng.integers(0, [WIDTH - 60, HEIGHT - 40], (n, 2))
    return np.concatenate([low, low + rng.integers(10, 40, (n, 2))], axis=1)


def made_dataset(root: Path) -> Dataset:
    """Twelve test images of six patients, three tune images, two train images; every pair was looked for."""
    rng = np.random.default_rng(0)
    split = ["test"] * 12 + ["tune"] * 3 + ["train"] * 2
    ids = [f"im{i:02d}" for i in rng.permutation(len(split))]  # not in the order of their names
    images = pd.DataFrame(
        {
            "image_id": ids,
            "path": ids,
            "patient_id": [f"{part}{i // 2}" for i, part in enumerate(split)],
            "study_id": ids,
            "view": "frontal",
            "height": HEIGHT,
            "width": WIDTH,
            "split": split,
            "sha256": "",
            "source": "made",
        }
    )
    boxed = ids[:15]
    classes = {image_id: rng.integers(0, 2, rng.integers(0, 4)) for image_id in boxed}
    truth = BoxTruth(
        {i: Detections(boxes_of(rng, len(k)), k, np.ones(len(k))) for i, k in classes.items()},
        frozenset((image_id, k) for image_id in boxed for k in range(2)),
    )
    labels = pd.DataFrame(0.0, index=pd.Index(ids, name="image_id"), columns=NAMES)
    return write_dataset(
        root,
        images=images,
        labels=labels,
        taxonomy=Taxonomy.flat(NAMES),
        truth=truth,
        ceiling=None,
        rejected=[],
        info={"origin": "made"},
    )
