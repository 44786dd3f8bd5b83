"""The recipe: everything needed, beside the ensemble, to turn an image into pseudo-boxes again.

`recipe.yaml` holds it; `Recipe.sha256` names it in every file of boxes that it made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from camgen.calibration import Calibration, corrected, features_of
from camgen.components import Components, FineMap, find_components, fine_map
from camgen.layers import LAST
from camgen.mapper import Making
from camgen.maps import UNIT_RANGE, Engine, MapArray, MapName, MapSet, Method, Views
from camgen.methods.masked import MaskedPasses
from camgen.methods.target import Target
from camgen.offsets import LayerOffset
from camgen.prior import Prior
from camgen.random_maps import random_maps
from camgen.scoring import DUPLICATE_IOU, without_duplicates
from camgen.sources import MapSource
from weakray.config import StrictModel, to_plain, validate
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_yaml, sha256_json, write_yaml
from weakray.imaging import Placement

Source = Literal["recipe", "gradcam_single", "random_map"]


class Threshold(StrictModel):
    """Where a map is cut."""

    kind: Literal["range", "value"] = Field(
        ..., description="range: a fraction of the map's range in each image; value: a value of a map in [0, 1]"
    )
    value: float = Field(..., ge=0, lt=1, description="where the map is cut")


class TuneScores(StrictModel):
    """What the search saw of a finding. Figures on *tune*, cross-validated by patient; chosen by, so flattering."""

    boxes: int = Field(0, ge=0, description="true boxes on tune")
    images: int = Field(0, ge=0, description="annotated images on tune")
    ap50: float | None = Field(None, description="AP at IoU 0.5 of what was chosen; null without a true box")
    ap50_uncalibrated: float | None = Field(None, description="the same without box calibration and gate")


class FindingRecipe(StrictModel):
    """How one finding's boxes are made."""

    name: str = Field(..., description="finding")
    members: tuple[int, ...] = Field(..., description="members whose maps are averaged")
    method: Method | Literal["random"] = Field(..., description="map method")
    layer: str = Field(LAST, description="layer that the map is taken from: last, stageN or a module's path")
    target: Target = Field("logit", description="what the map explains: logit, conditional or path probability")
    views: Views | None = Field(None, description="views that the map is averaged over; null: the image as it is")
    prior: Prior | None = Field(None, description="where the finding lies; null leaves maps as they are")
    threshold: Threshold = Field(..., description="where the map is cut")
    max_boxes: int = Field(..., ge=1, description="at most so many boxes an image, best peak first")
    merge_gap: float = Field(
        0.0, ge=0, lt=1, description="components nearer than this fraction of the image's longer side are one box"
    )
    gate: float = Field(0.0, ge=0, le=1, description="no box where the finding's probability is lower")
    calibration: Calibration | None = Field(None, description="box calibration; null leaves boxes as they are")
    tune: TuneScores = Field(..., description="what the search saw")

    @property
    def wanted(self) -> MapSource | None:
        """The kind of map that a model must make; None for random maps."""
        return None if self.method == "random" else MapSource(self.method, self.layer, self.target, self.views)


