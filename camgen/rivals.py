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

from camgen.components import FineMap, fine_map
from camgen.maps import MapSet
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.tuning import TuneFinding, judge

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
        tick: called at each threshold tried.
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
        fine = [
            [fine_map(mapped[k][i], maps.placements[i], recipe.resolution) for i in finding.rows]
            for k, finding in enumerate(findings)
        ]
        for value in THRESHOLDS:
            tick()
            tried = [
                _scored(recipe, entry, value, fine[k], probability[findings[k].rows, k], findings[k])
                for k, entry in enumerate(recipe.findings)
            ]
            scores = [entry.tune.ap50 for entry in tried if entry.tune.ap50 is not None]
            mean = float(np.mean(scores)) if scores else 0.0
            if mean > best_mean:
                best, best_mean = recipe.model_copy(update={"findings": tuple(tried)}), mean
    return best


def _scored(
    recipe: Recipe,
    entry: FindingRecipe,
    value: float,
    fine: Sequence[FineMap],
    probability: npt.NDArray[np.float64],
    finding: TuneFinding,
) -> FindingRecipe:
    cut = entry.model_copy(update={"threshold": Threshold(kind="range", value=value)})
    found = recipe.components(cut, fine)
    judged = judge(found, probability, finding, gate=0, strengths=(math.inf,))
    ap50 = finding.rounded(float(judged.ap50[0]))
    scores = TuneScores(boxes=finding.truth.count, images=len(finding.rows), ap50=ap50, ap50_uncalibrated=ap50)
    return cut.model_copy(update={"tune": scores})
