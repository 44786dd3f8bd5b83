"""`weakray classify ensemble`: members, their calibration on val, and a combination rule; and its reader."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from classify.batches import plain_batches
from classify.compute import DeviceName, torch_device, torch_threads
from classify.graph import EnsembleGraph, Rule
from classify.hierarchy import Hierarchy
from classify.images import PreparedImages
from classify.labels import Blanks, Targets, conditional, lift_ancestors, targets
from classify.member import Member, load_member
from classify.platt import Platt, fit_findings
from classify.scores import finding_areas
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import DataError, RunError
from weakray.files import read_json, sha256_json, write_json
from weakray.imaging import InputSpec
from weakray.runs import open_run
from weakray.taxonomy import Taxonomy

_FORMAT = 1


class EnsembleConfig(StrictModel):
    """Settings of `weakray classify ensemble`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "members", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder; its val labels fit the calibration")
    members: list[Path] = Field(description="run folders of trained classifiers")
    out: Path = Field(description="run folder")
    rule: Rule = Field("mean", description="mean of the members' probabilities, or of their calibrated logits")
    calibration_strength: float = Field(5.0, ge=0, description="pull of the calibration's slope to 1")
    allow_single: bool = Field(False, description="take a single member as an ensemble")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class EnsembleResult(StrictModel):
    """What the ensemble reached on val, the split it was calibrated on; `classify evaluate` gives honest figures."""

    members: int
    val_macro_auroc: float | None
    val_macro_auprc: float | None
    sha256: str


