"""The figures of an epoch on val images: the loss as the phase counts it, and areas that respect the class tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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

    Several processes judge a part of the images each, and make figures of the outputs of all: the first one's count.

    Raises:
        NotFiniteError: if the loss is not finite.
    """
    model, device, processes = learner.judged.eval(), learner.device, learner.processes
    rows = np.arange(len(val.images))
    made = plain_batches(val.images, processes.part(rows), -(-batch_size // processes.count), workers)
    with torch.inference_mode(), autocast(device, learner.precision):
        outputs = [model(learner.on_device(pixels)) for pixels in made]
        none = torch.zeros(0, len(taxonomy), device=device)  # where there are more processes than images

        def of_all(own: list[Tensor]) -> Tensor:
            return processes.gathered(torch.cat([none, *own]), len(rows))

        logits = of_all([output.logits for output in outputs])
        unsure = [output.uncertain for output in outputs if output.uncertain is not None]
        uncertain = None if model.uncertain is None else of_all(unsure)
    values, mask = torch.from_numpy(phase.val.values), torch.from_numpy(phase.val.mask)
    loss = finite(phase.criterion(logits, values.to(device), mask.to(device), uncertain).item(), "val loss")
    probability = along_paths(logits.sigmoid().cpu(), taxonomy, hierarchy).numpy()
    areas = finding_areas(probability, val.full, taxonomy.names)
    figures = {"val_loss": loss, **{f"val_{name}": value for name, value in areas.items()}}
    return processes.by_first(lambda: figures)
