"""`weakray classify evaluate`: all figures of an ensemble, its members and all rules, with intervals and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import Ensemble, describe, one_sided, truth_of
from classify.fitting import member_row, rows, table_rows
from classify.inference import member_logits
from classify.labels import Targets
from classify.studies import group
from eval.classification import MIN_POSITIVES, FigureDraws, LabelledScores
from eval.classification_plots import pr_sheet, reliability_sheet, roc_sheet
from eval.classification_tables import evaluation_markdown
from eval.intervals import PatientDraws
from eval.published import published
from eval.side_by_side import side_by_side
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json, write_text
from weakray.runs import open_run
from weakray.taxonomy import Taxonomy


class EvaluateConfig(StrictModel):
    """Settings of `weakray classify evaluate`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder; of other findings, only those shared with the ensemble are scored")
    ensemble: Path = Field(description="run folder of an ensemble")
    out: Path = Field(description="run folder; gets evaluation.json, evaluation.md and plots")
    split: Literal["val", "test"] = Field("test", description="val chose epochs and calibration: its figures flatter")
    min_positives: int = Field(MIN_POSITIVES, ge=1, description="a finding with fewer is shown, not averaged")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class EvaluateResult(StrictModel):
    """The ensemble's means over findings; None where no finding has enough positives."""

    images: int
    findings: int  # that were scored
    findings_in_mean: int
    macro_auroc: dict[str, float] | None
    macro_auprc: dict[str, float] | None
    macro_f1_at_fitted: dict[str, float] | None
    macro_calibration_error: dict[str, float] | None
    events: list[str]  # findings that the split lacks labels of or that are not scored, and what was read as a study


@dataclass(frozen=True)
class Shared:
    """Findings that the classifiers and a dataset both know.

    Attributes:
        names: as the classifiers call them.
        of_classifiers: their columns among the classifiers' outputs.
        of_dataset: their columns among the dataset's labels.
        only_classifiers: names of findings that the dataset does not label.
        only_dataset: findings that the classifiers do not know, with their counts of labels.
    """

    names: list[str]
    of_classifiers: list[int]
    of_dataset: list[int]
    only_classifiers: list[str]
    only_dataset: dict[str, dict[str, int]]

    def events(self, where: Path) -> list[str]:
        """A sentence for what is not scored."""
        found: list[str] = []
        if self.only_classifiers:
            found.append(f"not scored, {where} has no such labels: {', '.join(self.only_classifiers)}")
        if self.only_dataset:
            told = (f"{name} ({counts['positive']} positive)" for name, counts in self.only_dataset.items())
            found.append(f"not scored, the classifiers do not know them: {', '.join(told)}")
        return found


