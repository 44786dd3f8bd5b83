"""Losses of single (image, finding) pairs: logits `(n, k)` and targets `(n, k)` in [0, 1] → losses `(n, k)`.

p = σ(l). All are sums of y·L₊(p) and (1 - y)·L₋(p), so soft targets y mean what they say. They are computed from
log p = logσ(l) and log(1 - p) = logσ(-l), so that value and gradient stay finite where p rounds to 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def cross_entropy(logits: Tensor, values: Tensor, positive_weight: Tensor | None) -> Tensor:
    """-[w·y·log p + (1 - y)·log(1 - p)].

    Args:
        logits: `(n, k)`.
        values: `(n, k)`, y.
        positive_weight: `(k,)`, w; None: 1.
    """
    return binary_cross_entropy_with_logits(logits, values, pos_weight=positive_weight, reduction="none")


def two_sided(logits: Tensor, values: Tensor, positive_weight: Tensor, negative_weight: Tensor) -> Tensor:
    """-[w₊·y·log p + w₋·(1 - y)·log(1 - p)], the weights `(k,)`."""
    return -(positive_weight * values * logsigmoid(logits) + negative_weight * (1 - values) * logsigmoid(-logits))


def focal(logits: Tensor, values: Tensor, positive_gamma: float, negative_gamma: float, alpha: float | None) -> Tensor:
    """-[a·y·(1 - p)^γ₊·log p + (1 - a)·(1 - y)·p^γ₋·log(1 - p)] (Lin et al. 2017, with a γ for either kind).

    Args:
        logits: `(n, k)`.
        values: `(n, k)`, y.
        positive_gamma: γ₊ >= 0.
        negative_gamma: γ₋ >= 0.
        alpha: a in [0, 1]; None: both kinds have weight 1.
    """
    log_p, log_rest = logsigmoid(logits), logsigmoid(-logits)
    # A power taken of the logarithm: x^γ itself has no finite slope at 0 for γ < 1.
    present = (positive_gamma * log_rest).exp() * log_p
    absent = (negative_gamma * log_p).exp() * log_rest
    high, low = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return -(high * values * present + low * (1 - values) * absent)


def asymmetric(logits: Tensor, values: Tensor, positive_gamma: float, negative_gamma: float, margin: float) -> Tensor:
    """-[y·(1 - p)^γ₊·log p + (1 - y)·q^γ₋·log(1 - q)], q = max(p - m, 0) (Ridnik et al. 2021).

    The margin m takes what is safely absent out of the loss altogether.

    Args:
        logits: `(n, k)`.
        values: `(n, k)`, y.
        positive_gamma: γ₊ >= 0.
        negative_gamma: γ₋ >= 0.
        margin: m in [0, 1).
    """
    if margin == 0:
        return focal(logits, values, positive_gamma, negative_gamma, None)
    log_p = logsigmoid(logits)
    present = (positive_gamma * logsigmoid(-logits)).exp() * log_p
    shifted = log_p.exp() - margin
    # Where q = 0 any other number may stand: the factor is chosen away, and must not bring an infinite slope along.
    power = (negative_gamma * shifted.where(shifted > 0, torch.ones_like(shifted)).log()).exp()
    absent = power * (torch.sigmoid(-logits) + margin).clamp(max=1).log()
    return -(values * present + (1 - values) * absent)


def three_classes(
    logits: Tensor, uncertain: Tensor, values: Tensor, smoothing: float, positive_weight: Tensor | None
) -> Tensor:
    """Cross-entropy of the softmax over absent (logit 0), present (l) and uncertain (u): -Σ w_c·t_c·log softmax_c.

    Used with uncertain labels as a class of their own; at inference p = σ(l), which is present against absent alone.

    Args:
        logits: `(n, k)`, l.
        uncertain: `(n, k)`, u.
        values: `(n, k)`: y in [0, 1], or below 0 for the third class.
        smoothing: s in [0, 1): t is (1 - s) of the target and s spread evenly over the three.
        positive_weight: `(k,)`, w of present; None: 1.
    """
    logs = torch.stack([torch.zeros_like(logits), logits, uncertain], dim=-1).log_softmax(-1)  # (n, k, 3)
    unsure, present = (values < 0).to(logits.dtype), values.clamp(min=0)
    wanted = torch.stack([1 - unsure - present, present, unsure], dim=-1)
    wanted = (1 - smoothing) * wanted + smoothing / 3
    each = -wanted * logs
    return each.sum(-1) if positive_weight is None else each[..., 0] + positive_weight * each[..., 1] + each[..., 2]


def path_cross_entropy(
    logits: Tensor, values: Tensor, parents: Sequence[int | None], top_down: Sequence[int]
) -> Tensor:
    """-[y·log P + (1 - y)·log(1 - P)] of a finding's own probability P = Π σ(l) along its path (Chen et al. 2020).

    The logits are conditionals; the loss is of the products, so a label counts whether or not its ancestors' do.

    Args:
        logits: `(n, k)`.
        values: `(n, k)`, y.
        parents: class id of each finding's parent, None for a root.
        top_down: class ids, parents first.
    """
    log_p, log_rest = path_logs(logits, parents, top_down)
    return -(values * log_p + (1 - values) * log_rest)


def path_logs(logits: Tensor, parents: Sequence[int | None], top_down: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The logarithms of P and of 1 - P, each `(n, k)`, P = Π σ(l) along each finding's path.

    log P is a sum of logσ. 1 - P is what is absent above plus what is present there and absent here, so

        log(1 - P) = logaddexp(log(1 - P_parent), log P_parent + logσ(-l)).

    Nothing is subtracted, so nothing cancels: the logarithm of 1 - exp(log P) would give 0 or infinity, or an infinite
    slope, where P rounds to 1.
    """
    here, absent_here = logsigmoid(logits), logsigmoid(-logits)
    log_p: dict[int, Tensor] = {}
    log_rest: dict[int, Tensor] = {}
    for child in top_down:
        parent = parents[child]
        if parent is None:
            log_p[child], log_rest[child] = here[:, child], absent_here[:, child]
        else:
            log_p[child] = log_p[parent] + here[:, child]
            log_rest[child] = torch.logaddexp(log_rest[parent], log_p[parent] + absent_here[:, child])
    order = range(len(log_p))
    return torch.stack([log_p[k] for k in order], dim=1), torch.stack([log_rest[k] for k in order], dim=1)