class Recipe(StrictModel):
    """A recipe for all findings, in class-id order."""

    source: Source = Field("recipe", description="which method this is, in the words of summary.json")
    ensemble_sha256: str = Field(..., description="the ensemble it was fitted with")
    engine: Engine = Field("ours", description="who computes Grad-CAM")
    masked_bf16: bool = Field(False, description="further passes of masked-forward methods under bfloat16")
    probability: Literal["ensemble", "members"] = Field("ensemble", description="whose probability scores and gates")
    resolution: int = Field(96, ge=1, description="grid samples along a map's side on which components are found")
    min_area: float = Field(0.0005, ge=0, lt=1, description="smallest component, as a fraction of the image")
    duplicate_iou: float = Field(
        DUPLICATE_IOU, gt=0, le=1, description="overlap above which the worse of two boxes goes"
    )
    seed: int = Field(0, ge=0, description="of the random maps")
    offsets: tuple[LayerOffset, ...] = Field((), description="layers whose cells do not look straight; () moves no map")
    findings: tuple[FindingRecipe, ...] = Field(..., min_length=1, description="one entry a finding")

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        return sha256_json(to_plain(self))

    @property
    def names(self) -> list[str]:
        """The findings, in class-id order."""
        return [finding.name for finding in self.findings]

    @property
    def wanted(self) -> list[MapName]:
        """The maps that must be computed; random ones need no model."""
        return [
            finding.wanted.name(member, k)
            for k, finding in enumerate(self.findings)
            if finding.wanted is not None
            for member in finding.members
        ]

    def making(self, masked_memory_mib: int) -> Making:
        """How its maps are made, with so much memory for the inputs of further passes."""
        return Making(self.engine, MaskedPasses(masked_memory_mib * 2**20, self.masked_bf16))

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Reads `recipe.yaml`."""
        return validate(cls, read_yaml(path), str(path))

    def save(self, path: Path) -> None:
        """Writes `recipe.yaml`."""
        write_yaml(path, to_plain(self))

    def check(self, names: Sequence[str], ensemble_sha256: str, members: int) -> None:
        """Refuses to be used with other findings or another ensemble than it was fitted with.

        Raises:
            DataError: saying what differs.
        """
        if list(names) != self.names:
            raise DataError(f"recipe: it is for the findings {self.names}, the dataset has {list(names)}; search again")
        if ensemble_sha256 != self.ensemble_sha256:
            raise DataError("recipe: it was fitted with another ensemble; name that one, or search again")
        wanted = max((m for finding in self.findings for m in finding.members), default=-1)
        if wanted >= members:
            raise DataError(f"recipe: it uses member {wanted}, the ensemble has {members} members (counted from 0)")

    def maps(self, maps: MapSet) -> list[MapArray]:
        """The recipe's map of every finding, `(n, h, w)` each: its method's, its members' mean, under its prior."""
        maps = replace(maps, offsets={(one.member, one.layer): (one.down, one.right) for one in self.offsets})
        columns = []
        for k, finding in enumerate(self.findings):
            source = finding.wanted
            if source is None:
                mapped = random_maps(maps.image_ids, finding.name, maps.grid_hw, self.seed)
            else:
                mapped = maps.mean([source.name(member, k) for member in finding.members], self.resolution)
            if finding.prior is not None:
                size_hw = (mapped.shape[1], mapped.shape[2])
                mapped = mapped * np.stack([finding.prior.weight(place, size_hw) for place in maps.placements])
            columns.append(mapped)
        return columns

    def probabilities(self, maps: MapSet) -> npt.NDArray[np.float64]:
        """The probability `(n, k)` that scores and gates each finding's boxes."""
        if self.probability == "ensemble":
            return maps.probabilities
        columns = [maps.member_probabilities[list(f.members), :, k].mean(axis=0) for k, f in enumerate(self.findings)]
        return np.stack(columns, axis=1)

    def apply(
        self, maps: Sequence[MapArray], probabilities: npt.NDArray[np.float64], placements: Sequence[Placement]
    ) -> list[Detections]:
        """Boxes of n images.

        Args:
            maps: `(n, h, w)` of each finding, from `Recipe.maps`.
            probabilities: `(n, k)`, from `Recipe.probabilities`.
            placements: where each image lies in the square that the maps cover.

        Returns:
            one `Detections` an image, score = probability x component's peak, best first.
        """
        parts: list[list[Detections]] = [[] for _ in placements]
        for k, finding in enumerate(self.findings):
            fine = [fine_map(maps[k][i], placement, self.resolution) for i, placement in enumerate(placements)]
            found = self.components(finding, fine)
            boxes = corrected(finding.calibration, found.boxes_rel, features_of(found))
            gated = found.valid & (probabilities[:, k] >= finding.gate)[:, None]
            keep = without_duplicates(boxes, gated, self.duplicate_iou)
            score = np.clip(probabilities[:, k, None] * found.peak, 0, 1)
            for i, placement in enumerate(placements):
                pixels = to_pixels(boxes[i, keep[i]], placement.source_hw)
                parts[i].append(Detections(pixels, np.full(len(pixels), k), score[i, keep[i]]))
        return [Detections.concat(found).best_first() for found in parts]

    def components(self, finding: FindingRecipe, maps: Sequence[FineMap]) -> Components:
        """The finding's boxes before calibration, one map an image."""
        return find_components(
            maps,
            value=finding.threshold.value,
            relative=finding.threshold.kind == "range",
            unit_range=finding.method in UNIT_RANGE,
            min_area=self.min_area,
            places=finding.max_boxes,
            merge_gap=finding.merge_gap,
        )


def to_pixels(boxes_rel: npt.NDArray[Any], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Relative boxes `(n, 4)` → pixels of an image, each side at least a pixel long, inside the image."""
    height, width = size_hw
    pixels = np.asarray(boxes_rel, np.float64) * [width, height, width, height]
    for low, high, limit in ((0, 2, width), (1, 3, height)):
        short = np.maximum(1 - (pixels[:, high] - pixels[:, low]), 0)
        pixels[:, low] = np.clip(pixels[:, low] - short / 2, 0, limit - 1)
        pixels[:, high] = np.clip(np.maximum(pixels[:, high] + short / 2, pixels[:, low] + 1), 1, limit)
    return pixels.astype(np.float32)
