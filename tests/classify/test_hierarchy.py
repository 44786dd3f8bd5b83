from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classify.hierarchy import Hierarchy, along_paths
from weakray.taxonomy import Finding, Taxonomy

CHAIN = Taxonomy((Finding("Pneumonia", "Consolidation"), Finding("Consolidation", "Opacity"), Finding("Opacity")))
UNITS = torch.tensor([[0.9, 0.5, 0.8], [0.2, 1.0, 0.4]])


@pytest.mark.parametrize(
    ("hierarchy", "expected"),
    [
        ("conditional", [[0.36, 0.4, 0.8], [0.08, 0.4, 0.4]]),
        ("minimum", [[0.5, 0.5, 0.8], [0.2, 0.4, 0.4]]),
        ("none", [[0.9, 0.5, 0.8], [0.2, 1.0, 0.4]]),
    ],
)
def test_by_hand(hierarchy: Hierarchy, expected: list[list[float]]) -> None:
    torch.testing.assert_close(along_paths(UNITS, CHAIN, hierarchy), torch.tensor(expected))
    torch.testing.assert_close(along_paths(UNITS[:1], CHAIN, hierarchy), torch.tensor(expected[:1]))


@st.composite
def trees(draw: st.DrawFn) -> Taxonomy:
    count = draw(st.integers(1, 8))
    order = draw(st.permutations(range(count)))  # position in the tree → class id: parents may stand anywhere
    parent: dict[int, int | None] = {
        order[at]: draw(st.none() | st.sampled_from(order[:at])) if at else None for at in range(count)
    }
    return Taxonomy(tuple(Finding(f"f{i}", None if (p := parent[i]) is None else f"f{p}") for i in range(count)))


@given(trees(), st.integers(1, 3), st.integers(0, 2**31), st.sampled_from(["conditional", "minimum"]))
def test_a_child_never_exceeds_its_parent(tree: Taxonomy, batch: int, seed: int, hierarchy: Hierarchy) -> None:
    rng = np.random.default_rng(seed)
    units = rng.random((batch, len(tree))).astype(np.float32)
    units[rng.random(units.shape) < 0.2] = 1.0
    found = along_paths(torch.from_numpy(units), tree, hierarchy).numpy()
    for child, parent in enumerate(tree.parents):
        if parent is not None:
            assert (found[:, child] <= found[:, parent]).all()
        along = units[:, tree.path(child)]
        expected = along.prod(1) if hierarchy == "conditional" else along.min(1)
        np.testing.assert_allclose(found[:, child], expected, rtol=1e-5)
