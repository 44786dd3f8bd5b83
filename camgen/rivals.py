"""The honest rivals of a recipe, as recipes themselves, so that `generate` makes their boxes by the same code.

`gradcam_single`: the best single member, last layer, score = that member's probability x peak, one threshold for all
findings, no calibration. `random_map`: smooth random maps, score = the ensemble's probability x peak, one threshold.
Both have their threshold (and the first its member) chosen on *tune*, by AP50 averaged over findings with boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from camgen.components import Cut, components_at, fine_map
from camgen.maps import UNIT_RANGE, MapSet
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.sources import MapSource
from camgen.tuning import TuneFinding, judge

PLAIN_GRADCAM = MapSource("gradcam")
THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))


def gradcam_single(
    base: Recipe, maps: MapSet, findings: Sequence[TuneFinding], max_boxes: int, tick: Callable[[], object]
) -> Recipe:
    """Plain Grad-CAM of one member.

    Args:
        base: gives names, hashes and grid.
        maps: of all tune images, with `gradcam`.
        findings: truth and annotated images.
        max_boxes: at most so many boxes an image and finding.
        tick: called after each finding.
    """
    candidates = []
    for member in range(len(maps.member_probabilities)):
        entries = tuple(
            FindingRecipe(
                name=name,
                members=(member,),
                method="gradcam",
                threshold=Threshold(kind="range", value=THRESHOLDS[0]),
                max_boxes=max_boxes,
                tune=TuneScores(),
            )
            for name in base.names
        )
        update = {"source": "gradcam_single", "probability": "members", "findings": entries}
        candidates.append(base.model_copy(update=update))
    return _best(candidates, maps, findings, tick)


def random_map(
    base: Recipe, maps: MapSet, findings: Sequence[TuneFinding], max_boxes: int, tick: Callable[[], object]
) -> Recipe:
    """Boxes of smooth random maps, scored by the ensemble's probability. Arguments as for `gradcam_single`."""
    entries = tuple(
        FindingRecipe(
            name=name,
            members=(),
            method="random",
            threshold=Threshold(kind="range", value=THRESHOLDS[0]),
            max_boxes=max_boxes,
            tune=TuneScores(),
        )
        for name in base.names
    )
    update = {"source": "random_map", "probability": "ensemble", "findings": entries}
    return _best([base.model_copy(update=update)], maps, findings, tick)


def _best(
    candidates: Sequence[Recipe], maps: MapSet, findings: Sequence[TuneFinding], tick: Callable[[], object]
) -> Recipe:
    """The candidate and threshold with the highest AP50, averaged over findings that have boxes on tune."""
    best, best_mean = candidates[0], -1.0
    for recipe in candidates:
        mapped, probability = recipe.maps(maps), recipe.probabilities(maps)
        ap50 = np.full((len(findings), len(THRESHOLDS)), np.nan)
        for k, (entry, finding) in enumerate(zip(recipe.findings, findings, strict=True)):
            fine = [fine_map(mapped[k].mean[i], maps.placements[i], recipe.resolution) for i in finding.rows]
            found = components_at(
                fine,
                [Cut(relative=True, value=value) for value in THRESHOLDS],
                unit_range=entry.method in UNIT_RANGE,
                min_area=recipe.min_area,
                places=entry.max_boxes,
            )
            ap50[k] = judge(found, probability[finding.rows, k], finding, gate=0, strengths=(math.inf,)).ap50[:, 0]
            tick()
        boxed = ap50[[finding.truth.count > 0 for finding in findings]]
        mean = boxed.mean(axis=0) if len(boxed) else np.zeros(len(THRESHOLDS))
        at = int(mean.argmax())
        if mean[at] > best_mean:
            best = recipe.model_copy(update={"findings": _at(recipe, findings, THRESHOLDS[at], ap50[:, at])})
            best_mean = float(mean[at])
    return best


def _at(
    recipe: Recipe, findings: Sequence[TuneFinding], value: float, ap50: npt.NDArray[np.float64]
) -> tuple[FindingRecipe, ...]:
    """The recipe's findings with this threshold, and what each scored."""
    entries = []
    for entry, finding, score in zip(recipe.findings, findings, ap50.tolist(), strict=True):
        own = finding.rounded(score)
        scores = TuneScores(boxes=finding.truth.count, images=len(finding.rows), ap50=own, ap50_uncalibrated=own)
        threshold = Threshold(kind="range", value=value)
        entries.append(entry.model_copy(update={"threshold": threshold, "tune": scores}))
    return tuple(entries)
