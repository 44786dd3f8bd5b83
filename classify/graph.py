"""The ensemble as one module: calibration, combination rule, hierarchy and maps inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classify.hierarchy import Hierarchy, tree_walk
from classify.inference import Seen, distinct
from classify.model import Classifier
from classify.platt import Platt
from classify.rules import WEIGHTED, Rule, combine
from weakray.taxonomy import Taxonomy


class EnsembleGraph(nn.Module):
    """Images → probabilities and maps; exports to ONNX with a free batch axis.

    Args:
        models: the members' classifiers, of equal findings.
        platt: calibration of each member's findings.
        taxonomy: the findings.
        rule: how members are combined.
        hierarchy: how a child's probability depends on its parent's.
        weights: of the members, for the rules that have weights.

    Attributes:
        inputs: what members see, each once.
        size_px: side of the one picture that `forward` takes: the largest input's.
        grid_hw: of the maps: the finest member's.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        platt: Sequence[Sequence[Platt]],
        taxonomy: Taxonomy,
        rule: Rule,
        hierarchy: Hierarchy,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.register_buffer("slope", torch.tensor([[one.slope for one in member] for member in platt]))
        self.register_buffer("offset", torch.tensor([[one.offset for one in member] for member in platt]))
        self.register_buffer("weights", torch.tensor(weights) if rule in WEIGHTED else None)
        specs = [model.config.input for model in models]
        self.inputs = distinct(specs)
        self.size_px = max(spec.size_px for spec in specs)
        self._input_of = [self.inputs.index(spec) for spec in specs]
        for i, spec in enumerate(self.inputs):
            if spec.size_px < self.size_px:
                self.register_buffer(f"shrink_{i}", area_matrix(self.size_px, spec.size_px))
        self._parents, self._top_down = taxonomy.parents, taxonomy.top_down
        self._rule, self._hierarchy = rule, hierarchy
        self.grid_hw = max(model.grid_hw for model in models)

    slope: Tensor  # (m, k)
    offset: Tensor  # (m, k)
    weights: Tensor | None  # (m,)

    def calibrated(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` → calibrated logits `(m, n, k)`."""
        return logits * self.slope[:, None] + self.offset[:, None]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` of all members → the ensemble's probabilities `(n, k)`."""
        units = combine(self.calibrated(logits), self._rule, self.weights)
        return tree_walk(units, self._parents, self._top_down, self._hierarchy)

    def member_probabilities(self, logits: Tensor) -> Tensor:
        """Raw logits `(m, n, k)` → each member's own probabilities `(m, n, k)`, as if it stood alone."""
        units = self.calibrated(logits).sigmoid()
        return torch.stack([tree_walk(own, self._parents, self._top_down, self._hierarchy) for own in units])

    def each(self, seen: Seen) -> list[Tensor]:
        """What each member is fed.

        Args:
            seen: a batch for each of `inputs`; the batch alone where there is one input.

        Raises:
            ValueError: if there are more or fewer batches than inputs.
        """
        pictures = [seen] if isinstance(seen, Tensor) else list(seen)
        if len(pictures) != len(self.inputs):
            raise ValueError(
                f"expected a batch for each of the members' {len(self.inputs)} inputs "
                f"({', '.join(map(str, self.inputs))}), got {len(pictures)}"
            )
        return [pictures[i] for i in self._input_of]

    def logits(self, seen: Seen) -> Tensor:
        """What members see → raw logits `(m, n, k)`."""
        return torch.stack([member(own).logits for member, own in zip(self.members, self.each(seen), strict=True)])

    def both(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """What members see → probabilities `(n, k)` and maps `(n, k, h, w)`, all in [0, 1].

        Maps are σ of the logit maps, resized to `grid_hw`, averaged over members, whatever the heads and the rule.
        """
        outputs = [member(own) for member, own in zip(self.members, self.each(seen), strict=True)]
        maps = [self._resized(output.logit_maps.sigmoid()) for output in outputs]
        return self.probabilities(torch.stack([output.logits for output in outputs])), torch.stack(maps).mean(0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`both` of one picture `(n, c, s, s)` in [0, 1] of side `size_px`, which smaller inputs are shrunk from.

        Right only where the members' inputs differ in nothing but size.
        """
        return self.both([self._shrunk(images, i) for i in range(len(self.inputs))])

    def _shrunk(self, images: Tensor, i: int) -> Tensor:
        if self.inputs[i].size_px == self.size_px:
            return images
        matrix: Tensor = getattr(self, f"shrink_{i}")
        return matrix @ images @ matrix.T

    def _resized(self, maps: Tensor) -> Tensor:
        if tuple(maps.shape[2:]) == self.grid_hw:
            return maps
        return nn.functional.interpolate(maps, self.grid_hw, mode="bilinear", align_corners=False)


def area_matrix(from_px: int, to_px: int) -> Tensor:
    """The matrix `(to, from)` that shrinks an axis by averaging what each new pixel covers; its rows sum to 1.

    Pixel i of `to_px` covers [i·f/t, (i + 1)·f/t) of the axis: what OpenCV's INTER_AREA does, as a matrix product that
    exports to ONNX.
    """
    edges = torch.arange(to_px + 1, dtype=torch.float64) * (from_px / to_px)
    starts = torch.arange(from_px, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], starts + 1) - torch.maximum(edges[:-1, None], starts)
    return (covered.clamp(min=0) * (to_px / from_px)).float()
