"""What the page is made of: every figure of a dataset folder, gathered once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.report.boxes import BoxFigures, box_figures
from ingest.report.duplicates import Alike, alike, near_pairs
from ingest.report.examples import Thumbnail, choose_examples, thumbnail
from ingest.report.labels import FindingRow, finding_rows
from ingest.report.people import SplitPeople, split_people
from ingest.report.scan import Scan, scan_images
from ingest.tables import read_table
from weakray.dataset import SPLITS, Dataset
from weakray.imaging import Image
from weakray.splitting import split_proof

GROUPS_SHOWN, MEMBERS_SHOWN = 12, 4
_GROUP_PX = 150


@dataclass(frozen=True)
class AlikeView:
    """A group of near duplicates, as the page shows it.

    Attributes:
        members: thumbnails, at most `MEMBERS_SHOWN`.
        count: all members.
        distance: bits.
        patients: how many patients they belong to.
        splits: the splits they stand in.
    """

    members: list[Thumbnail]
    count: int
    distance: int
    patients: int
    splits: list[str]


@dataclass(frozen=True)
class Duplicates:
    """What was found to look the same.

    Attributes:
        exact: images whose bytes another image has too.
        refused: copies that were refused at the intake.
        groups: near duplicates.
        images: images in them.
        across_patients: groups of more than one patient.
        across_splits: groups that stand in more than one split: a leak.
        shown: some of the groups, those across splits first.
        radius: bits.
    """

    exact: int
    refused: int
    groups: int
    images: int
    across_patients: int
    across_splits: int
    shown: list[AlikeView]
    radius: int


@dataclass(frozen=True)
class Reason:
    """Inputs that were not taken for one reason, and the first of them."""

    reason: str
    count: int
    item: str
    detail: str


@dataclass(frozen=True)
class ReportContent:
    """Everything the page prints.

    Attributes:
        dataset: the folder.
        title: heading.
        splits: those that hold an image.
        findings: label counts.
        boxes: of findings that have any, in tune and test.
        annotated: images that were looked at for boxes.
        people: figures of each split.
        proof: of disjoint splits, counted for this page.
        examples: finding → thumbnails.
        duplicates: near and exact ones.
        mean: the mean image.
        unread: image_id → why it could not be read.
        rejected: by reason, the most frequent first.
    """

    dataset: Dataset
    title: str
    splits: list[str]
    findings: list[FindingRow]
    boxes: list[BoxFigures]
    annotated: int
    people: list[SplitPeople]
    proof: Mapping[str, Any]
    examples: dict[str, list[Thumbnail]]
    duplicates: Duplicates
    mean: Image | None
    unread: dict[str, str]
    rejected: list[Reason]


def gather(
    dataset: Dataset, *, title: str, examples: int, thumbnail_px: int, radius: int, workers: int
) -> ReportContent:
    """Reads and counts everything; see `ingest.report.command` for the arguments."""
    names = dataset.taxonomy.names
    splits = [split for split in SPLITS if len(dataset.ids_of(split))]
    scan = scan_images([dataset.path_of(image_id) for image_id in dataset.image_ids], workers)
    return ReportContent(
        dataset=dataset,
        title=title,
        splits=list(splits),
        findings=finding_rows(dataset.labels, dataset.images["split"], splits, dataset.taxonomy),
        boxes=box_figures(dataset.truth, dataset.sizes_hw, names),
        annotated=len(dataset.truth.image_ids),
        people=split_people(dataset.images, SPLITS),
        proof=split_proof(dataset.images, SPLITS),
        examples={
            name: [thumbnail(dataset, image_id, class_id, thumbnail_px, names) for image_id in chosen]
            for class_id, name in enumerate(names)
            for chosen in [choose_examples(dataset.labels, dataset.truth, dataset.patients, class_id, examples)]
        },
        duplicates=_duplicates(dataset, scan, radius),
        mean=scan.mean,
        unread={dataset.image_ids[row]: why for row, why in scan.unread.items()},
        rejected=rejected_by_reason(dataset.root / "rejected.csv"),
    )


def _duplicates(dataset: Dataset, scan: Scan, radius: int) -> Duplicates:
    ids = dataset.image_ids
    pairs, distances = near_pairs(scan.hashes, radius)
    groups = alike(len(ids), scan.rows[pairs], distances)
    patients = [{dataset.patient_of(ids[row]) for row in group.members} for group in groups]
    at = dataset.images["split"].tolist()
    splits = [sorted({at[row] for row in group.members}, key=SPLITS.index) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: (-len(splits[g]), -len(patients[g]), g))[:GROUPS_SHOWN]
    counted = dataset.info.get("counts", {}).get("rejected_by_reason", {})
    return Duplicates(
        exact=int(dataset.images["sha256"].duplicated(keep=False).sum()),
        refused=int(counted.get("same_content", 0)),
        groups=len(groups),
        images=sum(len(group.members) for group in groups),
        across_patients=sum(len(people) > 1 for people in patients),
        across_splits=sum(len(found) > 1 for found in splits),
        shown=[_shown(dataset, groups[g], len(patients[g]), splits[g]) for g in order],
        radius=radius,
    )


def _shown(dataset: Dataset, group: Alike, patients: int, splits: list[str]) -> AlikeView:
    names = dataset.taxonomy.names
    ids = [dataset.image_ids[row] for row in group.members[:MEMBERS_SHOWN]]
    members = [thumbnail(dataset, image_id, None, _GROUP_PX, names) for image_id in ids]
    return AlikeView(members, len(group.members), group.distance, patients, splits)


def rejected_by_reason(path: Path) -> list[Reason]:
    """Counts `rejected.csv`; empty where the folder has none, or none was rejected."""
    if not path.is_file():
        return []
    rows = [[*cells, "", "", ""][:3] for _, cells in read_table(path).rows]
    counted = Counter(reason for _, reason, _ in rows)
    first = {reason: (item, detail) for item, reason, detail in reversed(rows)}
    ranked: Sequence[tuple[str, int]] = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Reason(reason, count, *first[reason]) for reason, count in ranked]


def typical_aspect(dataset: Dataset) -> float:
    """Median of width / height."""
    return float(np.median(dataset.images["width"].to_numpy() / dataset.images["height"].to_numpy()))
