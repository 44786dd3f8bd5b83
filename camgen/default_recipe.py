"""The recipe of one who has no box: nothing of it is chosen or fitted by looking at where findings are.

The members' mean PCAM map of each finding, one published cut for all of them, two boxes at most, and none where the
ensemble's own decision (a threshold that labels of *val* gave) says that the finding is absent. No location prior and
no box calibration, for both are fitted to boxes.
"""

from __future__ import annotations

from collections.abc import Mapping

from camgen.maps import MapName
from camgen.offsets import LayerOffset
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.sources import MapSource
from classify.ensemble import Ensemble

SOURCE = MapSource("pcam")
# CheXlocalize's cut for opacity, atelectasis, consolidation and edema (Saporta et al., Nature Machine Intelligence
# 2022); its cuts for other findings go from 0.2 to 0.7.
CUT = 0.4
MAX_BOXES = 2  # lungs come in pairs


def default_maps(ensemble: Ensemble) -> list[MapName]:
    """The maps that the recipe is made of."""
    return [SOURCE.name(m, k) for m in range(len(ensemble.members)) for k in range(len(ensemble.findings))]


def default_recipe(
    ensemble: Ensemble, offsets: Mapping[tuple[int, str], tuple[float, float]], resolution: int, min_area: float
) -> Recipe:
    """The same recipe for every dataset that the ensemble is used on.

    Args:
        ensemble: gives findings, members and decision thresholds.
        offsets: (member, layer) → where the layer's cells look, as `measure_all` finds it; empty moves no map.
        resolution: grid samples along a map's side on which components are found.
        min_area: smallest component, as a fraction of the image.
    """
    gates = ensemble.thresholds
    return Recipe(
        ensemble_sha256=ensemble.sha256,
        resolution=resolution,
        min_area=min_area,
        offsets=tuple(
            LayerOffset(member=member, layer=layer, down=down, right=right)
            for (member, layer), (down, right) in offsets.items()
        ),
        findings=tuple(
            FindingRecipe(
                name=name,
                members=tuple(range(len(ensemble.members))),
                **SOURCE._asdict(),
                threshold=Threshold(kind="range", value=CUT),
                max_boxes=MAX_BOXES,
                gate=gates[name],
                tune=TuneScores(),
            )
            for name in ensemble.findings
        ),
    )
