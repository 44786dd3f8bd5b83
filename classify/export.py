"""`weakray classify export`: the ensemble as one ONNX file, checked against torch on real images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from classify.compute import torch_threads
from classify.ensemble import Ensemble, check_findings, split_truth
from classify.inference import batches
from classify.studies import StudyMode
from eval.decisions import decision_thresholds
from weakray.bundle.graph import tidy
from weakray.bundle.manifest import CLASSIFIERS, ClassifierPart
from weakray.bundle.parity import BATCH, check_finite, median_ms, spread
from weakray.bundle.runtime import Graph
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.detections import FloatArray
from weakray.errors import DataError, RunError
from weakray.files import replacing, write_json
from weakray.imaging import InputSpec, prepare, read_image, to_batch
from weakray.runs import open_run

OPSET = 18
DESCRIPTION = "classifiers.json"


class ExportConfig(StrictModel):
    """Settings of `weakray classify export`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "workers", "threads"})

    data: Path = Field(
        description="dataset folder; val fits the decision thresholds and gives the images to compare on"
    )
    ensemble: Path = Field(description="run folder of an ensemble")
    out: Path = Field(description="run folder; gets classifiers.onnx and classifiers.json")
    parity_images: int = Field(32, ge=1, description="val images on which torch and the exported graph are compared")
    probability_within: float = Field(1e-3, gt=0, description="largest difference of a probability from torch's")
    map_within: float = Field(1e-2, gt=0, description="largest difference of a map's value from torch's")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="of torch and onnxruntime; null: torch's own choice")
    force: bool = Field(False, description="write the files even if the exported graph differs from torch")


class ExportResult(StrictModel):
    """How the exported graph compares with torch; times are of one image, for information."""

    images: int
    max_probability_difference: float
    max_map_difference: float
    max_resize_difference: float | None  # of a probability, from members fed by files of their own size; null: one size
    parity_passed: bool
    bytes: int
    torch_p50_ms: float
    onnxruntime_p50_ms: float


def run(config: ExportConfig) -> ExportResult:
    """Writes `classifiers.onnx`, and `classifiers.json` that says how it is fed and read.

    Raises:
        RunError: if the graph differs from torch by more than allowed and `force` is off, or the members' inputs
            differ in more than size.
        DataError: if the dataset's findings are not the ensemble's, or it has no val image.
    """
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    stage = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = stage.finished()
    if done is not None:
        return ExportResult(**done)
    image_ids = dataset.ids_of("val")
    if not image_ids:
        raise DataError(f"{dataset.root}: expected images in split val to compare on, got none")
    path, classes, spec = stage.root / CLASSIFIERS, len(ensemble.findings), served_input(ensemble)
    with torch_threads(config.threads):
        export_ensemble(config.ensemble, path)
        graph = Graph(path, spec, {"probabilities": classes, "maps": classes}, torch.get_num_threads())
        result = _compare(config, ensemble, graph, dataset, path.stat().st_size)
    if not result.parity_passed and not config.force:
        path.unlink()
        raise RunError(
            f"classifiers: the exported graph differs from torch on {result.images} images: probabilities by up to "
            f"{result.max_probability_difference:.2g} (expected at most {config.probability_within:g}), maps by up to "
            f"{result.max_map_difference:.2g} (expected at most {config.map_within:g}); "
            "set force: true to write it all the same"
        )
    parts = [
        graph.run_batch(pixels.contiguous().numpy(), ["probabilities"])[0]
        for (pixels,) in batches(dataset, image_ids, [spec], BATCH, config.workers)
    ]
    truth = split_truth(dataset, image_ids, ensemble.blanks)
    thresholds, without = decision_thresholds(np.concatenate(parts), truth.values, truth.mask, ensemble.findings)
    part = ClassifierPart(
        input=spec,
        findings=tuple(ensemble.findings),
        decision_thresholds=thresholds,
        calibration=_note(ensemble, len(image_ids), without, result.max_resize_difference),
        members=tuple(member.sha256 for member in ensemble.members),
        parity_passed=result.parity_passed,
    )
    write_json(stage.root / DESCRIPTION, to_plain(part))
    stage.finish(to_plain(result))
    return result


