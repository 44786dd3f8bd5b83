"""How members' findings are combined. Torch only, in operations that export to ONNX.

- `mean`, `min`, `max`, `median` of the members' probabilities.
- `geometric`: exp of the mean log probability, not renormalised. Renormalised with the complement's it is `logit_mean`.
- `logit_mean`: σ of the mean logit.
- `weighted`, `weighted_logit`: means of probabilities or of logits under weights fitted on val.
- `greedy`: a mean under weights that forward selection found on val.

Rules act on each finding's own output, before the class tree, so that a child's probability stays below its parent's
whatever the rule.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Rule = Literal["mean", "min", "max", "median", "geometric", "logit_mean", "weighted", "weighted_logit", "greedy"]
RULES: tuple[Rule, ...] = get_args(Rule)
WEIGHTED: tuple[Rule, ...] = ("weighted", "weighted_logit", "greedy")


def combine(logits: Tensor, rule: Rule, weights: Tensor | None = None) -> Tensor:
    """Calibrated logits `(m, n, k)` of m members → `(n, k)` in [0, 1].

    Args:
        logits: before the sigmoid.
        rule: how they are combined.
        weights: `(m,)`, ≥ 0, of sum 1; for the rules in `WEIGHTED` only.

    Raises:
        ValueError: if a weighted rule has no weights.
    """
    match rule:
        case "mean":
            return logits.sigmoid().mean(0)
        case "min":
            return logits.sigmoid().amin(0)
        case "max":
            return logits.sigmoid().amax(0)
        case "median":
            ordered, middle = logits.sigmoid().sort(dim=0).values, len(logits) // 2
            return ordered[middle] if len(logits) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        case "geometric":
            return logsigmoid(logits).mean(0).exp()
        case "logit_mean":
            return logits.mean(0).sigmoid()
    if weights is None:
        raise ValueError(f"{rule}: expected a weight for each member, got none")
    share = weights[:, None, None]
    if rule == "weighted_logit":
        return (logits * share).sum(0).sigmoid()
    # Rounded weights may sum to a little more than 1, and a child's probability must not pass its parent's.
    return torch.clamp((logits.sigmoid() * share).sum(0), max=1)
