"""`weakray detect export`: the detector as ONNX, checked against torch on real images, and the bundle around it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from detect.cutoffs import choose_cutoffs
from detect.predict import Detector, load_detector
from detect.quiet_import import torch_threads
from weakray.bundle.graph import tidy
from weakray.bundle.manifest import CLASSIFIERS, DETECTOR, ClassifierPart, DetectorPart, Origin, verify
from weakray.bundle.parity import BATCH, check_finite, median_ms, spread
from weakray.bundle.runtime import Graph
from weakray.bundle.writing import write_bundle
from weakray.coco import load_results
from weakray.config import StrictModel, to_plain, validate
from weakray.dataset import Dataset
from weakray.detections import BoolArray, FloatArray
from weakray.errors import BundleError, ConfigError, DataError, RunError
from weakray.files import read_json, replacing, sha256_file
from weakray.imaging import Image, prepare, read_image, to_batch
from weakray.runs import commit, open_run

WEIGHTS = "detector.safetensors"


class ToleranceConfig(StrictModel):
    """How near the exported detector must stay to torch."""

    score_above: float = Field(0.05, ge=0, lt=1, description="boxes scored above this, by either, are compared")
    iou_at_least: float = Field(0.95, gt=0, le=1, description="overlap of a box with the same one of torch")
    score_within: float = Field(0.01, gt=0, description="difference of a score from torch's")
    matched_fraction: float = Field(0.99, gt=0, le=1, description="fraction of boxes that must be as near as that")


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
    parity_images: int = Field(32, ge=1, description="val images on which torch and the exported graph are compared")
    tolerance: ToleranceConfig = ToleranceConfig()
    opset: int = Field(18, ge=17, le=20, description="ONNX operator set")
    threads: int | None = Field(None, ge=1, description="threads of torch and onnxruntime; all cores when not given")
    force: bool = Field(False, description="write the bundle even if the exported detector differs from torch")


class DetectorParity(StrictModel):
    """How the exported detector compares with torch.

    A box is one finding's score at one anchor, before suppression: that both sides see the same boxes there leaves
    nothing for the shared decoding to change, and two nearly equal boxes cannot swap places.
    """

    images: int
    boxes: int  # scored above the tolerance's floor by torch or by the graph
    matched_fraction: float  # of those, how many agree in place and score; 1 where there are none
    max_score_difference: float  # over all anchors and findings, those below the floor too
    torch_p50_ms: float  # median time of one image, for information
    onnxruntime_p50_ms: float

    def passes(self, tolerance: ToleranceConfig) -> bool:
        """Whether it is near enough. Without any box above the floor every score must be."""
        if self.boxes:
            return self.matched_fraction >= tolerance.matched_fraction
        return self.max_score_difference <= tolerance.score_within


class ExportResult(StrictModel):
    """The bundle, and how well it agrees with what it was made from."""

    bundle: Path
    bytes: dict[str, int]
    parity: DetectorParity
    parity_passed: bool


def run(config: ExportConfig) -> ExportResult:
    """Exports the detector, checks it, and writes the bundle.

    Raises:
        RunError: if a folder lacks what an earlier stage should have left, the stages do not agree on the findings, or
            the exported detector differs from torch and `force` is off.
    """
    dataset = Dataset.load(config.data)
    names = tuple(dataset.taxonomy.names)
    thresholds = _thresholds(config, dataset, names)
    classifiers = _classifier_part(config.classifiers)
    if not config.recipe.is_file():
        raise RunError(f"{config.recipe}: expected a recipe, found none; run `weakray camgen search`")
    stage = open_run(config.out, config, _inputs(config, dataset))
    bundle = config.out / "bundle"
    done = stage.finished()
    if done is not None and _is_whole(bundle):
        return ExportResult(bundle=bundle, **done)
    detector = load_detector(config.detector)
    for where, found in (("detector", tuple(detector.network.names)), ("classifiers", classifiers.findings)):
        if found != names:
            raise RunError(
                f"{where}: expected the findings of {config.data}, {list(names)}, got {list(found)}; "
                "train it on this dataset"
            )
    images = _val_images(dataset, config.parity_images)
    with torch_threads(config.threads):
        export_detector(config.detector, stage.root / DETECTOR, config.opset)
        parity = compare(detector, stage.root / DETECTOR, images, config.tolerance)
    passed = parity.passes(config.tolerance)
    stage.log(**to_plain(parity))
    if not passed and not config.force:
        raise RunError(_refusal(parity, config.tolerance))
    manifest = write_bundle(
        bundle,
        detector_onnx=stage.root / DETECTOR,
        classifiers_onnx=config.classifiers / CLASSIFIERS,
        recipe=config.recipe,
        taxonomy=dataset.taxonomy,
        detector=DetectorPart(
            input=detector.network.spec,
            findings=names,
            score_thresholds=thresholds,
            iou_above=config.iou_above,
            max_boxes=config.max_boxes,
            weights_sha256=sha256_file(config.detector / WEIGHTS),
            parity_passed=passed,
        ),
        classifiers=classifiers,
        origin=Origin(
            commit=commit(),
            dataset=str(dataset.info.get("origin", "unnamed")),
            dataset_sha256=dataset.sha256,
        ),
        trial=images[0],
    )
    result = {
        "bytes": {name: entry.bytes for name, entry in manifest.files.items()},
        "parity": to_plain(parity),
        "parity_passed": passed,
    }
    stage.finish(result)
    return ExportResult(bundle=bundle, **result)


class _RawOutput(nn.Module):
    """The network's decoded head output alone: in eval mode ultralytics gives it with the training outputs beside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raw: torch.Tensor = self.module(images)[0]
        return raw


