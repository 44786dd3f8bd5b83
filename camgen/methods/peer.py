"""Grad-CAM by pytorch-grad-cam, selectable as engine: slower, and its maps are scaled to [0, 1] in each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weakray.stack import silence


class _FromFeatures(nn.Module):
    """Features → logits, with an identity for pytorch-grad-cam to hang its hooks on."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tap = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()))  # the peer asks the first parameter for the device
        self._head = model.head

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self._head(self.tap(features * self.scale)).logits
        return logits


def peer_gradcam(model: Any, features: Tensor) -> Tensor:
    """Grad-CAM of all findings by pytorch-grad-cam, one forward and backward through the head a finding.

    Args:
        model: a module with `.head(features).logits`; gradients that its parameters hold stay as they are.
        features: `(n, d, h, w)`, on the model's device.

    Returns:
        `(n, k, h, w)` in [0, 1]: each map is min–max scaled, so its size says nothing across images; an empty map
        comes back as zeros.
    """
    silence()
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    held = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in held:
        parameter.grad = None
    whole = _FromFeatures(model).to(features.device)
    with torch.no_grad():
        findings = model.head(features).logits.shape[1]
    # The peer resizes to the size of its input; its input here are the features, so maps keep their own size.
    with torch.enable_grad():
        engine = GradCAM(model=whole, target_layers=[whole.tap])
        try:
            maps = [engine(features, [ClassifierOutputTarget(k)] * len(features)) for k in range(findings)]
        finally:
            engine.activations_and_grads.release()
            for parameter, grad in held:
                parameter.grad = grad
    return torch.stack([torch.from_numpy(found) for found in maps], dim=1).to(features)
