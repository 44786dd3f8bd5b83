"""Maps of probabilities in a class tree against autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from camgen.maps import MapName, raw_maps
from camgen.methods.gradient import gradient_map
from camgen.methods.target import Target, Tree, explained_by, slopes
from classify.hierarchy import Hierarchy
from tests.camgen.makers import TinyClassifier
from weakray.errors import ConfigError

# 2 is the root, 0 its child, 3 a child of 0; 1 stands alone.
PARENTS, TOP_DOWN = [2, None, None, 0], [1, 2, 0, 3]
SLOPE, OFFSET = torch.tensor([0.5, 2.0, 1.5, 1.0]), torch.tensor([0.1, -0.2, 0.3, 0.4])


def tree(hierarchy: Hierarchy = "conditional") -> Tree:
    return Tree(PARENTS, TOP_DOWN, hierarchy, SLOPE, OFFSET)


def probability(logits: Tensor, path: list[int]) -> Tensor:
    p = torch.ones(len(logits), dtype=logits.dtype)
    for k in path:
        p = p / (1 + torch.exp(-(SLOPE[k] * logits[:, k] + OFFSET[k])))
    return p


@pytest.mark.parametrize("n", [1, 3])
def test_gradcam_and_hirescam_of_probabilities_equal_autograd(n: int) -> None:
    model = TinyClassifier(4, seed=n).double().eval()
    images = torch.rand(n, 1, 20, 28, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    targets: dict[Target, list[list[int]]] = {
        "conditional": [[0], [1], [2], [3]],
        "probability": [[2, 0], [1], [2], [2, 0, 3]],
    }
    wanted = [
        MapName(0, method, "last", k, target)
        for method in ("gradcam", "hirescam")
        for target in targets
        for k in range(4)
    ]
    found = raw_maps(model, images, wanted, tree=tree()).maps
    assert model.passes == 1
    a = model.features(images).detach().requires_grad_(True)
    shown = 0
    for target, paths in targets.items():
        for k, path in enumerate(paths):
            g = torch.autograd.grad(probability(model.head(a).logits, path).sum(), a)[0]
            for method in ("gradcam", "hirescam"):
                expected = gradient_map(method, a.detach(), g)  # type: ignore[arg-type]
                assert torch.allclose(found[MapName(0, method, "last", k, target)], expected, rtol=1e-8, atol=1e-12)
                shown += int(expected.max() > 0)
    assert shown > 8


def test_slopes_are_those_of_the_formula() -> None:
    logits = torch.tensor([[0.3, -1.0, 1.2, -0.4]], dtype=torch.float64)
    plain = Tree(PARENTS, TOP_DOWN, "conditional", torch.ones(4), torch.zeros(4))
    # P_3 = σ(1.2) σ(0.3) σ(-0.4); ∂P_3/∂l_j = P_3 (1 − σ(l_j)).
    s = {2: 0.76852478, 0: 0.57444252, 3: 0.40131234}
    p = s[2] * s[0] * s[3]
    expected = torch.tensor([[p * (1 - s[0]), 0.0, p * (1 - s[2]), p * (1 - s[3])]], dtype=torch.float64)
    assert torch.allclose(slopes("probability", logits, 3, plain), expected, rtol=1e-6)
    assert slopes("logit", logits, 3, plain).tolist() == [[0, 0, 0, 1]]
    own = slopes("conditional", logits, 3, plain)
    assert torch.allclose(own, torch.tensor([[0, 0, 0, s[3] * (1 - s[3])]], dtype=torch.float64))
    assert torch.equal(slopes("probability", logits, 3, tree("none")).nonzero(), torch.tensor([[0, 3]]))
    assert torch.equal(slopes("probability", logits, 3, tree("minimum")).nonzero(), torch.tensor([[0, 3]]))
    assert explained_by("probability", 3, tree()) == [3, 0, 2]
    assert explained_by("conditional", 3, tree()) == explained_by("probability", 3, tree("none")) == [3]


def test_without_a_tree_a_probability_is_the_logits_sigmoid() -> None:
    model, images = TinyClassifier(2).eval(), torch.rand(3, 1, 20, 28, generator=torch.Generator().manual_seed(0))
    names = [MapName(0, "gradcam", "last", 1), MapName(0, "gradcam", "last", 1, "probability")]
    found = raw_maps(model, images, names)
    p = found.logits[:, 1].sigmoid()
    assert torch.allclose(found.maps[names[1]], (p * (1 - p))[:, None, None] * found.maps[names[0]])


def test_methods_that_are_not_linear_in_the_gradient_are_refused() -> None:
    wanted = [MapName(0, "layercam", "last", 0, "probability")]
    with pytest.raises(
        ConfigError, match=r"layercam: expected target logit; .* which gradcam, hirescam, xgradcam have"
    ):
        raw_maps(TinyClassifier(2).eval(), torch.rand(1, 1, 20, 28), wanted)
    with pytest.raises(ConfigError, match=r"method: expected one of gradcam, .*; got 'gradkam'"):
        raw_maps(TinyClassifier(2).eval(), torch.rand(1, 1, 20, 28), [MapName(0, "gradkam", "last", 0)])
