"""`weakray classify ensemble`: members, what val fits to them, and a combination rule; and its reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from classify.compute import DeviceName, torch_device, torch_threads
from classify.fitting import FitConfig, Fitted, Outputs, cross_fit, fit, patient_folds, table_rows
from classify.graph import EnsembleGraph
from classify.hierarchy import Hierarchy
from classify.inference import Seen, member_logits
from classify.labels import Blanks, Targets, conditional, lift_ancestors, targets
from classify.member import Member, load_member
from classify.platt import Calibration, Platt
from classify.rules import Rule
from classify.scores import finding_areas
from classify.studies import Studies, StudyMode, group
from eval.classification import MIN_POSITIVES, FigureDraws, LabelledScores
from eval.classification_tables import side_by_side_markdown
from eval.intervals import PatientDraws
from eval.side_by_side import side_by_side
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.detections import FloatArray
from weakray.errors import DataError, RunError
from weakray.files import read_json, sha256_json, write_json, write_text
from weakray.imaging import InputSpec
from weakray.runs import open_run
from weakray.taxonomy import Taxonomy

_FORMAT = 2


class EnsembleConfig(FitConfig):
    """Settings of `weakray classify ensemble`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "members", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder; its val labels fit calibration, weights and thresholds")
    members: list[Path] = Field(description="run folders of trained classifiers")
    out: Path = Field(description="run folder; gets ensemble.json, rules.json and rules.md")
    rule: Rule = Field("mean", description="how the members' findings are combined; rules.md compares all rules")
    calibration: Calibration = Field("platt", description="slope and offset, slope alone, or neither, per finding")
    allow_single: bool = Field(False, description="take a single member as an ensemble")
    min_positives: int = Field(MIN_POSITIVES, ge=1, description="a finding with fewer is not averaged in rules.json")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients for rules.json")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class EnsembleResult(StrictModel):
    """What the ensemble reached on val, the split it was fitted on; `classify evaluate` gives honest figures."""

    members: int
    val_macro_auroc: float | None
    val_macro_auprc: float | None
    sha256: str
    events: list[str]  # findings that val lacks labels of, and what was scored as a study


