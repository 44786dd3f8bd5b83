"""What a map explains: a finding's logit, its own (conditional) probability, or its probability in the class tree.

A probability depends on few logits: P_k is a product along the path from the root, so that
∂P_k/∂A = P_k · Σ_j (1 − σ(l_j)) · ∂l_j/∂A over the path, and maps that are linear in the gradient are weighted sums of
logit maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from classify.hierarchy import Hierarchy, tree_walk

Target = Literal["logit", "conditional", "probability"]


@dataclass(frozen=True)
class Tree:
    """How a member's raw logits become probabilities.

    Attributes:
        parents: each finding's parent, None for a root.
        top_down: all class ids, parents first.
        hierarchy: how a child depends on its parent.
        slope: `(k,)`, the calibration's: the calibrated logit is slope · logit + offset.
        offset: `(k,)`.
    """

    parents: Sequence[int | None]
    top_down: Sequence[int]
    hierarchy: Hierarchy
    slope: Tensor
    offset: Tensor

    def path(self, class_id: int) -> list[int]:
        """The finding and its ancestors."""
        parent = self.parents[class_id]
        return [class_id, *([] if parent is None else self.path(parent))]

    @classmethod
    def flat(cls, findings: int) -> Tree:
        """Findings that do not depend on each other, uncalibrated."""
        return cls([None] * findings, range(findings), "none", torch.ones(findings), torch.zeros(findings))


def explained_by(target: Target, class_id: int, tree: Tree) -> list[int]:
    """The findings whose logits the target of `class_id` depends on."""
    return tree.path(class_id) if target == "probability" and tree.hierarchy != "none" else [class_id]


def slopes(target: Target, logits: Tensor, class_id: int, tree: Tree) -> Tensor:
    """Derivative `(n, k)` of the finding's target by each logit, in (0, |slope|) on its path and 0 elsewhere.

    Args:
        target: what is explained.
        logits: raw, `(n, k)`.
        class_id: of the finding.
        tree: how logits become probabilities.
    """
    if target == "logit":
        return torch.nn.functional.one_hot(torch.tensor(class_id), logits.shape[1]).to(logits).expand_as(logits)
    with torch.enable_grad():
        raw = logits.detach().requires_grad_(True)
        units = (raw * tree.slope.to(raw) + tree.offset.to(raw)).sigmoid()
        known = units if target == "conditional" else tree_walk(units, tree.parents, tree.top_down, tree.hierarchy)
        return torch.autograd.grad(known[:, class_id].sum(), raw)[0]
