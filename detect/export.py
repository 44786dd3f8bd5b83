"""`weakray detect export`: the detector in the forms asked for, each checked against torch, and the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from detect.compute import torch_threads
from detect.cutoffs import choose_cutoffs
from detect.detector import Detector, load_detector
from detect.formats import Format, OpenVinoFormat, precision_of
from detect.parity import DetectorParity, ToleranceConfig
from detect.speed import Speed
from detect.torch_forms import require_tensorrt
from detect.trials import ExportRow, Trial
from eval.average_precision import match
from eval.box_scores import score_matches
from weakray.bundle.card import CardFacts
from weakray.bundle.manifest import CLASSIFIERS, DETECTOR, ClassifierPart, DetectorPart, OpenVinoPart, Origin, verify
from weakray.bundle.writing import write_bundle
from weakray.coco import load_results
from weakray.config import StrictModel, validate
from weakray.cores import usable_cores
from weakray.dataset import Dataset
from weakray.errors import BundleError, ConfigError, DataError, RunError
from weakray.files import read_json, sha256_file
from weakray.imaging import read_image
from weakray.runs import commit, open_run

WEIGHTS = "detector.safetensors"


class ExportConfig(StrictModel):
    """What goes into the bundle, and how nearly it must agree with torch."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"data", "detector", "detector_boxes", "classifiers", "recipe", "out", "threads"}
    )

    data: Path = Field(description="dataset folder; images of its val split are the real ones of the parity check")
    detector: Path = Field(description="run folder of `detect train`")
    classifiers: Path = Field(description="run folder of `classify export`")
    recipe: Path = Field(description="recipe.yaml of `camgen search`")
    out: Path = Field(description="run folder; the bundle is its folder `bundle`")
    detector_boxes: Path | None = Field(
        None, description="boxes.json of `detect predict` on tune: chooses from which score a finding's boxes are shown"
    )
    score_thresholds: dict[str, float] = Field(
        {}, description="finding: score from which its boxes are shown, instead of the one chosen on tune"
    )
    default_score_threshold: float = Field(0.25, ge=0, le=1, description="score threshold where tune gives none")
    iou_above: float = Field(0.6, gt=0, le=1, description="overlap above which the weaker box of a finding is dropped")
    max_boxes: int = Field(100, ge=1, description="most boxes an image")
    formats: tuple[Format, ...] = Field(
        (),
        description="forms to export beside onnx: onnx-fp16, openvino, openvino-bf16, openvino-fp16, openvino-int8, "
        "torchscript, tensorrt, tensorrt-fp16; one that differs from torch is refused, and the others are made",
    )
    ship: OpenVinoFormat | None = Field(
        None, description="the form among them that the bundle holds for OpenVINO, beside ONNX; null: none"
    )
    parity_images: int = Field(100, ge=1, description="val images on which torch and the exports are compared")
    calibration_images: int = Field(128, ge=1, description="val images by which openvino-int8 is quantised")
    timed_images: int | None = Field(
        None, ge=1, description="val images on which each export's speed and memory are measured; null: not measured"
    )
    tolerance: ToleranceConfig = ToleranceConfig()
    opset: int = Field(18, ge=17, le=20, description="ONNX operator set")
    threads: int | None = Field(None, ge=1, description="threads of torch and the exports; all cores when not given")
    force: bool = Field(False, description="keep and ship exports even if they differ from torch")


class ExportResult(StrictModel):
    """The bundle, and how well it and the other exports agree with what they were made from."""

    bundle: Path
    bytes: dict[str, int]
    parity: DetectorParity  # of ONNX
    parity_passed: bool
    exports: tuple[ExportRow, ...]
    torch_speed: Speed | None  # what the exports' speed compares with
    refused: tuple[str, ...]  # exports that differ from torch and were not kept


