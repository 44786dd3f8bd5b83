"""Deep feature factorisation: a layer's activations as a few parts, and how much each part speaks for a finding.

Collins, Achanta and Süsstrunk, "Deep Feature Factorization For Concept Discovery", 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camgen.methods.eigen import singular

CONCEPTS = 5
_SWEEPS = 100
_TINY = 1e-12


def factorise(a: Tensor, concepts: int = CONCEPTS) -> tuple[Tensor, Tensor]:
    """Each image's activations as C·H, both >= 0, least squares; negative activations are lifted to 0 by channel first.

    Hierarchical alternating least squares (Cichocki and Phan, 2009) from a start that the singular vectors give
    (Boutsidis and Gallopoulos, 2008): no draw, and no image depends on the others of its batch.

    Args:
        a: `(n, d, h, w)`.
        concepts: parts of an image, at most min(d, h·w) of which are made.

    Returns:
        concepts C `(n, d, r)`, and where they lie, H `(n, r, h, w)`.
    """
    x = a.flatten(2)
    x = x - x.amin(2, keepdim=True).clamp(max=0)
    c, h = _start(x, min(concepts, *x.shape[1:]))
    for _ in range(_SWEEPS):
        c = _sweep(c, x @ h.mT, h @ h.mT)
        h = _sweep(h.mT, x.mT @ c, c.mT @ c).mT
    return c, h.unflatten(2, a.shape[2:])


def concept_map(factors: tuple[Tensor, Tensor], g: Tensor) -> Tensor:
    """One finding's map: Σ_r relu(mean_hw(g)·C_r) H_r, the parts that raise its logit, as strongly as they do.

    Args:
        factors: of `factorise`.
        g: the finding's gradient `(n, d, h, w)` at the same layer; behind a head that averages a linear map its mean
            is the head's weights / hw.

    Returns:
        `(n, h, w)`, >= 0.
    """
    concepts, where = factors
    weight = torch.relu((g.mean((2, 3))[..., None] * concepts).sum(1))  # (n, r)
    return (weight[..., None, None] * where).sum(1)


def _sweep(own: Tensor, cross: Tensor, gram: Tensor) -> Tensor:
    """One pass over the columns of `own` `(n, q, r)`; `cross` `(n, q, r)` and `gram` `(n, r, r)` of the other."""
    columns = list(own.unbind(2))
    for j in range(len(columns)):
        others = sum(
            (columns[i] * gram[:, i, j, None] for i in range(len(columns)) if i != j), torch.zeros_like(columns[j])
        )
        columns[j] = torch.relu((cross[..., j] - others) / gram[:, j, j, None].clamp(min=_TINY))
    return torch.stack(columns, 2)


def _start(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The larger of each singular pair's positive and negative parts; zeros are filled with a little of the mean."""
    left, size, right = singular(x.double(), count)
    parts = [(torch.relu(side * left), torch.relu(side * right)) for side in (1.0, -1.0)]
    weights = [one.norm(dim=1) * other.norm(dim=1) for one, other in parts]
    chosen = (weights[0] >= weights[1])[:, None]
    root = (size * torch.maximum(*weights)).sqrt()[:, None]
    fill = 0.01 * x.double().mean((1, 2)).sqrt()[:, None, None]
    factors = []
    for i in (0, 1):
        part = torch.where(chosen, parts[0][i], parts[1][i])
        scaled = root * part / part.norm(dim=1, keepdim=True).clamp(min=_TINY)
        factors.append(torch.where(scaled > 0, scaled, fill).to(x.dtype))
    return factors[0], factors[1].mT
