"""The training loss: its settings, and how losses of pairs or of findings become one number.

Every loss is a sum over what counts and the number of what counts (`LossTerms`); its value is their quotient, so it
does not scale with the batch. Where several processes share a batch, the number is to be added up over all of them
before dividing: the mean of the processes' means is another figure wherever labels are masked. Where their gradients
are then averaged, each process descends on total · processes / (sum of all numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from classify.balance import chexnet_weights, inverse_frequency, named_weights, positive_weights
from classify.hierarchy import Hierarchy
from classify.labels import UNSURE, Targets, conditional
from classify.pair_losses import asymmetric, cross_entropy, focal, path_cross_entropy, three_classes, two_sided
from classify.ranking_loss import auc_margin
from weakray.config import StrictModel
from weakray.errors import ConfigError
from weakray.taxonomy import Taxonomy

LossKind = Literal["bce", "chexnet", "focal", "asl", "auc_margin", "unconditional"]
Criterion = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # as `Loss.__call__`
Pairwise = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # logits, values, uncertain → losses, all (n, k)


class FocalConfig(StrictModel):
    """Focal loss: pairs that are already right weigh little."""

    positive_gamma: float = Field(2.0, ge=0, description="power of 1 - p on present findings; 0: none")
    negative_gamma: float = Field(2.0, ge=0, description="power of p on absent findings; 0: none")
    alpha: float | None = Field(None, ge=0, le=1, description="weight of present findings, 1 - alpha of absent ones")


class AsymmetricConfig(StrictModel):
    """Asymmetric loss: focal, and what is safely absent counts nothing."""

    positive_gamma: float = Field(1.0, ge=0, description="power of 1 - p on present findings; 0: none")
    negative_gamma: float = Field(2.0, ge=0, description="power of p on absent findings; 0: none")
    margin: float = Field(0.025, ge=0, lt=1, description="absent findings of lower probability count nothing")


class AucMarginConfig(StrictModel):
    """Loss of the order within a batch."""

    margin: float = Field(
        1.0, gt=0, description="how far a present finding's probability should exceed an absent one's"
    )


class LossConfig(StrictModel):
    """What is minimised."""

    kind: LossKind = Field(
        "bce",
        description="bce; chexnet: both kinds weigh the same; focal; asl: asymmetric; auc_margin: order within a "
        "batch; unconditional: cross-entropy of the products along the class tree",
    )
    pos_weight_cap: float | None = Field(
        10.0, ge=1, description="bce: largest weight of the positives of a rare finding; null: no weight"
    )
    class_weights: Literal["inverse_frequency"] | dict[str, float] | None = Field(
        None, description="weight of each finding: inverse_frequency, or by name (1 for the others); null: all 1"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each target that is spread evenly; not for auc_margin, unconditional"
    )
    focal: FocalConfig = Field(FocalConfig(), description="settings of focal")
    asl: AsymmetricConfig = Field(AsymmetricConfig(), description="settings of asl")
    auc_margin: AucMarginConfig = Field(AucMarginConfig(), description="settings of auc_margin")


class LossTerms(NamedTuple):
    """A loss before the division."""

    total: Tensor  # (), sum over what counts
    counted: Tensor  # (), how many pairs (of auc_margin: findings) count

    def mean(self) -> Tensor:
        """Their quotient `()`; 0 where nothing counts."""
        return self.total / self.counted.clamp(min=1)


@dataclass(frozen=True)
class Loss:
    """A loss of logits, targets and mask, each `(n, k)`; a `Criterion`.

    auc_margin compares the images given with each other: with several processes, those of one process. The others
    give the same total and number however a batch is cut into parts.

    Attributes:
        of: logits, values as in `Targets`, mask, and the model's logits of the third class (None where it has none),
            all `(n, k)` → terms.
    """

    of: Callable[[Tensor, Tensor, Tensor, Tensor | None], LossTerms]

    def terms(self, logits: Tensor, values: Tensor, mask: Tensor, uncertain: Tensor | None = None) -> LossTerms:
        """The loss before the division.

        Args:
            logits: `(n, k)`.
            values: `(n, k)`, as in `Targets`.
            mask: `(n, k)` bool, True where the pair counts.
            uncertain: `(n, k)`, the model's logits of the third class; None where it has none.

        Raises:
            ConfigError: if a finding has a third class and `uncertain` is None.
        """
        return self.of(logits, values, mask, uncertain)

    def __call__(self, logits: Tensor, values: Tensor, mask: Tensor, uncertain: Tensor | None = None) -> Tensor:
        """The mean `()` over what counts, 0 where nothing does; arguments as of `terms`."""
        return self.terms(logits, values, mask, uncertain).mean()


def criterion(config: LossConfig, counted: Targets, device: torch.device, taxonomy: Taxonomy) -> Loss:
    """The loss for labels as frequent as these.

    Args:
        config: which, and how.
        counted: all training targets, for the weights that follow from their frequency.
        device: where the logits will be.
        taxonomy: the k findings.

    Raises:
        ConfigError: if settings do not go together, or a weight names no finding.
    """
    if config.label_smoothing and config.kind in ("auc_margin", "unconditional"):
        raise ConfigError(
            f"loss.label_smoothing: expected 0 with loss.kind {config.kind}, got {config.label_smoothing:g}"
        )
    third = ((counted.values == UNSURE) & counted.mask).any(axis=0)
    if third.any() and config.kind != "bce":
        raise ConfigError(f"uncertainty: multiclass goes with loss.kind bce alone, got {config.kind}; change either")
    match config.class_weights:
        case None:
            weight: Tensor | float = 1.0
        case "inverse_frequency":
            weight = torch.from_numpy(inverse_frequency(counted)).to(device)
        case named:
            weight = torch.from_numpy(named_weights(taxonomy.names, named)).to(device)
    share = config.label_smoothing

    def smooth(values: Tensor) -> Tensor:
        return values * (1 - share) + share / 2 if share else values

    def of_pairs(each: Pairwise) -> Loss:
        return Loss(partial(_of_pairs, each, weight))

    match config.kind:
        case "bce":
            cap = config.pos_weight_cap
            rare = None if cap is None else torch.from_numpy(positive_weights(counted, cap)).to(device)
            if third.any():
                return of_pairs(_with_third_class(torch.from_numpy(third).to(device), share, rare, smooth))
            return of_pairs(lambda logits, values, _: cross_entropy(logits, smooth(values), rare))
        case "chexnet":
            high, low = (torch.from_numpy(weights).to(device) for weights in chexnet_weights(counted))
            return of_pairs(lambda logits, values, _: two_sided(logits, smooth(values), high, low))
        case "focal":
            powers = config.focal.positive_gamma, config.focal.negative_gamma
            return of_pairs(lambda logits, values, _: focal(logits, smooth(values), *powers, config.focal.alpha))
        case "asl":
            asl = config.asl.positive_gamma, config.asl.negative_gamma, config.asl.margin
            return of_pairs(lambda logits, values, _: asymmetric(logits, smooth(values), *asl))
        case "unconditional":
            tree = taxonomy.parents, taxonomy.top_down
            return of_pairs(lambda logits, values, _: path_cross_entropy(logits, values, *tree))
        case "auc_margin":
            return Loss(partial(_of_findings, config.auc_margin.margin, weight))


def _of_pairs(
    each: Pairwise, weight: Tensor | float, logits: Tensor, values: Tensor, mask: Tensor, uncertain: Tensor | None
) -> LossTerms:
    return LossTerms((each(logits, values, uncertain) * weight * mask).sum(), mask.sum())


def _of_findings(
    margin: float, weight: Tensor | float, logits: Tensor, values: Tensor, mask: Tensor, _: Tensor | None
) -> LossTerms:
    found, both = auc_margin(logits, values, mask, margin)
    return LossTerms((found * weight).sum(), both.sum())


def _with_third_class(
    third: Tensor, share: float, positive_weight: Tensor | None, smooth: Callable[[Tensor], Tensor]
) -> Pairwise:
    """Three classes for the findings `third` `(k,)`, two for the others."""

    def each(logits: Tensor, values: Tensor, uncertain: Tensor | None) -> Tensor:
        if uncertain is None:
            raise ConfigError(
                "uncertainty: multiclass needs a model with logits of uncertain findings, and this one has none; "
                "choose another policy"
            )
        of_three = three_classes(logits, uncertain, values, share, positive_weight)
        return torch.where(third, of_three, cross_entropy(logits, smooth(values), positive_weight))

    return each


def counted_targets(kind: LossKind, full: Targets, taxonomy: Taxonomy, hierarchy: Hierarchy) -> Targets:
    """The targets that the loss sees: under the conditional hierarchy a child counts where its parents are present.

    The unconditional cross-entropy sees every label, because it compares with the products along the tree.

    Raises:
        ConfigError: if the loss is unconditional and the hierarchy is not conditional.
    """
    if kind == "unconditional":
        if hierarchy != "conditional":
            raise ConfigError(
                "loss.kind: unconditional trains conditionals through their products; "
                f"expected hierarchy conditional, got {hierarchy}"
            )
        return full
    return conditional(full, taxonomy) if hierarchy == "conditional" else full