def export_detector(folder: Path, path: Path, opset: int) -> None:
    """Writes a trained detector as ONNX with a free batch size; the same weights give the same bytes.

    Args:
        folder: run folder of `detect train`.
        path: file to write; input `images` `(n, c, s, s)` in [0, 1], output `raw` `(n, 4 + k, anchors)`.
        opset: ONNX operator set.
    """
    network = load_detector(folder).network  # read anew: tracing leaves its own tensors in the head
    raw_output = _RawOutput(network.module.to(memory_format=torch.contiguous_format)).eval()
    shape = (network.spec.channels, network.spec.size_px, network.spec.size_px)
    anchors = sum((network.spec.size_px // stride) ** 2 for stride in network.strides)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            # torch calls its TorchScript exporter deprecated, but the newer one takes 20 times as long for the same
            # graph; and tracing warns of sizes that become constants, which they are here.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                raw_output,
                (torch.zeros(2, *shape),),  # two images: a batch of one would be taken for a constant
                temporary,
                input_names=["images"],
                output_names=["raw"],
                dynamic_axes={"images": {0: "n"}, "raw": {0: "n"}},
                opset_version=opset,
                dynamo=False,
            )
        tidy(temporary, {"images": ("n", *shape), "raw": ("n", 4 + len(network.names), anchors)})


def compare(detector: Detector, path: Path, images: Sequence[Image], tolerance: ToleranceConfig) -> DetectorParity:
    """Runs torch and the exported graph on the same images and compares box by box.

    Args:
        detector: the torch side.
        path: the exported graph.
        images: decoded images.
        tolerance: what counts as a match.

    Raises:
        RunError: if either side gives NaN or infinity.
    """
    spec, outputs = detector.network.spec, {"raw": 4 + len(detector.network.names)}
    prepared = [prepare(image, spec)[0] for image in images]
    graph = Graph(path, spec, outputs, torch.get_num_threads())

    def by_graph(batch: FloatArray) -> FloatArray:
        return graph.run(batch, ["raw"])[0]

    boxes, matched, difference = 0, 0, 0.0
    for start in range(0, len(prepared), BATCH):
        batch = to_batch(prepared[start : start + BATCH])
        expected, got = detector.raw(batch), by_graph(batch)
        check_finite({"torch": expected, "the exported graph": got})
        counted, near = match_anchors(expected, got, tolerance)
        boxes += int(counted.sum())
        matched += int((counted & near).sum())
        difference = max(difference, float(np.abs(expected[:, 4:] - got[:, 4:]).max()))
    return DetectorParity(
        images=len(images),
        boxes=boxes,
        matched_fraction=matched / boxes if boxes else 1.0,
        max_score_difference=difference,
        torch_p50_ms=median_ms(detector.raw, prepared),
        onnxruntime_p50_ms=median_ms(by_graph, prepared),
    )


def match_anchors(expected: FloatArray, got: FloatArray, tolerance: ToleranceConfig) -> tuple[BoolArray, BoolArray]:
    """Which boxes count, and which of all boxes agree; both `(n, k, anchors)` bool.

    Args:
        expected: torch's `(n, 4 + k, anchors)`: centre x, centre y, width, height in pixels, then scores.
        got: the graph's.
        tolerance: floor of the score, and what counts as near.
    """
    shape = (expected.shape[0], 1, expected.shape[2])
    (low_a, high_a), (low_b, high_b) = _corners(expected), _corners(got)
    sides = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None)
    shared = sides[:, 0] * sides[:, 1]
    union = np.prod(high_a - low_a, axis=1) + np.prod(high_b - low_b, axis=1) - shared
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).reshape(shape)
    scores_a, scores_b = expected[:, 4:], got[:, 4:]
    counted = np.maximum(scores_a, scores_b) > tolerance.score_above
    near = (overlap >= tolerance.iou_at_least) & (np.abs(scores_a - scores_b) <= tolerance.score_within)
    return counted, near


def _corners(raw: FloatArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    centre, half = raw[:, :2].astype(np.float64), np.clip(raw[:, 2:4].astype(np.float64), 0, None) / 2
    return centre - half, centre + half


def _refusal(parity: DetectorParity, tolerance: ToleranceConfig) -> str:
    return (
        f"detector: the exported graph differs from torch: {parity.matched_fraction:.1%} of {parity.boxes} boxes on "
        f"{parity.images} images agree (expected at least {tolerance.matched_fraction:.1%}), scores differ by up to "
        f"{parity.max_score_difference:.4f} (expected at most {tolerance.score_within}); try another opset, or set "
        "force: true to write the bundle all the same"
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


def _val_images(dataset: Dataset, limit: int) -> list[Image]:
    ids = dataset.ids_of("val")
    if not ids:
        raise DataError(f"{dataset.root}: expected val images for the parity check, the dataset has none")
    return [read_image(dataset.path_of(image_id)) for image_id in spread(ids, limit)]
