"""Runs a bundle on the CPU with onnxruntime or OpenVINO: no torch, no dataset, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from weakray.bundle.manifest import CLASSIFIERS, DETECTOR, OPENVINO, TAXONOMY, Manifest, verify
from weakray.bundle.openvino import OpenVinoGraph
from weakray.bundle.yolo import decode_yolo
from weakray.detections import BoolArray, Detections, FloatArray
from weakray.errors import BundleError, DataError
from weakray.imaging import Image, InputSpec, Placement, prepare, to_batch
from weakray.taxonomy import Taxonomy

Engine = Literal["auto", "onnxruntime", "openvino"]

# What onnxruntime raises for a file that is no graph, or one it cannot run; they share no base but Exception.
_UNREADABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Graph:
    """An ONNX file, loaded: prepared images in, named arrays out.

    Args:
        path: the file.
        input_spec: what it must take.
        outputs: name → size of axis 1 that each output must have.
        threads: threads of one pass; None leaves the choice to onnxruntime (one a physical core).

    Raises:
        BundleError: if the file cannot be loaded, or takes or gives something else.
    """

    def __init__(self, path: Path, input_spec: InputSpec, outputs: dict[str, int], threads: int | None = None) -> None:
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        # Waiting threads sleep instead of turning: two graphs, and whoever else runs here, share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only: its warnings speak of graph optimisation, to nobody here
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _UNREADABLE as error:
            raise BundleError(f"{path}: expected a graph that onnxruntime can run, got: {error}") from None
        takes = {value.name: list(value.shape) for value in self.session.get_inputs()}
        size = input_spec.size_px
        wanted = [input_spec.channels, size, size]
        if list(takes) != ["images"] or takes["images"][1:] != wanted or isinstance(takes["images"][0], int):
            raise BundleError(f"{path}: expected one input images (n, {_commas(wanted)}) with n free, got {takes}")
        gives = {value.name: list(value.shape) for value in self.session.get_outputs()}
        if {name: shape[1] for name, shape in gives.items()} != outputs:
            raise BundleError(f"{path}: expected outputs with these sizes of axis 1: {outputs}, got {gives}")

    def run(self, images: Sequence[Image], outputs: Sequence[str]) -> list[FloatArray]:
        """See `AnyGraph.run`."""
        return self.run_batch(to_batch(images), outputs)

    def run_batch(self, batch: FloatArray, outputs: Sequence[str]) -> list[FloatArray]:
        """The named outputs for a batch `(n, c, s, s)` float32 in [0, 1]; only what they need is computed."""
        found: list[Any] = self.session.run(list(outputs), {"images": batch})
        return [np.asarray(value, np.float32) for value in found]


class AnyGraph(Protocol):
    """A loaded graph: of onnxruntime (`Graph`) or of OpenVINO (`OpenVinoGraph`)."""

    def run(self, images: Sequence[Image], outputs: Sequence[str]) -> list[FloatArray]:
        """The named outputs for images as `prepare` gives them, in one pass."""
        ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the graphs of one bundle see it.

    Attributes:
        for_classifiers: `(s, s)` or `(s, s, 3)` uint8.
        for_detector: the same at the detector's size; the same object where both see alike.
        placement: where the image lies in what the classifiers see.
        box_placement: where it lies in what the detector sees.
    """

    for_classifiers: Image
    for_detector: Image
    placement: Placement
    box_placement: Placement


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a bundle says of one image.

    Attributes:
        probabilities: `(k,)` float32 in [0, 1], calibrated, a child's never above its parent's.
        decision: `(k,)` bool, True from the finding's threshold on.
        detections: boxes in pixels of the image as given, those that reach the score threshold of their finding.
        maps: `(k, h, w)` float32, maps over the letterboxed square, not stretched per image; None where not asked for.
        placement: where the image lies in that square.
    """

    probabilities: FloatArray
    decision: BoolArray
    detections: Detections
    maps: FloatArray | None
    placement: Placement

    def without_maps(self) -> Prediction:
        """The same, maps left out."""
        return replace(self, maps=None)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. Safe to call from several threads at once.

    Example:
        bundle = Bundle.load(Path("runs/demo/bundle"))
        prediction = bundle.predict([read_image(Path("film.png"))])[0]
    """

    manifest: Manifest
    taxonomy: Taxonomy
    detector: AnyGraph
    classifiers: AnyGraph

    @classmethod
    def load(cls, folder: Path, threads: int | None = None, engine: Engine = "auto") -> Bundle:
        """Checks every file of a bundle and loads it.

        Args:
            folder: the bundle.
            threads: threads of one pass; None leaves the choice to onnxruntime and OpenVINO.
            engine: what runs the detector; auto takes OpenVINO where the bundle holds a graph for it and it is
                installed, else onnxruntime. The classifiers run on onnxruntime.

        Raises:
            BundleError: if the bundle is not whole, its graphs are not what `bundle.json` says, or it holds none for
                the engine.
        """
        manifest = verify(folder)
        k = len(manifest.findings)
        return cls(
            manifest,
            Taxonomy.load(folder / TAXONOMY),
            load_detector_graph(folder, manifest, threads, engine),
            Graph(folder / CLASSIFIERS, manifest.classifiers.input, {"probabilities": k, "maps": k}, threads),
        )

    def predict(self, images: Sequence[Image], *, with_maps: bool = False) -> list[Prediction]:
        """Predicts on images of any sizes, with one pass of each graph: the batch is the memory it takes.

        Args:
            images: grey `(h, w)` or RGB `(h, w, 3)`, uint8.
            with_maps: whether to compute and return the maps.

        Raises:
            DataError: if an image is something else.
        """
        return self.predict_prepared([self.prepare(image, i) for i, image in enumerate(images)], with_maps=with_maps)

    def prepare(self, image: Image, number: int = 0) -> Prepared:
        """What both graphs see of an image: all that is kept of it for `predict_prepared`.

        Args:
            image: grey `(h, w)` or RGB `(h, w, 3)`, uint8.
            number: which image it is, for the message.

        Raises:
            DataError: if the image is something else.
        """
        _check_image(image, number)
        seen, placement = prepare(image, self.manifest.classifiers.input)
        if self.manifest.detector.input == self.manifest.classifiers.input:
            return Prepared(seen, seen, placement, placement)
        for_detector, box_placement = prepare(image, self.manifest.detector.input)
        return Prepared(seen, for_detector, placement, box_placement)

    def predict_prepared(self, prepared: Sequence[Prepared], *, with_maps: bool = False) -> list[Prediction]:
        """`predict` of images that `prepare` of this bundle has made ready."""
        if not prepared:
            return []
        names = ["probabilities", "maps"] if with_maps else ["probabilities"]
        probabilities, *maps = self.classifiers.run([one.for_classifiers for one in prepared], names)
        thresholds = np.array(list(self.manifest.classifiers.decision_thresholds.values()), np.float32)
        found = self._boxes(prepared)
        return [
            Prediction(
                probabilities[i], probabilities[i] >= thresholds, found[i], maps[0][i] if maps else None, one.placement
            )
            for i, one in enumerate(prepared)
        ]

    def _boxes(self, prepared: Sequence[Prepared]) -> list[Detections]:
        part = self.manifest.detector
        raw = self.detector.run([one.for_detector for one in prepared], ["raw"])[0]
        # Scores below their finding's threshold go before boxes are ranked and counted, so that none of them takes the
        # place of a box that is shown.
        thresholds = np.array(list(part.score_thresholds.values()), np.float32)
        scores = raw[:, 4:]
        scores[scores < thresholds[:, None]] = 0
        placements = [one.box_placement for one in prepared]
        return decode_yolo(raw, placements, score_above=0, iou_above=part.iou_above, max_boxes=part.max_boxes)


