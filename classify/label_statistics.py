"""`weakray classify labels`: how many labels of each kind a dataset has, and what in them will trouble training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from classify.labels import Blanks, Consistency, lift_ancestors
from weakray.config import StrictModel, to_plain
from weakray.dataset import SPLITS, Dataset, Split
from weakray.files import write_json
from weakray.runs import open_run

Labels = npt.NDArray[Any]
REPORT = "labels.json"


class LabelsConfig(StrictModel):
    """Settings of `weakray classify labels`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out"})

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder; gets labels.json")
    consistency: Consistency = Field(
        "order", description="train labels of ancestors: at least their descendants', or present where one may be"
    )
    blanks: Blanks = Field("zeros", description="what a label that was not mentioned counts as")


class LabelsResult(StrictModel):
    """How much was counted, and all that is amiss."""

    images: int
    findings: int
    lifted_labels: int
    warnings: list[str]


class FindingLabels(StrictModel):
    """Labels of one finding in one split, after ancestors were lifted. A ratio without a denominator is None."""

    present: int
    absent: int
    uncertain: int
    blank: int
    negative_to_positive: float | None
    negative_to_positive_or_uncertain: float | None
    uncertain_fraction: float | None  # of the labels that count
    lifted: dict[str, int]  # how many labels became what, such as "absent to present"


class SplitLabels(StrictModel):
    """Labels of one split."""

    images: int
    findings: dict[str, FindingLabels]
    present_together: list[list[int]]  # images in which both findings are present, in the taxonomy's order


class LabelReport(StrictModel):
    """What `labels.json` holds."""

    consistency: Consistency
    blanks: Blanks
    splits: dict[Split, SplitLabels]
    warnings: list[str]


def run(config: LabelsConfig) -> LabelsResult:
    """Writes `labels.json`; warnings stand there, in the result and on stderr."""
    dataset = Dataset.load(config.data)
    folder = open_run(config.out, config, {"dataset": dataset.sha256})
    done = folder.finished()
    if done is not None:
        return LabelsResult(**done)
    report = label_report(dataset, SPLITS, config.consistency, config.blanks)
    write_json(folder.root / REPORT, to_plain(report))
    warn(report.warnings)
    counted = [one for split in report.splits.values() for one in split.findings.values()]
    result = LabelsResult(
        images=sum(split.images for split in report.splits.values()),
        findings=len(dataset.taxonomy),
        lifted_labels=sum(sum(one.lifted.values()) for one in counted),
        warnings=report.warnings,
    )
    folder.finish(to_plain(result))
    return result


def label_report(dataset: Dataset, splits: Sequence[Split], consistency: Consistency, blanks: Blanks) -> LabelReport:
    """Counts the labels of some splits as training and scores see them.

    `consistency` is that of train labels; in the other splits ancestors are lifted by `order`, as in every score.
    A split without images is left out, with a warning where it is train or val.
    """
    found: dict[Split, SplitLabels] = {}
    warnings: list[str] = []
    for split in splits:
        image_ids = dataset.ids_of(split)
        if image_ids:
            labels = dataset.labels.loc[image_ids].to_numpy()
            lifted = lift_ancestors(labels, dataset.taxonomy, consistency if split == "train" else "order")
            found[split] = split_labels(labels, lifted, dataset.taxonomy.names, blanks)
            warnings += split_warnings(split, found[split], blanks)
        elif split in ("train", "val"):
            warnings.append(f"{split}: no image")
    return LabelReport(consistency=consistency, blanks=blanks, splits=found, warnings=warnings)


def split_labels(labels: Labels, lifted: Labels, findings: Sequence[str], blanks: Blanks) -> SplitLabels:
    """Counts of labels `(n, k)` after lifting, and of what the lifting did."""
    present = (lifted == 1).astype(np.int64)
    return SplitLabels(
        images=len(lifted),
        findings={name: finding_labels(labels[:, k], lifted[:, k], blanks) for k, name in enumerate(findings)},
        present_together=(present.T @ present).tolist(),
    )


def finding_labels(labels: Labels, lifted: Labels, blanks: Blanks) -> FindingLabels:
    """Counts of one finding's labels `(n,)`, before and after lifting."""
    before, after = _kinds(labels), _kinds(lifted)
    counts = {kind: int(rows.sum()) for kind, rows in after.items()}
    negative = counts["absent"] + (counts["blank"] if blanks == "zeros" else 0)
    positive, uncertain = counts["present"], counts["uncertain"]
    moves = {f"{one} to {two}": int((before[one] & after[two]).sum()) for one in before for two in after if one != two}
    return FindingLabels(
        **counts,
        negative_to_positive=ratio(negative, positive),
        negative_to_positive_or_uncertain=ratio(negative, positive + uncertain),
        uncertain_fraction=ratio(uncertain, positive + negative + uncertain),
        lifted={move: count for move, count in moves.items() if count},
    )


def _kinds(values: Labels) -> dict[str, npt.NDArray[np.bool_]]:
    return {"present": values == 1, "absent": values == 0, "uncertain": values == -1, "blank": np.isnan(values)}


def ratio(counted: int, to: int) -> float | None:
    """Their quotient; None where the second is 0."""
    return counted / to if to else None


def split_warnings(split: Split, labels: SplitLabels, blanks: Blanks) -> list[str]:
    """A line for each thing amiss: no label at all, nothing present, nothing absent, uncertain labels outside train."""
    lines: list[str] = []
    for name, one in labels.findings.items():
        if one.blank == labels.images:
            lines.append(f"{split}: {name}: all {one.blank} labels are blank")
            continue
        if not one.present:
            lines.append(f"{split}: {name}: no present label ({one.absent} absent, {one.uncertain} uncertain)")
        if not one.absent + (one.blank if blanks == "zeros" else 0):
            lines.append(f"{split}: {name}: no absent label ({one.present} present, {one.uncertain} uncertain)")
        if split != "train" and one.uncertain:
            lines.append(f"{split}: {name}: {one.uncertain} uncertain labels, which no score counts")
    return lines


def warn(lines: Sequence[str]) -> None:
    """Prints each line to stderr."""
    for line in lines:
        print(f"warning: labels: {line}", file=sys.stderr)
