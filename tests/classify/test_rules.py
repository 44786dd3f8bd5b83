"""Every combination rule by hand, under every class tree, and in the exported graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from classify.hierarchy import Hierarchy, along_paths, tree_walk
from classify.rules import RULES, WEIGHTED, Rule, combine
from tests.classify.conftest import TREE
from tests.classify.test_hierarchy import trees
from weakray.stack import silence
from weakray.taxonomy import Taxonomy

# Odds of two findings by three members: probabilities 1/2, 3/4, 1/5 and 4/5 throughout.
LOGITS = torch.log(torch.tensor([[[1.0, 4.0]], [[3.0, 4.0]], [[0.25, 4.0]]]))
WEIGHTS = torch.tensor([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", (0.5 + 0.75 + 0.2) / 3),
        ("min", 0.2),
        ("max", 0.75),
        ("median", 0.5),
        ("geometric", (0.5 * 0.75 * 0.2) ** (1 / 3)),
        ("logit_mean", 0.75 ** (1 / 3) / (1 + 0.75 ** (1 / 3))),
        ("weighted", 0.5 * 0.5 + 0.25 * 0.75 + 0.25 * 0.2),
        ("greedy", 0.5 * 0.5 + 0.25 * 0.75 + 0.25 * 0.2),
        ("weighted_logit", 0.75**0.25 / (1 + 0.75**0.25)),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_by_hand(rule: Rule, expected: float, batch: int) -> None:
    found = combine(LOGITS.expand(3, batch, 2), rule, WEIGHTS if rule in WEIGHTED else None)
    assert found.shape == (batch, 2)
    torch.testing.assert_close(found, torch.tensor([[expected, 0.8]]).expand(batch, 2))


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    found = combine(torch.cat([LOGITS, LOGITS[1:2]]), "median")
    torch.testing.assert_close(found, torch.tensor([[(0.5 + 0.75) / 2, 0.8]]))


def test_a_renormalised_geometric_mean_is_the_logit_mean() -> None:
    present, absent = combine(LOGITS, "geometric"), combine(-LOGITS, "geometric")
    torch.testing.assert_close(present / (present + absent), combine(LOGITS, "logit_mean"))


def test_of_one_member_every_rule_makes_the_same() -> None:
    for rule in RULES:
        found = combine(LOGITS[:1], rule, torch.ones(1) if rule in WEIGHTED else None)
        torch.testing.assert_close(found, LOGITS[0].sigmoid())


@pytest.mark.parametrize("rule", WEIGHTED)
def test_a_weighted_rule_without_weights_is_refused(rule: Rule) -> None:
    with pytest.raises(ValueError, match=f"{rule}: expected a weight for each member, got none"):
        combine(LOGITS, rule)


@given(
    tree=trees(),
    members=st.integers(1, 5),
    batch=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31),
    rule=st.sampled_from(RULES),
    hierarchy=st.sampled_from(["conditional", "minimum"]),
)
def test_a_child_never_exceeds_its_parent_under_any_rule(
    tree: Taxonomy, members: int, batch: int, seed: int, rule: Rule, hierarchy: Hierarchy
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (members, batch, len(tree))).astype(np.float32)
    logits[rng.random(logits.shape) < 0.3] = 60.0  # certain: sums of rounded weights must not pass 1
    weights = rng.dirichlet(np.ones(members)).astype(np.float32)
    units = combine(torch.from_numpy(logits), rule, torch.from_numpy(weights) if rule in WEIGHTED else None)
    found = along_paths(units, tree, hierarchy)
    assert ((found >= 0) & (found <= 1)).all()
    for child, parent in enumerate(tree.parents):
        if parent is not None:
            assert (found[:, child] <= found[:, parent]).all()


class Combination(nn.Module):
    """Logits → probabilities, as inside the ensemble's graph."""

    def __init__(self, rule: Rule, weights: Tensor) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("weights", weights if rule in WEIGHTED else None)

    weights: Tensor | None

    def forward(self, logits: Tensor) -> Tensor:
        units = combine(logits, self.rule, self.weights)
        return tree_walk(units, TREE.parents, TREE.top_down, "conditional")


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_exports(rule: Rule, members: int, tmp_path: Path) -> None:
    silence()
    import onnxruntime

    generator = torch.Generator().manual_seed(members)
    module = Combination(rule, torch.rand(members, generator=generator).softmax(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter is deprecated, as in classify.export
        torch.onnx.export(
            module,
            (torch.zeros(members, 2, 4),),
            tmp_path / "rule.onnx",
            input_names=["logits"],
            dynamic_axes={"logits": {1: "n"}},
            opset_version=18,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "rule.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        logits = torch.randn(members, batch, 4, generator=generator) * 3
        found = np.asarray(session.run(None, {"logits": logits.numpy()})[0])
        np.testing.assert_allclose(found, module(logits).numpy(), atol=1e-5)