def load_detector_graph(
    folder: Path, manifest: Manifest, threads: int | None = None, engine: Engine = "auto"
) -> AnyGraph:
    """The detector of a bundle that was verified; arguments and errors are those of `Bundle.load`."""
    part = manifest.detector
    outputs = {"raw": 4 + len(manifest.findings)}
    if engine == "openvino" and part.openvino is None:
        raise BundleError(
            f"{folder}: expected a detector for OpenVINO, the bundle holds none; export it with "
            "`weakray detect export --formats [openvino] --ship openvino`, or take engine onnxruntime"
        )
    if part.openvino is None or engine == "onnxruntime" or (engine == "auto" and find_spec("openvino") is None):
        return Graph(folder / DETECTOR, part.input, outputs, threads)
    return OpenVinoGraph(folder / OPENVINO[0], part.input, outputs, threads, part.openvino.precision)


def _check_image(image: Any, number: int) -> None:
    if isinstance(image, np.ndarray):
        colour = image.ndim == 3 and image.shape[2] == 3
        if image.dtype == np.uint8 and (image.ndim == 2 or colour) and image.size:
            return
        came = f"{image.dtype} {image.shape}"
    else:
        came = type(image).__name__
    raise DataError(
        f"image {number}: expected uint8 of shape (h, w) or (h, w, 3), got {came}; "
        "decode it with weakray.imaging.decode"
    )


def _commas(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
