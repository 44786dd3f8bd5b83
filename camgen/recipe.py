"""The recipe: everything needed, beside the ensemble, to turn an image into pseudo-boxes again.

`recipe.yaml` holds it; `Recipe.sha256` names it in every file of boxes that it made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from camgen.agreement import mass_of, with_agreement
from camgen.calibration import Calibration, corrected, features_of
from camgen.components import Components, FineMap, find_components, fine_map
from camgen.fusion import FUSION_IOU, Fusion, fuse
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


class FindingMaps(NamedTuple):
    """One finding's maps of n images, under its prior.

    Attributes:
        mean: `(n, h, w)`, the members' mean: what is cut, unless members' boxes are fused; and what is shown.
        members: each member's own, `(n, h, w)` on its own grid; () where nothing looks at them.
    """

    mean: MapArray
    members: tuple[MapArray, ...] = ()


class FindingRecipe(StrictModel):
    """How one finding's boxes are made."""

    name: str = Field(..., description="finding")
    members: tuple[int, ...] = Field(..., description="members whose maps are used")
    fusion: Fusion = Field(
        "maps", description="maps: members' maps are averaged and cut; boxes: each is cut, and their boxes are fused"
    )
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

    @property
    def weighs_agreement(self) -> bool:
        """Whether its calibration looks at how far members agree."""
        return self.calibration is not None and "agreement" in self.calibration.features


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
    fusion_iou: float = Field(FUSION_IOU, gt=0, le=1, description="overlap above which members' boxes are fused")
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

    def maps(self, maps: MapSet) -> list[FindingMaps]:
        """The recipe's maps of every finding: its method's, under its prior."""
        maps = replace(maps, offsets={(one.member, one.layer): (one.down, one.right) for one in self.offsets})
        columns = []
        for k, finding in enumerate(self.findings):
            source = finding.wanted
            if source is None:
                columns.append(FindingMaps(random_maps(maps.image_ids, finding.name, maps.grid_hw, self.seed)))
                continue
            names = [source.name(member, k) for member in finding.members]
            alone = [[name] for name in names] if finding.fusion == "boxes" or finding.weighs_agreement else []
            mean, *members = (
                _under(finding.prior, maps.mean(own, self.resolution), maps.placements) for own in (names, *alone)
            )
            columns.append(FindingMaps(mean, tuple(members)))
        return columns

    def probabilities(self, maps: MapSet) -> npt.NDArray[np.float64]:
        """The probability `(n, k)` that scores and gates each finding's boxes."""
        if self.probability == "ensemble":
            return maps.probabilities
        columns = [maps.member_probabilities[list(f.members), :, k].mean(axis=0) for k, f in enumerate(self.findings)]
        return np.stack(columns, axis=1)

    def apply(
        self, maps: Sequence[FindingMaps], probabilities: npt.NDArray[np.float64], placements: Sequence[Placement]
    ) -> list[Detections]:
        """Boxes of n images.

        Args:
            maps: of each finding, from `Recipe.maps`.
            probabilities: `(n, k)`, from `Recipe.probabilities`.
            placements: where each image lies in the square that the maps cover.

        Returns:
            one `Detections` an image, score = probability x component's peak, best first.
        """
        found = [self.components(own, mapped, placements) for own, mapped in zip(self.findings, maps, strict=True)]
        boxes = [
            corrected(own.calibration, one.boxes_rel, features_of(one))
            for own, one in zip(self.findings, found, strict=True)
        ]
        return self.detections(found, boxes, probabilities, [placement.source_hw for placement in placements])

    def components(self, finding: FindingRecipe, maps: FindingMaps, placements: Sequence[Placement]) -> Components:
        """The finding's boxes of n images before calibration."""
        members = [self._fine(own, placements) for own in maps.members]
        fused = finding.fusion == "boxes" and finding.wanted is not None
        found = [
            find_components(
                fine,
                value=finding.threshold.value,
                relative=finding.threshold.kind == "range",
                unit_range=finding.method in UNIT_RANGE,
                min_area=self.min_area,
                places=finding.max_boxes,
                merge_gap=finding.merge_gap,
            )
            for fine in (members if fused else [self._fine(maps.mean, placements)])
        ]
        boxes = fuse(found, finding.max_boxes, self.fusion_iou)
        return with_agreement(boxes, [mass_of(own) for own in members]) if finding.weighs_agreement else boxes

    def detections(
        self,
        found: Sequence[Components],
        boxes: Sequence[npt.NDArray[np.float64]],
        probabilities: npt.NDArray[np.float64],
        sizes_hw: Sequence[tuple[int, int]],
    ) -> list[Detections]:
        """Boxes of n images, gated, scored, without duplicates.

        Args:
            found: of each finding.
            boxes: of each finding `(n, p, 4)`, the same after calibration.
            probabilities: `(n, k)`.
            sizes_hw: of the n images.
        """
        parts: list[list[Detections]] = [[] for _ in sizes_hw]
        for k, (finding, own) in enumerate(zip(self.findings, found, strict=True)):
            gated = own.valid & (probabilities[:, k] >= finding.gate)[:, None]
            keep = without_duplicates(boxes[k], gated, self.duplicate_iou)
            score = np.clip(probabilities[:, k, None] * own.peak, 0, 1)
            for i, size_hw in enumerate(sizes_hw):
                pixels = to_pixels(boxes[k][i, keep[i]], size_hw)
                parts[i].append(Detections(pixels, np.full(len(pixels), k), score[i, keep[i]]))
        return [Detections.concat(part).best_first() for part in parts]

    def _fine(self, maps: MapArray, placements: Sequence[Placement]) -> list[FineMap]:
        return [fine_map(own, place, self.resolution) for own, place in zip(maps, placements, strict=True)]


def _under(prior: Prior | None, maps: MapArray, placements: Sequence[Placement]) -> MapArray:
    if prior is None:
        return maps
    size_hw = (maps.shape[1], maps.shape[2])
    return np.asarray(maps * np.stack([prior.weight(place, size_hw) for place in placements]))


def to_pixels(boxes_rel: npt.NDArray[Any], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Relative boxes `(n, 4)` → pixels of an image, each side at least a pixel long, inside the image."""
    height, width = size_hw
    pixels = np.asarray(boxes_rel, np.float64) * [width, height, width, height]
    for low, high, limit in ((0, 2, width), (1, 3, height)):
        short = np.maximum(1 - (pixels[:, high] - pixels[:, low]), 0)
        pixels[:, low] = np.clip(pixels[:, low] - short / 2, 0, limit - 1)
        pixels[:, high] = np.clip(np.maximum(pixels[:, high] + short / 2, pixels[:, low] + 1), 1, limit)
    return pixels.astype(np.float32)
