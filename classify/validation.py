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
from classify.studies import Studies
from classify.study_network import classifiers_of, read_images, study_logits
from weakray.taxonomy import Taxonomy


@dataclass(frozen=True)
class Part:
    """Images of one split, and the labels of its studies.

    Attributes:
        images: of `studies.image_ids`, row by row.
        studies: what belongs together.
        counted: what the loss sees, the conditional mask of the hierarchy applied.
        full: what the scores see.
    """

    images: Images
    studies: Studies
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
    model, device, processes, studies = learner.judged.eval(), learner.device, learner.processes, val.studies
    rows = np.arange(len(studies))
    own = processes.part(rows)
    images, index = studies.flatten(own)
    size = -(-batch_size // processes.count)
    made = plain_batches(val.images, images, size, workers)
    views = [torch.from_numpy(studies.frontal[images[i : i + size]]).to(device) for i in range(0, len(images), size)]
    with torch.inference_mode(), autocast(device, learner.precision):
        outputs = [read_images(model, learner.on_device(p), frontal) for p, frontal in zip(made, views, strict=True)]
        none = torch.zeros(0, len(taxonomy), device=device)  # where there are more processes than studies

        def of_all(said: list[Tensor]) -> Tensor:
            summed = study_logits(torch.cat([none, *said]), torch.from_numpy(index).to(device), len(own))
            return processes.gathered(summed, len(rows))

        logits = of_all([output.logits for output in outputs])
        unsure = [output.uncertain for output in outputs if output.uncertain is not None]
        uncertain = None if classifiers_of(model)[0].uncertain is None else of_all(unsure)
    values, mask = torch.from_numpy(phase.val.values), torch.from_numpy(phase.val.mask)
    loss = finite(phase.criterion(logits, values.to(device), mask.to(device), uncertain).item(), "val loss")
    probability = along_paths(logits.sigmoid().cpu(), taxonomy, hierarchy).numpy()
    areas = finding_areas(probability, val.full, taxonomy.names)
    figures = {"val_loss": loss, **{f"val_{name}": value for name, value in areas.items()}}
    return processes.by_first(lambda: figures)
