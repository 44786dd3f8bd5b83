"""Probabilities that respect the class tree: a child's never exceeds its parent's.

- `conditional`: the classifier was trained with each child counted only where its parents are present, so that its
  outputs are conditionals; P(child) is the product along the path from the root (Chen et al. 2019, the CheXpert tree).
- `minimum`: outputs are marginals; each is capped by the smallest along its path.
- `none`: outputs are marginals, as they are.

Torch only, in operations that export to ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from weakray.taxonomy import Taxonomy

Hierarchy = Literal["conditional", "minimum", "none"]


def along_paths(units: Tensor, taxonomy: Taxonomy, hierarchy: Hierarchy) -> Tensor:
    """Each finding's own output → its probability.

    Args:
        units: `(n, k)` in [0, 1], sigmoids of (calibrated) logits.
        taxonomy: the k findings and their tree.
        hierarchy: how a child depends on its parent.

    Returns:
        `(n, k)` in [0, 1].
    """
    return tree_walk(units, taxonomy.parents, taxonomy.top_down, hierarchy)


def tree_walk(units: Tensor, parents: Sequence[int | None], top_down: Sequence[int], hierarchy: Hierarchy) -> Tensor:
    """`along_paths` for a tree given as each class's parent and an order that puts parents first."""
    if hierarchy == "none":
        return units
    columns: dict[int, Tensor] = {}
    for child in top_down:
        parent, own = parents[child], units[:, child]
        if parent is None:
            columns[child] = own
        elif hierarchy == "conditional":
            columns[child] = columns[parent] * own
        else:
            columns[child] = torch.minimum(columns[parent], own)
    return torch.stack([columns[i] for i in range(len(columns))], dim=1)
