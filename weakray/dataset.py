"""The dataset folder: what every `ingest` verb writes and every later stage reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from weakray.coco import BoxTruth, truth_from_coco, truth_to_coco
from weakray.errors import DataError
from weakray.files import read_json, replacing, sha256_file, sha256_json, write_json, write_text
from weakray.splitting import split_proof
from weakray.taxonomy import Taxonomy

Split = Literal["train", "val", "tune", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "tune", "test")
IMAGE_COLUMNS = [
    *("image_id", "path", "patient_id", "study_id", "view", "height", "width", "split", "sha256", "source"),
]
OPTIONAL_COLUMNS = ["sex", "age_years", "acquired"]  # "F", "M", "O" or ""; years or NaN; ISO date or ""
_HASHED = ("images.parquet", "labels.parquet", "boxes.json", "taxonomy.yaml")


@dataclass(frozen=True)
class Rejection:
    """An input that was not taken: what (file or row), a short reason code, and how to mend it."""

    item: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """A dataset folder, read.

    Attributes:
        root: the folder.
        images: a row an image (`IMAGE_COLUMNS`, and those of `OPTIONAL_COLUMNS` that the data set knows), index =
            image_id, `path` relative to `images_root`.
        labels: image_id × findings, float: 1, 0, -1 uncertain, NaN = not mentioned; same index as `images`.
        taxonomy: the findings, in the columns' order.
    """

    root: Path
    images: pd.DataFrame
    labels: pd.DataFrame
    taxonomy: Taxonomy

    @classmethod
    def load(cls, root: Path) -> Dataset:
        """Reads and checks a dataset folder.

        Raises:
            DataError: if a file is missing, or labels and images do not pair by id.
        """
        if not (root / "dataset.json").is_file():
            raise DataError(f"{root}: expected a dataset folder (made by `weakray ingest`), found no dataset.json")
        taxonomy = Taxonomy.load(root / "taxonomy.yaml")
        images = pd.read_parquet(root / "images.parquet").set_index("image_id", drop=False)
        labels = pd.read_parquet(root / "labels.parquet").set_index("image_id")
        _check(images, labels, taxonomy, str(root))
        return cls(root, images, labels, taxonomy)

    @cached_property
    def info(self) -> dict[str, Any]:
        """`dataset.json`: counts, origin, licence, versions."""
        return dict(read_json(self.root / "dataset.json"))

    @cached_property
    def truth(self) -> BoxTruth:
        """Boxes of *tune* and *test* (never of train)."""
        return truth_from_coco(read_json(self.root / "boxes.json")).only(self.image_ids)

    @property
    def image_ids(self) -> list[str]:
        """All image ids in `images.parquet`'s order; a row's number plus 1 is its COCO id."""
        return list(self.images.index)

    def ids_of(self, split: Split) -> list[str]:
        """Image ids of one split, in order."""
        return list(self.images.index[self.images["split"] == split])

    def truth_of(self, split: Literal["tune", "test"]) -> BoxTruth:
        """True boxes and annotated pairs of one annotated split."""
        return self.truth.only(self.ids_of(split))

    def without(self, image_ids: Collection[str]) -> Dataset:
        """The dataset as if it had never held these images: no row, no label, no true box of theirs."""
        kept = ~self.images.index.isin(list(image_ids))
        return Dataset(self.root, self.images[kept], self.labels[kept], self.taxonomy)

    def ceiling_truth(self) -> BoxTruth | None:
        """Boxes of train images where the set has them. Only the fully supervised rival may call this."""
        path = self.root / "ceiling_boxes.json"
        return truth_from_coco(read_json(path)) if path.is_file() else None

    def path_of(self, image_id: str) -> Path:
        """Where an image lies."""
        return self.root / str(self.info["images_root"]) / str(self.images.loc[image_id, "path"])

    def size_hw(self, image_id: str) -> tuple[int, int]:
        """Height and width in pixels, as stored."""
        return self.sizes_hw[image_id]

    @cached_property
    def sizes_hw(self) -> dict[str, tuple[int, int]]:
        """Image id → height and width in pixels, as stored."""
        return _sizes(self.images)

    @cached_property
    def patients(self) -> dict[str, str]:
        """Image id → patient id."""
        return {str(i): str(patient) for i, patient in self.images["patient_id"].items()}

    def patient_of(self, image_id: str) -> str:
        """The patient an image belongs to."""
        return self.patients[image_id]

    @cached_property
    def sha256(self) -> str:
        """Hash of images, labels, tune and test boxes and taxonomy; `ceiling_boxes.json` is left out on purpose."""
        return sha256_json({name: sha256_file(self.root / name) for name in _HASHED})


def write_dataset(
    root: Path,
    *,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    taxonomy: Taxonomy,
    truth: BoxTruth,
    ceiling: BoxTruth | None,
    rejected: Sequence[Rejection],
    info: dict[str, Any],
    images_root: str = ".",
) -> Dataset:
    """Writes a dataset folder, `dataset.json` last, so that a killed ingest leaves none.

    Args:
        root: folder to write into.
        images: `IMAGE_COLUMNS` and any of `OPTIONAL_COLUMNS`, a row an image; `path` relative to `images_root`.
        labels: findings as columns, indexed by image_id like `images`.
        taxonomy: the findings.
        truth: boxes and annotated pairs of tune and test images.
        ceiling: boxes of train images, or None where there are none.
        rejected: what was not taken.
        info: origin, licence, versions, settings; counts and the proof of disjoint splits are added here.
        images_root: folder that holds the images, absolute or relative to `root`.

    Raises:
        DataError: if ids do not pair, or a patient stands in two splits.
    """
    columns = [*IMAGE_COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in images.columns)]
    images = images.loc[:, columns].set_index("image_id", drop=False)
    labels = labels.loc[:, taxonomy.names].astype("float32")
    _check(images, labels, taxonomy, str(root))
    split_of = images["split"].to_dict()
    for image_id in {*truth.boxes, *truth.image_ids}:
        if split_of.get(image_id) not in ("tune", "test"):
            raise DataError(f"{root}: boxes.json may hold tune and test images only; {image_id!r} is neither")
    for name in ("dataset.json", "ceiling_boxes.json"):
        (root / name).unlink(missing_ok=True)
    sizes = _sizes(images)
    with replacing(root / "images.parquet") as temporary:
        images.reset_index(drop=True).to_parquet(temporary, index=False)
    with replacing(root / "labels.parquet") as temporary:
        labels.rename_axis("image_id").reset_index().to_parquet(temporary, index=False)
    ids = list(images.index)
    write_json(root / "boxes.json", truth_to_coco(truth, ids, sizes, taxonomy.names), indent=None)
    if ceiling is not None:
        write_json(root / "ceiling_boxes.json", truth_to_coco(ceiling, ids, sizes, taxonomy.names), indent=None)
    taxonomy.save(root / "taxonomy.yaml")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["item", "reason", "detail"])
    writer.writerows((r.item, r.reason, r.detail) for r in rejected)
    write_text(root / "rejected.csv", table.getvalue())
    counts = _counts(images, labels, rejected)
    proof = split_proof(images, SPLITS)
    write_json(root / "dataset.json", {**info, "images_root": images_root, "counts": counts, "split_proof": proof})
    return Dataset(root, images, labels, taxonomy)


def _sizes(images: pd.DataFrame) -> dict[str, tuple[int, int]]:
    rows = zip(images.index, images["height"].tolist(), images["width"].tolist(), strict=True)
    return {str(image_id): (int(height), int(width)) for image_id, height, width in rows}


def _counts(images: pd.DataFrame, labels: pd.DataFrame, rejected: Sequence[Rejection]) -> dict[str, Any]:
    reasons = pd.Series([r.reason for r in rejected], dtype=object).value_counts()
    return {
        "images": len(images),
        "patients": int(images["patient_id"].nunique()),
        "rejected": len(rejected),
        "rejected_by_reason": {str(k): int(v) for k, v in sorted(reasons.items())},
        "splits": {split: int((images["split"] == split).sum()) for split in SPLITS},
        "labels": {
            split: {
                name: {
                    "positive": int((part[name] == 1).sum()),
                    "negative": int((part[name] == 0).sum()),
                    "uncertain": int((part[name] == -1).sum()),
                    "blank": int(part[name].isna().sum()),
                }
                for name in labels.columns
            }
            for split in SPLITS
            for part in [labels[(images["split"] == split).to_numpy()]]
        },
    }


def _check(images: pd.DataFrame, labels: pd.DataFrame, taxonomy: Taxonomy, where: str) -> None:
    missing = [column for column in IMAGE_COLUMNS if column not in images.columns]
    if missing:
        raise DataError(f"{where}: images lack the columns {missing}")
    if images.index.has_duplicates:
        raise DataError(f"{where}: image ids repeat, e.g. {images.index[images.index.duplicated()][0]!r}")
    if list(labels.index) != list(images.index):
        raise DataError(f"{where}: labels and images do not hold the same image ids in the same order")
    if list(labels.columns) != taxonomy.names:
        raise DataError(f"{where}: label columns {list(labels.columns)} are not the findings {taxonomy.names}")
    odd = set(images["split"]) - set(SPLITS)
    if odd:
        raise DataError(f"{where}: unknown splits {sorted(odd)}; expected {', '.join(SPLITS)}")
    shared = images.groupby("patient_id")["split"].nunique()
    if (shared > 1).any():
        raise DataError(f"{where}: patient {shared.index[shared > 1][0]!r} stands in two splits")