def export_ensemble(folder: Path, path: Path) -> None:
    """Writes an ensemble's graph as ONNX, weights inside; the same ensemble gives the same bytes.

    Input `images` `(n, c, s, s)` float32 in [0, 1] at the size of the largest input, from which the graph shrinks what
    members of smaller input see; outputs `probabilities` `(n, k)` and `maps` `(n, k, h, w)`, both
    in [0, 1]; the batch axis is free.

    Args:
        folder: an ensemble's run folder.
        path: the file to write.

    Raises:
        RunError: if the members' inputs differ in more than size.
    """
    ensemble = Ensemble.load(folder)
    spec = served_input(ensemble)
    shape = (spec.channels, spec.size_px, spec.size_px)
    classes = len(ensemble.findings)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            # torch calls its TorchScript exporter deprecated, but the newer one takes many times as long for the same
            # graph; and tracing warns of sizes that become constants, which they are here.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                ensemble.graph.to(memory_format=torch.contiguous_format),
                (torch.zeros(2, *shape),),
                temporary,
                input_names=["images"],
                output_names=["probabilities", "maps"],
                dynamic_axes={name: {0: "n"} for name in ("images", "probabilities", "maps")},
                opset_version=OPSET,
                dynamo=False,
            )
        maps = ("n", classes, *ensemble.graph.grid_hw)
        tidy(temporary, {"images": ("n", *shape), "probabilities": ("n", classes), "maps": maps})


def served_input(ensemble: Ensemble) -> InputSpec:
    """The one input that an exported ensemble takes: its largest.

    Raises:
        RunError: if the members' inputs differ in more than size: what one sees cannot be made inside the graph of
            what another sees.
    """
    spec = ensemble.input
    of_largest = next(member for member in ensemble.members if member.input == spec)
    for member in ensemble.members:
        if member.input.model_copy(update={"size_px": spec.size_px}) != spec:
            raise RunError(
                f"members: {of_largest.folder} and {member.folder} see unlike images ({of_largest.input} and "
                f"{member.input}), and a bundle feeds one image to all; export an ensemble of members whose inputs "
                "differ in nothing but size_px (predict, evaluate and maps take these as they are)"
            )
    return spec


def _compare(config: ExportConfig, ensemble: Ensemble, graph: Graph, dataset: Dataset, size: int) -> ExportResult:
    images = [read_image(dataset.path_of(image_id)) for image_id in spread(dataset.ids_of("val"), config.parity_images)]
    prepared = [[prepare(image, spec)[0] for image in images] for spec in ensemble.inputs]
    served = prepared[ensemble.inputs.index(ensemble.input)]

    def by_torch(batch: FloatArray) -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [found.numpy() for found in ensemble.graph(torch.from_numpy(batch))]

    def by_graph(batch: FloatArray) -> list[FloatArray]:
        return graph.run_batch(batch, ["probabilities", "maps"])

    differences: list[list[float]] = []
    resized: list[float] = []
    for start in range(0, len(images), BATCH):
        batch = to_batch(served[start : start + BATCH])
        pairs = list(zip(by_torch(batch), by_graph(batch), strict=True))
        for expected, got in pairs:
            check_finite({"torch": expected, "the exported graph": got})
        differences.append([float(np.abs(expected - got).max()) for expected, got in pairs])
        if len(ensemble.inputs) > 1:
            own = [torch.from_numpy(to_batch(pictures[start : start + BATCH])) for pictures in prepared]
            resized.append(float(np.abs(ensemble.probabilities(own).numpy() - pairs[0][1]).max()))
    probability, maps = (max(found) for found in zip(*differences, strict=True))
    return ExportResult(
        images=len(images),
        max_probability_difference=probability,
        max_map_difference=maps,
        max_resize_difference=max(resized) if resized else None,
        parity_passed=probability <= config.probability_within and maps <= config.map_within,
        bytes=size,
        torch_p50_ms=median_ms(by_torch, served),
        onnxruntime_p50_ms=median_ms(by_graph, served),
    )


_CALIBRATION = {
    "platt": "Platt scaling of each member and finding, fitted on val",
    "temperature": "A temperature for each member and finding, fitted on val",
    "none": "Members not calibrated",
}


# What the graph of members that were trained on studies takes an image for: it is given one at a time.
_READ: dict[StudyMode, str] = {
    "images": "",
    "sum": "an image is read as a study of its own; ",
    "frontal": "an image is read as a study of its own, and as a frontal one; ",
    "by_view": "an image is read as a study of its own, and as a frontal one; ",
}


def _note(ensemble: Ensemble, images: int, without: list[str], resized: float | None) -> str:
    default = f"; 0.5 where there is no positive: {', '.join(without)}" if without else ""
    shrunk = (
        ""
        if resized is None
        else " Members of smaller input see the image shrunk inside the graph, which moves probabilities by up to "
        f"{resized:.2g} from those of images prepared for them."
    )
    return (
        f"{_CALIBRATION[ensemble.calibration]}; {_READ[ensemble.studies]}members combined by {ensemble.rule}, "
        f"class tree {ensemble.hierarchy}. Decision thresholds have the highest F1 on the {images} val images"
        f"{default}.{shrunk}"
    )