@dataclass(frozen=True)
class Ensemble:
    """Calibrated members under one rule.

    Attributes:
        members: in order, each with its model.
        platt: calibration of each member's findings.
        taxonomy: the findings.
        rule: how members are combined.
        hierarchy: how a child's probability depends on its parent's.
        graph: all of it as one module, in eval mode; holds the members' models.
        sha256: hash of the members, calibration, rule and hierarchy, wherever the folders lie.
    """

    members: list[Member]
    platt: list[list[Platt]]
    taxonomy: Taxonomy
    rule: Rule
    hierarchy: Hierarchy
    graph: EnsembleGraph
    sha256: str

    @classmethod
    def of(cls, members: Sequence[Member], platt: Sequence[Sequence[Platt]], rule: Rule) -> Ensemble:
        """An ensemble of loaded members.

        Raises:
            RunError: if the members differ in findings, input, hierarchy or treatment of blanks, or there is none.
        """
        _check_equal(members)
        first = members[0]
        graph = EnsembleGraph([member.model for member in members], platt, first.taxonomy, rule, first.hierarchy)
        content = _content(members, platt, rule)
        kept = [list(own) for own in platt]
        return cls(list(members), kept, first.taxonomy, rule, first.hierarchy, graph.eval(), sha256_json(content))

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
        platt = [[Platt(a, b) for a, b in entry["platt"]] for entry in content["members"]]
        return cls.of(members, platt, content["rule"])

    @property
    def input(self) -> InputSpec:
        """What the members see of an image."""
        return self.members[0].input

    @property
    def findings(self) -> list[str]:
        """Names, in class-id order."""
        return self.taxonomy.names

    @property
    def blanks(self) -> Blanks:
        """What a label that was not mentioned counts as."""
        return self.members[0].blanks

    def to(self, device: torch.device) -> Ensemble:
        """Moves the models, in place, and returns the ensemble."""
        self.graph.to(device)
        return self

    def logits(self, batch: Tensor) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1] → raw logits `(m, n, k)` of all members."""
        with torch.inference_mode():
            return torch.stack([model(batch).logits for model in self.graph.members])

    def probabilities(self, batch: Tensor) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1] → probabilities `(n, k)`."""
        with torch.inference_mode():
            return self.graph.probabilities(self.logits(batch))

    def maps(self, batch: Tensor) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1] → mean PCAM maps `(n, k, h, w)` in [0, 1] on the finest member's grid."""
        return self.both(batch)[1]

    def both(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and maps from one pass."""
        with torch.inference_mode():
            found: tuple[Tensor, Tensor] = self.graph(batch)
            return found


def run(config: EnsembleConfig) -> EnsembleResult:
    """Calibrates the members on val and writes `ensemble.json`.

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
    _check_equal(members)
    check_findings(dataset, members[0].taxonomy)
    inputs = {"dataset": dataset.sha256} | {f"member_{i}": member.sha256 for i, member in enumerate(members)}
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return EnsembleResult(**done)
    image_ids = dataset.ids_of("val")
    if not image_ids:
        raise DataError(f"{dataset.root}: expected images in split val to calibrate on, got none")
    full = split_truth(dataset, image_ids, members[0].blanks)
    counted = conditional(full, dataset.taxonomy) if members[0].hierarchy == "conditional" else full
    device = torch_device(config.device)
    with torch_threads(config.threads), torch.inference_mode():
        models = nn.ModuleList([member.model for member in members]).to(device)
        parts = [
            torch.stack([model(pixels.to(device)).logits for model in models]).cpu()
            for pixels in batches(dataset, image_ids, members[0].input, config.batch_size, config.workers)
        ]
        models.to("cpu")
        logits = torch.cat(parts, dim=1)
        platt = [fit_findings(own, counted, config.calibration_strength) for own in logits.numpy()]
        ensemble = Ensemble.of(members, platt, config.rule)
        probability = ensemble.graph.probabilities(logits)
    areas = finding_areas(probability.numpy(), full, dataset.taxonomy.names)
    write_json(folder.root / "ensemble.json", _content(members, platt, config.rule, folder.root))
    result = EnsembleResult(
        members=len(members),
        val_macro_auroc=areas["macro_auroc"],
        val_macro_auprc=areas["macro_auprc"],
        sha256=ensemble.sha256,
    )
    folder.finish(to_plain(result))
    return result


def split_truth(dataset: Dataset, image_ids: Sequence[str], blanks: Blanks) -> Targets:
    """Targets of some images for calibration and scores: ancestors are lifted, uncertain labels do not count."""
    lifted = lift_ancestors(dataset.labels.loc[list(image_ids)].to_numpy(), dataset.taxonomy)
    return targets(lifted, ["ignore"] * len(dataset.taxonomy), blanks)


def batches(
    dataset: Dataset, image_ids: Sequence[str], spec: InputSpec, batch_size: int, workers: int
) -> Iterator[Tensor]:
    """Images of a dataset `(b, c, s, s)` in [0, 1], in the ids' order; memory does not grow with their number."""
    images = PreparedImages(dataset, image_ids, spec, cache=False)
    for pixels in plain_batches(images, batch_size, workers):
        yield torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)


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


def _check_equal(members: Sequence[Member]) -> None:
    if not members:
        raise RunError("members: expected at least one, got none")
    first = members[0]
    for other in members[1:]:
        for what, one, two in (
            ("findings", first.findings, other.findings),
            ("class trees", first.taxonomy.parents, other.taxonomy.parents),
            ("inputs", first.input.model_dump(), other.input.model_dump()),
            ("hierarchies", first.hierarchy, other.hierarchy),
            ("settings of blanks", first.blanks, other.blanks),
        ):
            if one != two:
                raise RunError(
                    f"members: {first.folder} and {other.folder} have different {what}, {one} and {two}; "
                    "an ensemble needs equal ones"
                )


def _content(
    members: Sequence[Member], platt: Sequence[Sequence[Platt]], rule: Rule, folder: Path | None = None
) -> dict[str, Any]:
    """What stands in `ensemble.json`; without a folder, without paths."""
    entries: list[dict[str, Any]] = []
    for member, own in zip(members, platt, strict=True):
        path = {} if folder is None else {"path": os.path.relpath(member.folder.resolve(), folder.resolve())}
        entries.append(path | {"sha256": member.sha256, "platt": [[one.slope, one.offset] for one in own]})
    return {
        "format": _FORMAT,
        "rule": rule,
        "hierarchy": members[0].hierarchy,
        "findings": members[0].findings,
        "input": members[0].input.model_dump(mode="json"),
        "members": entries,
    }
