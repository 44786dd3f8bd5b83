"""The ensemble as one module: calibration, combination rule, hierarchy and maps inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from classify.hierarchy import Hierarchy, tree_walk
from classify.model import Classifier
from classify.platt import Platt
from weakray.taxonomy import Taxonomy

Rule = Literal["mean", "logit_mean"]


def combine(logits: Tensor, rule: Rule) -> Tensor:
    """Calibrated logits `(m, n, k)` of m members → `(n, k)` in [0, 1]: mean of sigmoids, or sigmoid of the mean."""
    if rule == "mean":
        return logits.sigmoid().mean(0)
    return logits.mean(0).sigmoid()


class EnsembleGraph(nn.Module):
    """Images → probabilities and maps; exports to ONNX with a free batch axis.

    Args:
        models: the members' classifiers, of equal input and findings.
        platt: calibration of each member's findings.
        taxonomy: the findings.
        rule: how members are combined.
        hierarchy: how a child's probability depends on its parent's.

    Attributes:
        grid_hw: of the maps: the finest member's.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        platt: Sequence[Sequence[Platt]],
        taxonomy: Taxonomy,
        rule: Rule,
        hierarchy: Hierarchy,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.register_buffer("slope", torch.tensor([[one.slope for one in member] for member in platt]))
        self.register_buffer("offset", torch.tensor([[one.offset for one in member] for member in platt]))
        self._parents, self._top_down = taxonomy.parents, taxonomy.top_down
        self._rule, self._hierarchy = rule, hierarchy
        self.grid_hw = max(model.grid_hw for model in models)

    slope: Tensor  # (m, k)
    offset: Tensor  # (m, k)

    def calibrated(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` → calibrated logits `(m, n, k)`."""
        return logits * self.slope[:, None] + self.offset[:, None]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` of all members → the ensemble's probabilities `(n, k)`."""
        units = combine(self.calibrated(logits), self._rule)
        return tree_walk(units, self._parents, self._top_down, self._hierarchy)

    def member_probabilities(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` → each member's own probabilities `(m, n, k)`, as if it stood alone."""
        units = self.calibrated(logits).sigmoid()
        return torch.stack([tree_walk(own, self._parents, self._top_down, self._hierarchy) for own in units])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(n, c, s, s)` in [0, 1] → probabilities `(n, k)` and PCAM maps `(n, k, h, w)`, all in [0, 1].

        Maps are σ of the logit maps, resized to `grid_hw`, averaged over members.
        """
        outputs = [member(images) for member in self.members]
        maps = [self._resized(output.logit_maps.sigmoid()) for output in outputs]
        return self.probabilities(torch.stack([output.logits for output in outputs])), torch.stack(maps).mean(0)

    def _resized(self, maps: Tensor) -> Tensor:
        if tuple(maps.shape[2:]) == self.grid_hw:
            return maps
        return nn.functional.interpolate(maps, self.grid_hw, mode="bilinear", align_corners=False)
