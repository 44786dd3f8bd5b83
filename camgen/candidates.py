"""The ways to turn one finding's maps into boxes that the search tries, cut together where they share a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camgen.agreement import mass_of, with_agreement
from camgen.components import Components, Cut, FineMap, components_at, fine_map
from camgen.fusion import Fusion, fuse
from camgen.maps import UNIT_RANGE, MapArray, MapSet
from camgen.prior import fit_prior, weight
from camgen.recipe import Threshold
from camgen.sources import MapSource
from camgen.tuning import Array, TuneFinding

Kind = tuple[
    tuple[int, ...], MapSource, float, Fusion
]  # members, source, exponent, fusion: options of a kind share maps


@dataclass(frozen=True)
class Option:
    """One way to cut one kind of map."""

    members: tuple[int, ...]
    source: MapSource
    exponent: float
    threshold: Threshold
    max_boxes: int
    merge_gap: float = 0.0
    fusion: Fusion = "maps"

    @property
    def kind(self) -> Kind:
        """What decides the maps."""
        return (self.members, self.source, self.exponent, self.fusion)

    @property
    def cut(self) -> Cut:
        """Where the map is cut."""
        return Cut(self.threshold.kind == "range", self.threshold.value)


class Cutter:
    """One finding's boxes before calibration, on the images annotated for it; holds one kind's boxes at a time.

    With `agreement` it looks how far members agree on each box, too.
    """

    def __init__(
        self,
        maps: MapSet,
        finding: TuneFinding,
        class_id: int,
        resolution: int,
        min_area: float,
        agreement: bool = False,
    ) -> None:
        self.probability: Array = maps.probabilities[finding.rows, class_id]
        self._maps, self._rows, self._class_id = maps, finding.rows, class_id
        self._resolution, self._min_area, self._agreement = resolution, min_area, agreement
        self._weighted = _Weighted(maps, finding)

    def candidates(self, options: Sequence[Option]) -> Iterator[tuple[npt.NDArray[np.intp], Components]]:
        """Places among `options`, and the boxes under these; every option comes once."""
        kinds: dict[Kind, list[int]] = {}
        for o, option in enumerate(options):
            kinds.setdefault(option.kind, []).append(o)
        for kind, own in kinds.items():
            members = self._members(kind)
            masses = [mass_of(own) for own in members] if self._agreement else []
            cut_from = members if kind[3] == "boxes" else [self.fine(kind)]
            for gap in sorted({options[o].merge_gap for o in own}):
                near = [o for o in own if options[o].merge_gap == gap]
                cuts = list(dict.fromkeys(options[o].cut for o in near))
                found = [
                    components_at(
                        maps,
                        cuts,
                        unit_range=kind[1].method in UNIT_RANGE,
                        min_area=self._min_area,
                        places=max(options[o].max_boxes for o in near),
                        merge_gap=gap,
                    )
                    for maps in cut_from
                ]
                for places in sorted({options[o].max_boxes for o in near}):
                    alike = [o for o in near if options[o].max_boxes == places]
                    index = np.array([cuts.index(options[o].cut) for o in alike])
                    boxes = fuse([own.options(index).first(places) for own in found], places)
                    yield np.array(alike), with_agreement(boxes, masses) if self._agreement else boxes

    def components(self, option: Option) -> Components:
        """The boxes under one option."""
        ((_, found),) = self.candidates([option])
        return found.option(0)

    def fine(self, kind: Kind) -> list[FineMap]:
        """The finding's upsampled maps of a kind: the members' mean."""
        members, source, exponent, _ = kind
        mapped = self._maps.mean([source.name(member, self._class_id) for member in members], self._resolution)[
            self._rows
        ]
        placements = [self._maps.placements[i] for i in self._rows]
        weighted = self._weighted(mapped, exponent)
        return [fine_map(own, place, self._resolution) for own, place in zip(weighted, placements, strict=True)]

    def _members(self, kind: Kind) -> list[list[FineMap]]:
        """Each member's own upsampled maps, where something looks at them."""
        members, source, exponent, fusion = kind
        looked_at = fusion == "boxes" or (self._agreement and len(members) > 1)
        return [self.fine(((member,), source, exponent, "maps")) for member in members] if looked_at else []


class _Weighted:
    """Maps of a finding's images under its location prior, each image's fitted without its patient's fold."""

    def __init__(self, maps: MapSet, finding: TuneFinding) -> None:
        self._placements = [maps.placements[i] for i in finding.rows]
        outside = {fold: finding.fold_of != fold for fold in np.unique(finding.fold_of)}
        truth = finding.truth
        self._grids = {f: fit_prior(truth.boxes_rel[rows][truth.valid[rows]]) for f, rows in outside.items()}
        self._fold_of = finding.fold_of
        self._made: dict[tuple[Any, ...], MapArray] = {}

    def __call__(self, mapped: MapArray, exponent: float) -> MapArray:
        if exponent == 0 or len(mapped) == 0:
            return mapped
        size_hw = (mapped.shape[1], mapped.shape[2])
        if (exponent, size_hw) not in self._made:
            own = zip(self._fold_of.tolist(), self._placements, strict=True)
            self._made[exponent, size_hw] = np.stack(
                [weight(self._grids[fold], exponent, place, size_hw) for fold, place in own]
            )
        return mapped * self._made[exponent, size_hw]
