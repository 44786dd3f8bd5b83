"""Maps along the first principal direction of a layer's activations, with no question asked of the head.

Eigen-CAM: Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor


def principal_map(a: Tensor) -> Tensor:
    """Projection of each place's channels on the first right singular vector of the centred `(hw, d)` matrix.

    Sign: a singular vector has none, so we choose the direction v that the mean activation points along, v·mean(A) > 0:
    what is active is bright. Where v·mean(A) is 0, the projection's extreme is positive. Then ReLU.

    Args:
        a: `(n, d, h, w)`: activations A for Eigen-CAM, gradient times activation g·A for Eigen-Grad-CAM.

    Returns:
        `(n, h, w)`, >= 0, on the scale of `a`; zeros where all places are equal.
    """
    flat = a.flatten(2).double()
    mean = flat.mean(2, keepdim=True)
    direction, size, along = singular(flat - mean, 1)
    projection = (along * size[:, None])[..., 0]  # (n, hw)
    toward = (direction[..., 0] * mean[..., 0]).sum(1)
    extreme = projection.gather(1, projection.abs().argmax(1, keepdim=True))[:, 0]
    sign = torch.where(toward != 0, toward, extreme).sign()
    return torch.relu(projection * sign[:, None]).unflatten(1, a.shape[2:]).to(a.dtype)


def singular(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values and their vectors, through the smaller of the two Gram matrices.

    Args:
        x: `(n, d, p)` float64: squaring costs half of the digits.
        count: how many, at most min(d, p).

    Returns:
        left vectors `(n, d, count)`, values `(n, count)` in falling order, right vectors `(n, p, count)`; vectors of a
        value that is 0 are 0 on the longer side.
    """
    turned = x.shape[1] < x.shape[2]
    tall = x.mT if turned else x  # (n, long, short)
    values, vectors = torch.linalg.eigh(tall.mT @ tall)
    short = vectors[..., -count:].flip(-1)
    size = values[:, -count:].flip(-1).clamp(min=0).sqrt()
    # A direction whose value drowns in rounding is noise, of any length once divided by it.
    size = torch.where(size > 1e-7 * size[:, :1], size, torch.zeros(()).to(size))
    long = (tall @ short) * torch.where(size > 0, 1 / size, size)[:, None]
    return (short, size, long) if turned else (long, size, short)
