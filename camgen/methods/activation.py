"""Maps that stand in the head's output already: no gradient, no further pass."""

from __future__ import annotations

import torch
from torch import Tensor


def pcam(logit_maps: Tensor) -> Tensor:
    """Probability map: the sigmoid of the logit map.

    Ye et al., "Weakly Supervised Lesion Localization With Probabilistic-CAM Pooling", 2020.

    Args:
        logit_maps: `(n, k, h, w)`.

    Returns:
        `(n, k, h, w)` in [0, 1], comparable between images, findings and members.
    """
    return torch.sigmoid(logit_maps)


def logit(logit_maps: Tensor) -> Tensor:
    """The classic class activation map (Zhou et al., 2016): the head's 1x1 convolution at each place, ReLU.

    Args:
        logit_maps: `(n, k, h, w)`.

    Returns:
        `(n, k, h, w)`, >= 0.
    """
    return torch.relu(logit_maps)
