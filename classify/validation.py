"""The figures of an epoch on val images: the loss as the phase counts it, and areas that respect the class tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from classify.batches import plain_batches
from classify.compute import autocast
from classify.hierarchy import Hierarchy, along_paths
from classify.images import Images
from classify.labels import Targets
from classify.learner import Learner, finite
from classify.phase import Phase
from classify.scores import finding_areas
from weakray.taxonomy import Taxonomy


@dataclass(frozen=True)
class Part:
    """Images of one split with their labels.

    Attributes:
        images: by row.
        counted: what the loss sees, the conditional mask of the hierarchy applied.
        full: what the scores see.
    """

    images: Images
    counted: Targets
    full: Targets


def val_figures(
    learner: Learner,
    phase: Phase,
    val: Part,
    taxonomy: Taxonomy,
    hierarchy: Hierarchy,
    batch_size: int,
    workers: int,
) -> dict[str, Any]:
    """`val_loss`, and the figures of `finding_areas` under names that begin with `val_`.

    Raises:
        NotFiniteError: if the loss is not finite.
    """
    model, device = learner.judged.eval(), learner.device
    made = plain_batches(val.images, batch_size, workers)
    with torch.inference_mode(), autocast(device, learner.precision):
        outputs = [model(learner.on_device(pixels)) for pixels in made]
    logits = torch.cat([output.logits for output in outputs])
    unsure = [output.uncertain for output in outputs if output.uncertain is not None]
    values, mask = torch.from_numpy(phase.val.values), torch.from_numpy(phase.val.mask)
    uncertain = torch.cat(unsure) if unsure else None
    loss = phase.criterion(logits, values.to(device), mask.to(device), uncertain)
    probability = along_paths(logits.sigmoid().cpu(), taxonomy, hierarchy).numpy()
    areas = finding_areas(probability, val.full, taxonomy.names)
    return {"val_loss": finite(loss.item(), "val loss"), **{f"val_{name}": value for name, value in areas.items()}}
