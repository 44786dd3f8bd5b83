"""A maker of dataset folders whose every figure can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from weakray.coco import BoxTruth
from weakray.dataset import IMAGE_COLUMNS, Dataset, Rejection, write_dataset
from weakray.detections import Detections
from weakray.files import sha256_bytes
from weakray.imaging import Image
from weakray.taxonomy import Finding, Taxonomy

Maker = Callable[..., Dataset]


def film(seed: int, height: int = 60, width: int = 90) -> Image:
    """A smooth seeded picture `(height, width)`: unlike any of another seed, like its own copies."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture
def make_film() -> Callable[..., Image]:
    """The maker of pictures."""
    return film


@pytest.fixture
def make_dataset() -> Maker:
    """Writes a dataset folder from (image_id, patient, split, label values) rows."""

    def make(
        root: Path,
        rows: Sequence[tuple[str, str, str, Sequence[float]]],
        *,
        findings: Sequence[Finding | str] = ("Mass", "Nodule"),
        boxes: Mapping[str, Sequence[tuple[int, Sequence[float]]]] = {},
        films: Mapping[str, Image] = {},
        rejected: Sequence[Rejection] = (),
        columns: Mapping[str, Sequence[Any]] = {},
        info: Mapping[str, Any] = {},
    ) -> Dataset:
        taxonomy = Taxonomy(tuple(f if isinstance(f, Finding) else Finding(f) for f in findings))
        table: list[dict[str, Any]] = []
        for seed, (image_id, patient, split, _) in enumerate(rows):
            image = films.get(image_id, film(seed))
            path = root / "images" / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = cv2.imencode(".png", image)[1].tobytes()
            path.write_bytes(content)
            values = (image_id, f"images/{seed}.png", patient, patient, "PA", *image.shape[:2], split)
            table.append(dict(zip(IMAGE_COLUMNS, (*values, sha256_bytes(content), "made"), strict=True)))
        ids = [row[0] for row in rows]
        truth = BoxTruth(
            {
                image_id: Detections(
                    np.array([box for _, box in found], np.float32).reshape(-1, 4),
                    np.array([class_id for class_id, _ in found], np.int64),
                    np.ones(len(found), np.float32),
                )
                for image_id, found in boxes.items()
            },
            frozenset((image_id, class_id) for image_id, found in boxes.items() for class_id, _ in found),
        )
        return write_dataset(
            root,
            images=pd.DataFrame(table).assign(**columns),
            labels=pd.DataFrame([row[3] for row in rows], index=ids, columns=taxonomy.names),
            taxonomy=taxonomy,
            truth=truth,
            ceiling=None,
            rejected=rejected,
            info={"origin": "made", "licence": "CC0", **info},
        )

    return make