def run(config: EvaluateConfig) -> EvaluateResult:
    """Writes `evaluation.json`, the same as tables in `evaluation.md`, and `roc.svg`, `pr.svg`, `reliability.svg`.

    Figures are those of `eval.classification.score_classification`; decisions are made at 0.5 and at the thresholds
    that the ensemble fitted on its own val. A member's figures are those of its calibrated probabilities under the same
    hierarchy, as if it stood alone. Uncertain labels do not count, blank ones count as they did in training, and an
    ancestor of a present finding is present.

    Members trained on studies are scored on studies: a study's logits are its images' sum, its label the highest.

    A dataset of another taxonomy is scored on the findings that both know, by name or synonym; the others are listed.

    Raises:
        DataError: if the dataset and the ensemble share no finding, or the split has no image.
    """
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    shared = shared_findings(ensemble.taxonomy, dataset, config.split)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return EvaluateResult(**done)
    studies = group(dataset, config.split, ensemble.studies)
    fitted = ensemble.fitted
    with torch_threads(config.threads):
        logits = member_logits(
            ensemble.members,
            dataset,
            studies,
            device=torch_device(config.device),
            batch_size=config.batch_size,
            workers=config.workers,
            told=f"evaluate {config.split}",
        )
        found = rows(logits, fitted.scaling, fitted.weights, ensemble.taxonomy, ensemble.hierarchy)
    truth = truth_of(studies.labels, dataset.taxonomy, ensemble.blanks)
    truth = Targets(truth.values[:, shared.of_dataset], truth.mask[:, shared.of_dataset])
    draws = PatientDraws.of(studies.names, dataset.patients, config.draws, config.seed)
    scored: dict[str, FigureDraws] = {}
    for name in table_rows(len(ensemble.members), ensemble.rule):
        probability = found[name].double().numpy()[:, shared.of_classifiers]
        thresholds = np.array(fitted.thresholds[name])[shared.of_classifiers]
        paired = LabelledScores(studies.names, shared.names, probability, truth.values == 1, truth.mask)
        scored[name] = FigureDraws.of(paired, draws, np.broadcast_to(thresholds, probability.shape))
    members = [member_row(i) for i in range(len(ensemble.members))]
    own = scored[ensemble.rule]
    figures = {name: scored[name].to_dict(config.min_positives) for name in (ensemble.rule, *members)}
    events = one_sided(truth, shared.names, config.split) + shared.events(dataset.root) + studies.counts.lines
    whole = figures[ensemble.rule]
    content: dict[str, Any] = {
        "split": config.split,
        "images": len(studies.image_ids),
        "patients": draws.n_patients,
        "dataset": f"{dataset.info.get('origin', 'unnamed')}, sha256 {dataset.sha256[:12]}",
        "rule": ensemble.rule,
        "calibration": ensemble.calibration,
        "only_classifiers": shared.only_classifiers,
        "only_dataset": shared.only_dataset,
        "events": events,
        "published": published(ensemble.taxonomy, shared.names),
        "ensemble": whole,
        "members": [figures[name] for name in members],
        "side_by_side": {"members": [describe(member) for member in ensemble.members]}
        | side_by_side(scored, "mean", config.min_positives),
    }
    write_text(folder.root / "evaluation.md", evaluation_markdown(content))
    _plots(folder.root, own, [scored[name] for name in members], config.split)
    write_json(folder.root / "evaluation.json", content)
    result = EvaluateResult(
        images=len(studies.image_ids),
        findings=len(shared.names),
        findings_in_mean=sum(own.in_mean(config.min_positives)),
        macro_auroc=whole["macro_auroc"],
        macro_auprc=whole["macro_auprc"],
        macro_f1_at_fitted=whole["macro_f1_at_fitted"],
        macro_calibration_error=whole["macro_calibration_error"],
        events=events,
    )
    folder.finish(to_plain(result))
    return result


def shared_findings(taxonomy: Taxonomy, dataset: Dataset, split: Literal["val", "test"]) -> Shared:
    """Pairs the classifiers' findings with a dataset's.

    Raises:
        DataError: if they share none.
    """
    pairs = taxonomy.shared_with(dataset.taxonomy)
    if not pairs:
        raise DataError(
            f"{dataset.root}: shares no finding with the classifiers; they know {', '.join(taxonomy.names)}, it labels "
            f"{', '.join(dataset.taxonomy.names)}; where two mean the same, ingest it with the other's name as synonym"
        )
    counts: dict[str, dict[str, int]] = dataset.info["counts"]["labels"][split]
    return Shared(
        names=[taxonomy.names[k] for k in pairs],
        of_classifiers=list(pairs),
        of_dataset=list(pairs.values()),
        only_classifiers=[name for k, name in enumerate(taxonomy.names) if k not in pairs],
        only_dataset={n: counts[n] for k, n in enumerate(dataset.taxonomy.names) if k not in pairs.values()},
    )


def _plots(root: Path, own: FigureDraws, members: Sequence[FigureDraws], split: str) -> None:
    others = {member_row(i): member.paired for i, member in enumerate(members)} if len(members) > 1 else {}
    write_text(root / "roc.svg", roc_sheet(own, others, f"ROC on {split}"))
    write_text(root / "pr.svg", pr_sheet(own, others, f"Precision and recall on {split}"))
    write_text(root / "reliability.svg", reliability_sheet({"ensemble": own}, f"Reliability on {split}"))
