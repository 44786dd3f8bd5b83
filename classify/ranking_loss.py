"""A loss of the order of images: present ones above absent ones by a margin, a smooth stand-in for 1 - AUROC."""

from __future__ import annotations

import torch
from torch import Tensor

from classify.labels import PRESENT_ABOVE


def auc_margin(logits: Tensor, values: Tensor, mask: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The squared hinge of every pair of a present and an absent image, averaged within each finding.

    L_k = 1/(|P||N|) Σ_{i∈P, j∈N} max(0, m - (p_i - p_j))², p = σ(l), over the images given: one batch (Gao and Zhou
    2015 show it consistent with AUROC; Yuan et al. 2021 give a min-max form of it for deep networks). For m >= 1 no
    pair ever leaves the loss. Time n·log n and memory n, by sums over sorted scores, so that a whole validation set
    may be given at once (Rust and Hocking 2023).

    Args:
        logits: `(n, k)`.
        values: `(n, k)`; present above one half.
        mask: `(n, k)` bool, True where the label counts.
        margin: m > 0.

    Returns:
        L `(k,)`, 0 where a finding lacks either kind; and `(k,)` bool, True where it has both.
    """
    score = logits.T.contiguous().double().sigmoid()  # (k, n); doubles, for differences of long sums follow
    present = (mask & (values > PRESENT_ABOVE)).T.to(score.dtype)
    absent = (mask & (values <= PRESENT_ABOVE)).T.to(score.dtype)
    ranked, order = score.sort(dim=1)
    weight = absent.gather(1, order)
    # Sums over the absent images from each rank upwards, of 1, p and p²; past the last, 0.
    sums = [
        torch.nn.functional.pad(part.flip(1).cumsum(1).flip(1), (0, 1))
        for part in (weight, weight * ranked, weight * ranked.square())
    ]
    gap = margin - score  # (k, n): the hinge of i with j is gap_i + p_j
    first = torch.searchsorted(ranked.detach(), -gap.detach(), right=True)
    count, linear, square = (part.gather(1, first) for part in sums)
    hinges = gap.square() * count + 2 * gap * linear + square
    pairs = present.sum(1) * absent.sum(1)
    return ((present * hinges).sum(1) / pairs.clamp(min=1)).to(logits.dtype), pairs > 0
