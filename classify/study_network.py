"""What networks make of studies: one network for all views or one a view, and the sum of their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.heads import HeadOutput
from classify.model import Classifier, ModelConfig
from classify.studies import StudyMode


class ByView(nn.Module):
    """Two classifiers behind the face of one: frontal images go to the first, all others to the second.

    Each keeps its own batch-norm statistics.
    """

    def __init__(self, frontal: Classifier, other: Classifier) -> None:
        super().__init__()
        self.frontal = frontal
        self.other = other

    def forward(self, images: Tensor, frontal: Tensor) -> HeadOutput:
        """Images `(n, c, s, s)` in [0, 1], of which `frontal` `(n,)` bool → what each one's classifier makes of it.

        Outputs stand in the images' order. A classifier without an image is not called, and its weights get no
        gradient; one that gets a single image takes its running statistics, for batch norm cannot learn from one.
        """
        made: list[HeadOutput] = []
        parts: list[Tensor] = []
        for classifier, wanted in ((self.frontal, frontal), (self.other, ~frontal)):
            rows = wanted.nonzero()[:, 0]
            if len(rows):
                parts.append(rows)
                with _statistics_kept(classifier, when=len(rows) == 1):
                    made.append(classifier(images[rows]))
        back = torch.cat(parts).argsort()
        unsure = [output.uncertain for output in made if output.uncertain is not None]
        return HeadOutput(
            torch.cat([output.logits for output in made])[back],
            torch.cat([output.logit_maps for output in made])[back],
            torch.cat(unsure)[back] if unsure else None,
        )


Network = Classifier | ByView


def make_network(config: ModelConfig, findings: int, mode: StudyMode, uncertain: bool = False) -> Network:
    """A new network; the arguments are `Classifier`'s, and how studies are read."""
    first = Classifier(config, findings, uncertain)
    return ByView(first, Classifier(config, findings, uncertain)) if mode == "by_view" else first


def classifiers_of(network: Network) -> list[Classifier]:
    """The classifiers in a network."""
    return [network.frontal, network.other] if isinstance(network, ByView) else [network]


class StudyOutput(NamedTuple):
    """Of each study the sums over its images, raw (before the sigmoid)."""

    logits: Tensor  # (b, k)
    uncertain: Tensor | None = None  # (b, k), where the network says "uncertain"


def read_images(network: Callable[..., HeadOutput], images: Tensor, frontal: Tensor) -> HeadOutput:
    """Images `(n, c, s, s)` in [0, 1], of which `frontal` `(n,)` bool → what a network makes of each."""
    return network(images, frontal) if isinstance(network, ByView) else network(images)


def summed(output: HeadOutput, study_index: Tensor, studies: int) -> StudyOutput:
    """Outputs of images → of studies; `study_index` as in `study_logits`."""
    unsure = None if output.uncertain is None else study_logits(output.uncertain, study_index, studies)
    return StudyOutput(study_logits(output.logits, study_index, studies), unsure)


def study_logits(image_logits: Tensor, study_index: Tensor, studies: int) -> Tensor:
    """Logits of images → logits of studies: the sum over each study's images.

    Args:
        image_logits: `(n, ...)`, of real images alone.
        study_index: `(n,)` int64 in [0, studies): which study an image belongs to.
        studies: b.

    Returns:
        `(b, ...)`; 0, which the sigmoid makes one half, for a study without image.
    """
    return image_logits.new_zeros(studies, *image_logits.shape[1:]).index_add(0, study_index, image_logits)


@contextmanager
def _statistics_kept(classifier: Classifier, when: bool) -> Iterator[None]:
    """Keeps a classifier's batch norms as they are for the time of a block."""
    learning = [part for part in classifier.modules() if when and isinstance(part, _BatchNorm) and part.training]
    for part in learning:
        part.eval()
    try:
        yield
    finally:
        for part in learning:
            part.train()
