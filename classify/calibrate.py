"""`weakray classify calibrate`: what temperature and Platt scaling do to reliability, measured honestly on val.

It changes nothing: `classify ensemble` fits the calibration that its setting names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import Field

from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import check_equal, check_findings, describe, one_sided, val_outputs
from classify.fitting import FitConfig, cross_fit, member_row, patient_folds
from classify.member import load_member
from classify.platt import Calibration
from classify.rules import Rule
from classify.studies import group
from eval.classification import MIN_POSITIVES, FigureDraws, LabelledScores
from eval.classification_plots import reliability_sheet
from eval.classification_tables import calibration_markdown
from eval.intervals import PatientDraws
from eval.side_by_side import side_by_side
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import RunError
from weakray.files import write_json, write_text
from weakray.runs import open_run

METHODS: tuple[Calibration, ...] = ("none", *(method for method in get_args(Calibration) if method != "none"))


class CalibrateConfig(FitConfig):
    """Settings of `weakray classify calibrate`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "members", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder; its val labels fit and judge the calibrations")
    members: list[Path] = Field(description="run folders of trained classifiers")
    out: Path = Field(description="run folder; gets calibration.json, calibration.md and reliability diagrams")
    rule: Rule = Field("mean", description="how several members are combined")
    min_positives: int = Field(MIN_POSITIVES, ge=1, description="a finding with fewer is shown, not averaged")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class CalibrateResult(StrictModel):
    """Macro log loss of each row and calibration; None where no finding has enough positives."""

    images: int
    folds: int
    log_loss: dict[str, dict[str, float | None]]
    events: list[str]


def run(config: CalibrateConfig) -> CalibrateResult:
    """Writes `calibration.json`, its table `calibration.md`, and a reliability diagram of each row.

    Rows are the members, and `ensemble` where there are several; each is scored without calibration, with temperatures
    and with Platt scaling, cross-fitted over val's patients: whoever is judged took no part in the fit.

    Raises:
        RunError: if there is no member, or they do not go together.
        DataError: if the dataset's findings are not the members', or it has no val image.
    """
    if not config.members:
        raise RunError("members: expected at least one, got none")
    dataset = Dataset.load(config.data)
    members = [load_member(folder) for folder in config.members]
    check_equal(members)
    check_findings(dataset, members[0].taxonomy)
    inputs = {"dataset": dataset.sha256} | {f"member_{i}": member.sha256 for i, member in enumerate(members)}
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return CalibrateResult(**done)
    studies, names = group(dataset, "val", members[0].studies), dataset.taxonomy.names
    device = torch_device(config.device)
    with torch_threads(config.threads):
        outputs = val_outputs(members, dataset, studies, device, config.batch_size, config.workers)
        fold = patient_folds([dataset.patient_of(name) for name in studies.names], config.folds, config.seed)
        fits = {method: cross_fit(outputs, method, config, fold) for method in METHODS}
    draws = PatientDraws.of(studies.names, dataset.patients, config.draws, config.seed)
    sources = {member_row(i): member_row(i) for i in range(len(members))}
    if len(members) > 1:
        sources["ensemble"] = config.rule
    full, tables, figures = outputs.full, dict[str, Any](), dict[str, Any]()
    for name, row in sources.items():
        scored: dict[str, FigureDraws] = {}
        for method in METHODS:
            paired = LabelledScores(studies.names, names, fits[method][row].probability, full.values == 1, full.mask)
            scored[method] = FigureDraws.of(paired, draws, fits[method][row].cut)
        tables[name] = side_by_side(scored, "none", config.min_positives)["rows"]
        figures[name] = {method: found.to_dict(config.min_positives) for method, found in scored.items()}
        sheet = reliability_sheet(scored, f"Reliability of {name} on val, cross-fitted")
        write_text(folder.root / f"reliability_{name}.svg", sheet)
    content = {
        "split": "val",
        "images": len(studies.image_ids),
        "folds": int(fold.max()) + 1,
        "members": [describe(member) for member in members],
        "rule": config.rule,
        "events": one_sided(full, names, "val") + studies.counts.lines,
        "means": tables,
        "rows": figures,
    }
    write_text(folder.root / "calibration.md", calibration_markdown(content))
    write_json(folder.root / "calibration.json", content)
    result = CalibrateResult(
        images=len(studies.image_ids),
        folds=content["folds"],
        log_loss={
            name: {method: entry["log_loss"] and entry["log_loss"]["value"] for method, entry in table.items()}
            for name, table in tables.items()
        },
        events=content["events"],
    )
    folder.finish(to_plain(result))
    return result
