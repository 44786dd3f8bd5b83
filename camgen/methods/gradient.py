"""Maps from a layer's activations A and the gradient g = d logit_k / d A, both `(n, d, h, w)`.

All give `(n, h, w)` on the scale of logits. Images must not mix in the network, so that the gradient of a
batch's sum is each image's own gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

GradientMethod = Literal["gradcam", "hirescam", "elementwise", "gradcam++", "xgradcam", "layercam"]
# Linear in g before the ReLU: the map of a sum of logits is the sum of their maps.
LINEAR: frozenset[str] = frozenset({"gradcam", "hirescam", "xgradcam"})
_TINY = 1e-7


def gradient_map(method: GradientMethod, a: Tensor, g: Tensor) -> Tensor:
    """One finding's map, >= 0: `signed_map` and a ReLU."""
    return torch.relu(signed_map(method, a, g))


def signed_map(method: GradientMethod, a: Tensor, g: Tensor) -> Tensor:
    """One finding's map before the last ReLU.

    - `gradcam` (Selvaraju et al., 2017): relu(Σ_c mean_hw(g_c) A_c).
    - `hirescam` (Draelos and Carin, 2020): relu(Σ_c g_c A_c), the gradient kept at each place.
    - `elementwise` (GradCAMElementWise of pytorch-grad-cam): Σ_c relu(g_c A_c).
    - `gradcam++` (Chattopadhyay et al., 2018): relu(Σ_c w_c A_c), w_c = Σ_hw α_c relu(g_c),
      α_c = g_c² / (2 g_c² + g_c³ Σ_hw A_c), the third powers standing for third derivatives.
    - `xgradcam` (Fu et al., 2020): relu(Σ_c w_c A_c), w_c = Σ_hw g_c A_c / Σ_hw A_c.
    - `layercam` (Jiang et al., 2021): relu(Σ_c relu(g_c) A_c), good at early, fine layers.
    """
    match method:
        case "gradcam":
            return _weighted(g.mean((2, 3), keepdim=True), a)
        case "hirescam":
            return _weighted(g, a)
        case "elementwise":
            return torch.relu(g * a).sum(1)
        case "layercam":
            return _weighted(torch.relu(g), a)
        case "xgradcam":
            total = a.sum((2, 3), keepdim=True)
            return _weighted((g * a).sum((2, 3), keepdim=True) / (total + _TINY), a)
        case "gradcam++":
            rise = torch.relu(g)  # α counts only where g > 0
            square = rise * rise
            cube = square * rise
            below = 2 * square + 1e-6 + a.sum((2, 3), keepdim=True) * cube
            return _weighted((cube / below).sum((2, 3), keepdim=True), a)


def _weighted(weights: Tensor, a: Tensor) -> Tensor:
    return (weights * a).sum(1)
