"""Makes a detector's exports one by one, holds each against torch, and refuses those that differ."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from detect.detector import BoxModel, Detector
from detect.exporting import export_detector, write_export
from detect.formats import LOSSY, Format, files_of, open_export, open_graph, seal
from detect.parity import DetectorParity, ToleranceConfig, compare, macro_ap50, predict_prepared
from detect.speed import Speed, measure
from weakray.bundle.manifest import DETECTOR
from weakray.bundle.parity import spread
from weakray.coco import Predictions
from weakray.config import StrictModel, to_plain, validate
from weakray.dataset import Dataset
from weakray.errors import BundleError
from weakray.files import read_json, write_json
from weakray.imaging import Image, InputSpec, Placement, prepare, read_image

Annotated = Literal["tune", "test"]
_ANNOTATED: tuple[Annotated, ...] = ("tune", "test")
Prepared = dict[str, tuple[Image, Placement]]


class ExportRow(StrictModel):
    """An export, as the table of a run's exports shows it."""

    format: str
    bytes: int
    parity: DetectorParity
    parity_passed: bool
    refused: bool  # it differs, and was not kept
    speed: Speed | None = None

    def told(self) -> str:
        """What it loses, in a sentence without anything that differs from machine to machine."""
        tune, test = (
            "" if loss is None else f", AP50 on {name} {0.0 - round(loss, 4):+.4f}"
            for name, loss in (("tune", self.parity.ap50_loss_tune), ("test", self.parity.ap50_loss_test))
        )
        state = " REFUSED: not kept." if self.refused else "" if self.parity_passed else " DIFFERS: forced."
        found = self.parity
        agreement = f"{found.matched_fraction:.1%} of {found.boxes} boxes on {found.images} val images as in torch"
        if not found.boxes:
            agreement = f"no box on {found.images} val images is sure enough to be compared"
        return f"- `{self.format}`: {agreement}{tune}{test}.{state}"


@dataclass(frozen=True)
class Trial:
    """What exports are made from and held against.

    Attributes:
        detector: the torch side.
        folder: its run folder.
        weights_sha256: hash of its weights.
        dataset: val images for parity and calibration, tune and test for average precision.
        tolerance: what counts as near.
        iou_above: overlap at which the worse of two boxes of a finding goes.
        max_boxes: boxes kept of an image.
        parity_images: val images that are compared.
        calibration_images: val images that integers are scaled by.
        timed_images: val images that speed is measured on; None measures none.
        opset: ONNX operator set.
        threads: of graphs.
        force: keep exports that differ.
    """

    detector: Detector
    folder: Path
    weights_sha256: str
    dataset: Dataset
    tolerance: ToleranceConfig
    iou_above: float
    max_boxes: int
    parity_images: int
    calibration_images: int
    timed_images: int | None
    opset: int
    threads: int
    force: bool

    def run(self, root: Path, kinds: Sequence[Format]) -> list[ExportRow]:
        """Exports under `root/exports`, a folder and a row each; what an interrupted call finished is found again."""
        return [self._found(root, kind) or self._make(root, kind) for kind in kinds]

    def speed_of(self, folder: Path) -> Speed | None:
        """How fast a detector is, where that was asked for."""
        if self.timed_images is None:
            return None
        ids = spread(self.dataset.ids_of("val"), self.timed_images)
        return measure(folder, [read_image(self.dataset.path_of(image_id)) for image_id in ids], self.threads)

    @cached_property
    def scored(self) -> dict[Annotated, Predictions]:
        """Torch's boxes of the annotated tune and test images."""
        return {split: self._predict(self.detector, split) for split in _ANNOTATED}

    @property
    def spec(self) -> InputSpec:
        """What the detector sees."""
        return self.detector.spec

    def _found(self, root: Path, kind: Format) -> ExportRow | None:
        path = root / "exports" / f"{kind}.json"
        if not path.is_file():
            return None
        row = validate(ExportRow, read_json(path), str(path))
        if not row.refused:
            try:
                open_export(root / "exports" / kind, self.threads)
            except (BundleError, FileNotFoundError):
                return None
        return row

    def _make(self, root: Path, kind: Format) -> ExportRow:
        onnx, folder = root / DETECTOR, root / "exports" / kind
        if not onnx.is_file():
            export_detector(self.folder, onnx, self.opset)
        calibration = self._prepared_val(self.calibration_images) if kind == "openvino-int8" else []
        write_export(folder, kind, self.folder, onnx, calibration)
        model = open_graph(folder, kind, self.detector.findings, self.spec, self.threads)
        in_order = not self.detector.network.queries
        parity = compare(self.detector, model, self._compared, self.tolerance, in_order=in_order)
        losses = {"ap50_loss_tune": self._ap50_loss(model, "tune"), "ap50_loss_test": self._ap50_loss(model, "test")}
        parity = parity.model_copy(update=losses)
        passed = parity.passes(self.tolerance, lossy=kind in LOSSY)
        size = sum((folder / name).stat().st_size for name in files_of(kind))
        refused = not passed and not self.force
        if refused:
            shutil.rmtree(folder)
            row = ExportRow(format=kind, bytes=size, parity=parity, parity_passed=False, refused=True)
        else:
            seal(folder, kind, model, self.weights_sha256, parity_passed=passed)
            speed = self.speed_of(folder)
            row = ExportRow(format=kind, bytes=size, parity=parity, parity_passed=passed, refused=False, speed=speed)
        write_json(root / "exports" / f"{kind}.json", to_plain(row))
        return row

    @cached_property
    def _compared(self) -> list[Image]:
        return self._prepared_val(self.parity_images)

    def _prepared_val(self, limit: int) -> list[Image]:
        ids = spread(self.dataset.ids_of("val"), limit)
        return [prepare(read_image(self.dataset.path_of(image_id)), self.spec)[0] for image_id in ids]

    @cached_property
    def _annotated(self) -> dict[Annotated, Prepared]:
        return {
            split: {
                image_id: prepare(read_image(self.dataset.path_of(image_id)), self.spec)
                for image_id in self.dataset.truth_of(split).image_ids
            }
            for split in _ANNOTATED
        }

    def _predict(self, model: BoxModel, split: Annotated) -> Predictions:
        return predict_prepared(model, self._annotated[split], self.iou_above, self.max_boxes)

    def _ap50_loss(self, model: BoxModel, split: Annotated) -> float | None:
        truth, classes = self.dataset.truth_of(split), len(self.detector.findings)
        before = macro_ap50(self.scored[split], truth, classes)
        after = None if before is None else macro_ap50(self._predict(model, split), truth, classes)
        return None if before is None or after is None else round(before - after, 6)
