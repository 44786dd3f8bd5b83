"""From a patient's marks to effects on the film, and from effects to the full set of true boxes.

Boxes exist for every finding of the tree: the box of a child is also a box of each of its ancestors (a nodule is a
lung lesion is a lung opacity), so that an annotated film is complete for all findings. Boxes of one class that lie
largely in one another are joined into one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.phantom.airspace import atelectasis, consolidation, pneumonia
from ingest.phantom.chest import Chest
from ingest.phantom.difficulty import Difficulty, Range
from ingest.phantom.lesions import mass, nodules
from ingest.phantom.patients import Mark
from ingest.phantom.pleura import effusion, pneumothorax
from ingest.phantom.regions import Box, Effect, box_around, merge_nested
from ingest.phantom.taxonomy import FINDINGS, lineage


def draw_mark(chest: Chest, mark: Mark, rng: np.random.Generator, level: Difficulty) -> Effect:
    """Draws one finding. Heart and mediastinum are part of the chest's outlines already: only their box is made.

    Raises:
        ValueError: for a finding that is only ever a parent.
    """
    contrast, size = level.contrast, level.size
    match mark.finding:
        case "Nodule":
            return nodules(chest, mark, rng, _between(contrast.nodule, rng), size)
        case "Mass":
            return mass(chest, mark, rng, _between(contrast.mass, rng), size)
        case "Consolidation":
            return consolidation(chest, mark, rng, _between(contrast.consolidation, rng), size)
        case "Pneumonia":
            return pneumonia(chest, mark, rng, _between(contrast.pneumonia, rng), size)
        case "Atelectasis":
            return atelectasis(chest, mark, rng, _between(contrast.atelectasis, rng), size)
        case "Pleural Effusion":
            return effusion(chest, mark, rng, _between(contrast.effusion, rng), size)
        case "Pneumothorax":
            return pneumothorax(chest, mark, rng, _between(contrast.pneumothorax, rng), size)
        case "Cardiomegaly":
            return _silhouette(chest, with_mediastinum=False)
        case "Enlarged Cardiomediastinum":
            return _silhouette(chest, with_mediastinum=True)
        case _:
            raise ValueError(f"finding: expected one that is drawn on its own, got {mark.finding!r}")


def _between(limits: Range, rng: np.random.Generator) -> float:
    return float(rng.uniform(*limits))


def _silhouette(chest: Chest, with_mediastinum: bool) -> Effect:
    outlines = chest.outlines
    shapes = [outlines.heart]
    if with_mediastinum:
        middle = outlines.mediastinum
        shapes.append(middle[(middle[:, 1] > 0.13) & (middle[:, 1] < 0.6)])
    return Effect(np.zeros(chest.canvas.size_hw, np.float32), box_around(chest.canvas.fill(*shapes)))


def true_boxes(effects: list[tuple[Mark, Effect]], field: Box) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Boxes `(n, 4)` and classes `(n,)` of all findings and their ancestors, cut to the exposed `field`.

    What is left of a finding with a side below 2.2 % of the field (at least 4 pixels) counts as not on the film.
    """
    least = max(4.0, 0.022 * min(field[2] - field[0], field[3] - field[1]))
    per_class: dict[str, list[Box]] = {}
    for mark, effect in effects:
        for x0, y0, x1, y1 in effect.boxes:
            cut = (max(x0, field[0]), max(y0, field[1]), min(x1, field[2]), min(y1, field[3]))
            if min(cut[2] - cut[0], cut[3] - cut[1]) >= least:
                for name in lineage(mark.finding):
                    per_class.setdefault(name, []).append(cut)
    rows = [(index, box) for index, name in enumerate(FINDINGS) for box in merge_nested(per_class.get(name, []))]
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    return boxes, np.array([index for index, _ in rows], np.int64)