@dataclass(frozen=True)
class Ensemble:
    """Calibrated members under one rule.

    Its graph, and so the methods that take images, read each image by itself: as a study of one image where the members
    were trained on studies, and as a frontal one. Studies are read by `classify.inference.member_logits`.

    Attributes:
        members: in order, each with its model; they may see unlike inputs.
        fitted: calibration, weights and thresholds.
        taxonomy: the findings.
        rule: how members are combined.
        calibration: how they were calibrated.
        hierarchy: how a child's probability depends on its parent's.
        graph: all of it as one module, in eval mode; holds the members' models.
        sha256: hash of the members, what was fitted, rule and hierarchy, wherever the folders lie.
    """

    members: list[Member]
    fitted: Fitted
    taxonomy: Taxonomy
    rule: Rule
    calibration: Calibration
    hierarchy: Hierarchy
    graph: EnsembleGraph
    sha256: str

    @classmethod
    def of(cls, members: Sequence[Member], fitted: Fitted, rule: Rule, calibration: Calibration) -> Ensemble:
        """An ensemble of loaded members.

        Raises:
            RunError: if `check_equal` refuses the members.
        """
        check_equal(members)
        tree, hierarchy = members[0].taxonomy, members[0].hierarchy
        models = [member.model for member in members]
        graph = EnsembleGraph(models, fitted.scaling, tree, rule, hierarchy, fitted.weights.get(rule))
        sha256 = sha256_json(_content(members, fitted, rule, calibration))
        return cls(list(members), fitted, tree, rule, calibration, hierarchy, graph.eval(), sha256)

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        """Reads an ensemble's run folder and its members'.

        Raises:
            RunError: if it holds no ensemble, or a member is missing or is another than it was.
        """
        if not (folder / "ensemble.json").is_file():
            raise RunError(f"{folder}: expected an ensemble, found no ensemble.json; run `weakray classify ensemble`")
        content = read_json(folder / "ensemble.json")
        if content.get("format") != _FORMAT:
            raise RunError(f"{folder}: expected ensemble format {_FORMAT}, got {content.get('format')}; make it again")
        members: list[Member] = []
        for entry in content["members"]:
            member = load_member(Path(os.path.normpath(folder / entry["path"])))
            if member.sha256 != entry["sha256"]:
                raise RunError(
                    f"{member.folder}: trained anew since {folder} was made; run `weakray classify ensemble`"
                )
            members.append(member)
        scaling = [[Platt(a, b) for a, b in entry["platt"]] for entry in content["members"]]
        fitted = Fitted(scaling, content["weights"], content["thresholds"])
        return cls.of(members, fitted, content["rule"], content["calibration"])

    @property
    def inputs(self) -> list[InputSpec]:
        """What members see of an image, each input once, in the order in which batches are given."""
        return self.graph.inputs

    @property
    def input(self) -> InputSpec:
        """The largest input: every other is the same square picture on fewer pixels, or in other channels."""
        return max(self.inputs, key=lambda spec: spec.size_px)

    @property
    def findings(self) -> list[str]:
        """Names, in class-id order."""
        return self.taxonomy.names

    @property
    def blanks(self) -> Blanks:
        """What a label that was not mentioned counts as."""
        return self.members[0].blanks

    @property
    def studies(self) -> StudyMode:
        """What the members were trained on: `predict` and `evaluate` read the same."""
        return self.members[0].studies

    @property
    def thresholds(self) -> dict[str, float]:
        """Finding → probability from which it counts as present, of highest F1 on val."""
        return dict(zip(self.findings, self.fitted.thresholds[self.rule], strict=True))

    def to(self, device: torch.device) -> Ensemble:
        """Moves the models, in place, and returns the ensemble."""
        self.graph.to(device)
        return self

    def logits(self, seen: Seen) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1], of each input → raw logits `(m, n, k)` of all members."""
        with torch.inference_mode():
            return self.graph.logits(seen)

    def probabilities(self, seen: Seen) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1], of each input → probabilities `(n, k)`."""
        with torch.inference_mode():
            return self.graph.probabilities(self.graph.logits(seen))

    def maps(self, seen: Seen) -> Tensor:
        """Images of each input → mean PCAM maps `(n, k, h, w)` in [0, 1] on the finest member's grid."""
        return self.both(seen)[1]

    def both(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Probabilities and maps from one pass."""
        with torch.inference_mode():
            return self.graph.both(seen)


def run(config: EnsembleConfig) -> EnsembleResult:
    """Fits calibration, weights and thresholds on val; writes `rules.json`, `rules.md` and `ensemble.json`.

    The tables set every member beside every rule, cross-fitted over val's patients, with differences from the mean.

    Raises:
        RunError: on fewer than two members without `allow_single`, or members that do not go together.
        DataError: if the dataset's findings are not the members', or it has no val image.
    """
    least = 1 if config.allow_single else 2
    if len(config.members) < least:
        raise RunError(
            f"members: expected at least {least}, got {len(config.members)}; train another, or set allow_single to true"
        )
    dataset = Dataset.load(config.data)
    members = [load_member(folder) for folder in config.members]
    check_equal(members)
    check_findings(dataset, members[0].taxonomy)
    inputs = {"dataset": dataset.sha256} | {f"member_{i}": member.sha256 for i, member in enumerate(members)}
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return EnsembleResult(**done)
    device, studies = torch_device(config.device), group(dataset, "val", members[0].studies)
    with torch_threads(config.threads):
        outputs = val_outputs(members, dataset, studies, device, config.batch_size, config.workers)
        fitted = fit(outputs, config.calibration, config)
        ensemble = Ensemble.of(members, fitted, config.rule, config.calibration)
        probability = ensemble.graph.probabilities(outputs.logits)
        table = _table(config, dataset, studies, outputs, members)
    areas = finding_areas(probability.numpy(), outputs.full, dataset.taxonomy.names)
    events = one_sided(outputs.full, dataset.taxonomy.names, "val") + studies.counts.lines
    write_json(folder.root / "rules.json", table | {"fitted_weights": fitted.weights, "events": events})
    write_text(folder.root / "rules.md", side_by_side_markdown(table))
    write_json(folder.root / "ensemble.json", _content(members, fitted, config.rule, config.calibration, folder.root))
    result = EnsembleResult(
        members=len(members),
        val_macro_auroc=areas["macro_auroc"],
        val_macro_auprc=areas["macro_auprc"],
        sha256=ensemble.sha256,
        events=events,
    )
    folder.finish(to_plain(result))
    return result


def val_outputs(
    members: Sequence[Member],
    dataset: Dataset,
    studies: Studies,
    device: torch.device,
    batch_size: int,
    workers: int,
) -> Outputs:
    """What members say of val's studies, with the labels that calibration and figures see."""
    full = truth_of(studies.labels, dataset.taxonomy, members[0].blanks)
    counted = conditional(full, dataset.taxonomy) if members[0].hierarchy == "conditional" else full
    logits = member_logits(members, dataset, studies, device=device, batch_size=batch_size, workers=workers, told="val")
    return Outputs(logits, counted, full, dataset.taxonomy, members[0].hierarchy)


def split_truth(dataset: Dataset, image_ids: Sequence[str], blanks: Blanks) -> Targets:
    """`truth_of` some images."""
    return truth_of(dataset.labels.loc[list(image_ids)].to_numpy(), dataset.taxonomy, blanks)


def truth_of(labels: FloatArray, taxonomy: Taxonomy, blanks: Blanks) -> Targets:
    """Labels `(n, k)` → targets for calibration and scores: ancestors are lifted, uncertain labels do not count."""
    return targets(lift_ancestors(labels, taxonomy), ["ignore"] * len(taxonomy), blanks)


def check_findings(dataset: Dataset, taxonomy: Taxonomy) -> None:
    """Refuses a dataset whose findings, or their tree, are not the classifiers'.

    Raises:
        DataError: if they differ.
    """
    if dataset.taxonomy.names != taxonomy.names or dataset.taxonomy.parents != taxonomy.parents:
        raise DataError(
            f"{dataset.root}: expected the findings that the classifiers were trained on ({', '.join(taxonomy.names)}) "
            f"in the same tree, got {', '.join(dataset.taxonomy.names)}; ingest it with the same taxonomy"
        )


def check_equal(members: Sequence[Member]) -> None:
    """Refuses members that cannot be combined; they may differ in architecture and input.

    Raises:
        RunError: if there is none, or they differ in findings, class tree, hierarchy, treatment of blanks, or in what
            they read as one: calibrated on images, or on studies of whatever views, their outputs do not mix.
    """
    if not members:
        raise RunError("members: expected at least one, got none")
    first = members[0]
    for other in members[1:]:
        for what, one, two in (
            ("findings", first.findings, other.findings),
            ("class trees", first.taxonomy.parents, other.taxonomy.parents),
            ("hierarchies", first.hierarchy, other.hierarchy),
            ("settings of blanks", first.blanks, other.blanks),
            ("settings of studies", first.studies, other.studies),
        ):
            if one != two:
                raise RunError(
                    f"members: {first.folder} and {other.folder} have different {what}, {one} and {two}; "
                    "an ensemble needs equal ones"
                )


def one_sided(full: Targets, findings: Sequence[str], split: str) -> list[str]:
    """A sentence for each finding without a positive, a negative, or any label at all in a split."""
    found: list[str] = []
    for k, name in enumerate(findings):
        counts = full.mask[:, k]
        positives = int((full.values[counts, k] == 1).sum())
        if not counts.any():
            found.append(f"{name}: no label that counts in {split}")
        elif positives in (0, counts.sum()):
            found.append(f"{name}: no {'negative' if positives else 'positive'} in {split}")
    return found


def _table(
    config: EnsembleConfig, dataset: Dataset, studies: Studies, outputs: Outputs, members: Sequence[Member]
) -> dict[str, Any]:
    """Members and rules side by side on val, cross-fitted."""
    fold = patient_folds([dataset.patient_of(name) for name in studies.names], config.folds, config.seed)
    draws = PatientDraws.of(studies.names, dataset.patients, config.draws, config.seed)
    found = cross_fit(outputs, config.calibration, config, fold)
    full = outputs.full
    rows = {
        name: FigureDraws.of(
            LabelledScores(studies.names, dataset.taxonomy.names, found[name].probability, full.values == 1, full.mask),
            draws,
            found[name].cut,
        )
        for name in table_rows(len(members), config.rule)
    }
    return {
        "split": "val",
        "images": len(studies.image_ids),
        "folds": int(fold.max()) + 1,
        "members": [describe(member) for member in members],
        **side_by_side(rows, "mean", config.min_positives),
    }


def describe(member: Member) -> str:
    """A member in a few words, for tables."""
    return f"{member.folder.name}: {member.config.backbone}, {member.input.size_px} px"


def _content(
    members: Sequence[Member], fitted: Fitted, rule: Rule, calibration: Calibration, folder: Path | None = None
) -> dict[str, Any]:
    """What stands in `ensemble.json`; without a folder, without paths."""
    entries: list[dict[str, Any]] = []
    for member, own in zip(members, fitted.scaling, strict=True):
        path = {} if folder is None else {"path": os.path.relpath(member.folder.resolve(), folder.resolve())}
        entries.append(
            path
            | {
                "sha256": member.sha256,
                "input": member.input.model_dump(mode="json"),
                "platt": [[one.slope, one.offset] for one in own],
            }
        )
    return {
        "format": _FORMAT,
        "rule": rule,
        "calibration": calibration,
        "hierarchy": members[0].hierarchy,
        "findings": members[0].findings,
        "members": entries,
        "weights": fitted.weights,
        "thresholds": fitted.thresholds,
    }
