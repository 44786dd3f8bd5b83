"""Maps from the gradients of each logit with respect to the last features.

The gradients go through the head alone, so k findings cost one backbone pass and k passes of the (cheap) head. Any
head that is differentiable in its features will do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor


def gradient_maps(
    logits_of: Callable[[Tensor], Tensor], features: Tensor, methods: Collection[str]
) -> dict[str, Tensor]:
    """Grad-CAM and HiResCAM of all findings.

    With A the features and g = d logit_k / d A:
    Grad-CAM (Selvaraju et al., 2017) is relu(sum_c mean_hw(g_c) A_c); HiResCAM (Draelos and Carin, 2020) is
    relu(sum_c g_c A_c), the gradient kept at each place.

    Args:
        logits_of: the head, features `(n, d, h, w)` → logits `(n, k)`; images must not mix in it.
        features: `(n, d, h, w)`, from a pass without gradients.
        methods: among `gradcam`, `hirescam`.

    Returns:
        method → maps `(n, k, h, w)`, >= 0, on the scale of logits.
    """
    leaf = features.detach().requires_grad_(True)
    found: dict[str, list[Tensor]] = {method: [] for method in methods}
    with torch.enable_grad():
        logits = logits_of(leaf)
        for k in range(logits.shape[1]):
            # Images do not mix in the head, so the gradient of the sum is each image's own gradient.
            (slope,) = torch.autograd.grad(logits[:, k].sum(), leaf, retain_graph=k + 1 < logits.shape[1])
            if "gradcam" in found:
                weights = slope.mean(dim=(2, 3), keepdim=True)
                found["gradcam"].append(torch.relu((weights * features).sum(dim=1)))
            if "hirescam" in found:
                found["hirescam"].append(torch.relu((slope * features).sum(dim=1)))
    return {method: torch.stack(maps, dim=1).detach() for method, maps in found.items()}