def run(config: ExportConfig) -> ExportResult:
    """Exports the detector, checks each form, and writes the bundle.

    Forms lie in `exports/FORM`; an interrupted call goes on after the last that was finished.

    Raises:
        ConfigError: if a form cannot be made on this machine, or the one to ship is not among those asked for.
        RunError: if a folder lacks what an earlier stage should have left, the stages do not agree on the findings, or
            the ONNX export, or the one to ship, differs from torch and `force` is off.
    """
    dataset = Dataset.load(config.data)
    names = tuple(dataset.taxonomy.names)
    kinds = _kinds(config)
    thresholds = _thresholds(config, dataset, names)
    classifiers = _classifier_part(config.classifiers)
    if not config.recipe.is_file():
        raise RunError(f"{config.recipe}: expected a recipe, found none; run `weakray camgen search`")
    stage = open_run(config.out, config, _inputs(config, dataset))
    bundle = config.out / "bundle"
    done = stage.finished()
    if done is not None and _is_whole(bundle):
        return ExportResult.model_validate({**done, "bundle": bundle})
    detector = load_detector(config.detector)
    for where, found in (("detector", detector.findings), ("classifiers", classifiers.findings)):
        if found != names:
            raise RunError(
                f"{where}: expected the findings of {config.data}, {list(names)}, got {list(found)}; "
                "train it on this dataset"
            )
    if not dataset.ids_of("val"):
        raise DataError(f"{dataset.root}: expected val images for the parity check, the dataset has none")
    trial = _trial(config, dataset, detector)
    with torch_threads(config.threads):
        rows = {row.format: row for row in trial.run(stage.root, kinds)}
        for needed in ("onnx", *(() if config.ship is None else (config.ship,))):
            if rows[needed].refused:
                raise RunError(_refusal(needed, rows[needed].parity, config.tolerance))
        scores = _scores(trial, dataset)
        torch_speed = trial.speed_of(config.detector)
    shipped = None if config.ship is None else rows[config.ship]
    manifest = write_bundle(
        bundle,
        detector_onnx=stage.root / "exports" / "onnx" / DETECTOR,
        classifiers_onnx=config.classifiers / CLASSIFIERS,
        recipe=config.recipe,
        taxonomy=dataset.taxonomy,
        detector=DetectorPart(
            input=detector.spec,
            findings=names,
            score_thresholds=thresholds,
            iou_above=config.iou_above,
            max_boxes=config.max_boxes,
            weights_sha256=trial.weights_sha256,
            parity_passed=rows["onnx"].parity_passed,
            openvino=None
            if config.ship is None or shipped is None
            else OpenVinoPart(
                export=config.ship, precision=precision_of(config.ship), parity_passed=shipped.parity_passed
            ),
        ),
        classifiers=classifiers,
        origin=Origin(
            commit=commit(),
            dataset=str(dataset.info.get("origin", "unnamed")),
            dataset_sha256=dataset.sha256,
        ),
        trial=read_image(dataset.path_of(dataset.ids_of("val")[0])),
        openvino=None if config.ship is None else stage.root / "exports" / config.ship,
        facts=CardFacts(
            licence=dataset.info.get("licence"),
            counts=dict(dataset.info["counts"]),
            training=_training(config.detector),
            scores=scores,
            exports=tuple(row.told() for row in rows.values()),
        ),
    )
    result = ExportResult(
        bundle=bundle,
        bytes={name: entry.bytes for name, entry in manifest.files.items()},
        parity=rows["onnx"].parity,
        parity_passed=rows["onnx"].parity_passed,
        exports=tuple(rows.values()),
        torch_speed=torch_speed,
        refused=tuple(kind for kind, row in rows.items() if row.refused),
    )
    stage.finish(result.model_dump(mode="json", exclude={"bundle"}))
    return result


def _kinds(config: ExportConfig) -> list[Format]:
    if config.ship is not None and config.ship not in config.formats:
        raise ConfigError(f"ship: expected one of formats, {list(config.formats)}, got {config.ship!r}; add it there")
    kinds: list[Format] = list(dict.fromkeys(("onnx", *config.formats)))
    for kind in kinds:
        if kind.startswith("tensorrt"):
            require_tensorrt(f"formats: {kind}")
    return kinds


