"""`weakray eval report`: the HTML page of a finished pipeline run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from eval.report.build import write_report
from eval.report.content import GalleryCase, ReportContent
from eval.report.gallery import choose_cases
from weakray.coco import Predictions, load_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.files import read_json, read_yaml, sha256_file
from weakray.imaging import letterbox, read_image
from weakray.runs import RunFolder, environment, open_run


class ReportConfig(StrictModel):
    """What the page shows."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"data", "summary", "recipe", "detector", "figures", "bundle", "curves", "out"}
    )

    data: Path = Field(description="dataset folder")
    summary: Path = Field(description="summary.json of the run")
    recipe: Path = Field(description="run folder of `camgen generate`: pseudo-boxes and maps of test images")
    recipe_yaml: Path | None = Field(None, description="recipe.yaml; null: none is shown")
    detector: Path = Field(description="run folder of `detect predict` on test images")
    figures: Path = Field(description="run folder of `classify evaluate`")
    bundle: Path = Field(description="run folder of `detect export`")
    curves: dict[str, Path] = Field({}, description="name → run folder of a training")
    title: str = Field("weakray", description="heading of the page")
    notes: tuple[str, ...] = Field((), description="sentences a reader must know")
    cases_per_kind: int = Field(1, ge=0, description="best, typical and worst cases shown of each finding")
    out: Path = Field(description="run folder; gets report.html")


class ReportResult(StrictModel):
    """Where the page is."""

    report: Path
    cases: int


def run(config: ReportConfig) -> ReportResult:
    """Builds the page; a finished one is left as it is while nothing that it shows has changed."""
    dataset = Dataset.load(config.data)
    shown = {
        "summary": config.summary,
        "recipe": config.recipe / "boxes.json",
        "detector": config.detector / "boxes.json",
        "figures": config.figures / "evaluation.json",
    }
    folder = open_run(config.out, config, {name: sha256_file(path) for name, path in shown.items()})
    page = config.out / "report.html"
    done = folder.finished()
    if done is not None and page.is_file():
        return ReportResult(report=page, cases=done["cases"])
    cases = _gallery(config, dataset)
    figures: dict[str, Any] = read_json(shown["figures"])
    exported: dict[str, Any] = read_json(config.bundle / "done.json")["result"]
    torch_speed = exported.get("torch_speed")
    torch_row = [] if torch_speed is None else [{"format": "torch", "speed": torch_speed}]
    write_report(
        page,
        ReportContent(
            title=config.title,
            summary=read_json(config.summary),
            curves={name: RunFolder(path, "").metrics() for name, path in config.curves.items()},
            gallery=cases,
            notes=config.notes,
            dataset=dataset.info,
            per_finding_classify=figures["ensemble"]["per_finding"],
            recipe={} if config.recipe_yaml is None else read_yaml(config.recipe_yaml),
            parity=exported["parity"],
            exports=[*torch_row, *exported.get("exports", ())],
            environment={k: v for k, v in environment().items() if k != "versions"} | environment()["versions"],
        ),
    )
    folder.finish({"cases": len(cases)})
    return ReportResult(report=page, cases=len(cases))


def _gallery(config: ReportConfig, dataset: Dataset) -> list[GalleryCase]:
    """Cases among the test images whose maps were kept."""
    names = dataset.taxonomy.names
    mapped = {path.stem: path for path in sorted((config.recipe / "maps").glob("*.npz"))}
    truth = dataset.truth_of("test").only([image_id for image_id in dataset.ids_of("test") if image_id in mapped])
    pseudo, detected = (load_results(folder / "boxes.json") for folder in (config.recipe, config.detector))
    cases: list[GalleryCase] = []
    for image_id, class_id, kind in choose_cases(truth, detected, names, config.cases_per_kind):
        image = read_image(dataset.path_of(image_id))
        heat = _heat(mapped[image_id], class_id)
        cases.append(
            GalleryCase(
                image=image,
                image_id=image_id,
                finding=names[class_id],
                truth=truth.boxes[image_id],
                pseudo=_of(pseudo, image_id),
                detector=_of(detected, image_id),
                heat=heat,
                placement=letterbox(image, max(image.shape[:2]))[1],
                caption="",
                kind=kind,
            )
        )
    return cases


def _of(predictions: Predictions, image_id: str) -> Detections:
    return predictions.get(image_id, Detections.empty())


def _heat(path: Path, class_id: int) -> FloatArray:
    """A finding's map from `maps/<image_id>.npz`."""
    with np.load(path) as stored:
        if "maps" not in stored:
            raise DataError(f"{path}: expected an array named `maps`, found {stored.files}")
        return np.asarray(stored["maps"][class_id], np.float32)