def _trial(config: ExportConfig, dataset: Dataset, detector: Detector) -> Trial:
    return Trial(
        detector=detector,
        folder=config.detector,
        weights_sha256=sha256_file(config.detector / WEIGHTS),
        dataset=dataset,
        tolerance=config.tolerance,
        iou_above=config.iou_above,
        max_boxes=config.max_boxes,
        parity_images=config.parity_images,
        calibration_images=config.calibration_images,
        timed_images=config.timed_images,
        opset=config.opset,
        threads=config.threads or usable_cores(),
        force=config.force,
    )


def _scores(trial: Trial, dataset: Dataset) -> dict[str, Any]:
    """The detector's scores on test for the model card; empty where test has no true box."""
    names, truth = dataset.taxonomy.names, dataset.truth_of("test")
    matches = match(trial.scored["test"], truth, len(names))
    return score_matches(matches, dataset.patients, names) if matches.positives.any() else {}


def _training(folder: Path) -> dict[str, Any]:
    """What `detector.json` says of how the detector was taught, in the card's words."""
    about = read_json(folder / "detector.json")
    told = {"boxes from": about.get("source"), "steps": about.get("steps"), "weights": about.get("parameters")}
    told["input"] = f"{about['input']['size_px']} px, {about['input']['channels']} channel(s)"
    for name, counts in about.get("training_sets", {}).items():
        told[f"boxes of {name}"] = f"{counts['boxes']} on {counts['images']} images"
    return {name: value for name, value in told.items() if value is not None}


def _refusal(kind: str, parity: DetectorParity, tolerance: ToleranceConfig) -> str:
    loss = parity.ap50_loss_tune
    lost = (
        "" if loss is None else f", AP50 on tune falls by {loss:.4f} (lower precision may lose {tolerance.ap50_loss})"
    )
    return (
        f"detector: the exported graph ({kind}) differs from torch: {parity.matched_fraction:.1%} of {parity.boxes} "
        f"boxes on {parity.images} images agree (expected at least {tolerance.matched_fraction:.1%}), scores differ by "
        f"up to {parity.max_score_difference:.4f} (expected at most {tolerance.score_within}){lost}; try another opset "
        "or form, or set force: true to write the bundle all the same"
    )


def _thresholds(config: ExportConfig, dataset: Dataset, names: Sequence[str]) -> dict[str, float]:
    for name, value in config.score_thresholds.items():
        if name not in names:
            raise ConfigError(f"score_thresholds.{name}: no such finding; expected some of {', '.join(names)}")
        if not 0 <= value <= 1:
            raise ConfigError(f"score_thresholds.{name}: expected a score in [0, 1], got {value}")
    chosen = [0.0] * len(names)
    if config.detector_boxes is not None:
        chosen = choose_cutoffs(load_results(config.detector_boxes), dataset.truth_of("tune"), len(names))
    # A cut-off of 0 is none: it would show every box there is.
    return {
        name: config.score_thresholds.get(name, cut or config.default_score_threshold)
        for name, cut in zip(names, chosen, strict=True)
    }


def _classifier_part(folder: Path) -> ClassifierPart:
    for name in ("classifiers.json", CLASSIFIERS):
        if not (folder / name).is_file():
            raise RunError(f"{folder}: expected exported classifiers, found no {name}; run `weakray classify export`")
    return validate(ClassifierPart, read_json(folder / "classifiers.json"), str(folder / "classifiers.json"))


def _inputs(config: ExportConfig, dataset: Dataset) -> dict[str, str]:
    files = {
        "detector.json": config.detector / "detector.json",
        WEIGHTS: config.detector / WEIGHTS,
        "classifiers.json": config.classifiers / "classifiers.json",
        CLASSIFIERS: config.classifiers / CLASSIFIERS,
        "recipe": config.recipe,
    }
    if config.detector_boxes is not None:
        files["detector_boxes"] = config.detector_boxes
    for name in ("detector.json", WEIGHTS):
        if not files[name].is_file():
            raise RunError(
                f"{config.detector}: expected a trained detector, found no {name}; run `weakray detect train`"
            )
    return {"dataset": dataset.sha256, **{name: sha256_file(path) for name, path in files.items()}}


def _is_whole(bundle: Path) -> bool:
    try:
        verify(bundle)
    except BundleError:
        return False
    return True
