"""Phases of a training: the whole model, then, where asked for, the last layer alone.

Conditional training shows a child finding only images whose parents are present. The second phase (Chen et al. 2019)
freezes everything but the last layer and trains that on all data. Taken literally, without the child mask, it turns the
children's outputs from conditionals into marginals, and a product along the path counts the parent twice; so the mask
stays unless it is dropped on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import nn

from classify.labels import Targets
from classify.loss import Loss
from classify.study_network import Network, classifiers_of
from classify.target_source import TargetSource
from weakray.config import StrictModel


class SecondPhaseConfig(StrictModel):
    """After training: the last layer alone, from the best epoch on, everything before it frozen."""

    epochs: int | None = Field(None, ge=1, description="epochs of the last layer alone; null: no second phase")
    lr: float | None = Field(None, gt=0, description="its peak learning rate; null: optimizer.lr")
    child_mask: bool = Field(
        True, description="count a child only where its parents are present, as before; false: on all images"
    )


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        epochs: at most.
        lr: peak learning rate for `optimizer.lr_batch_size` images or studies a step.
        targets: what the loss compares train images with.
        val: what it compares val images with.
        criterion: the loss.
        last_layer_only: everything else stays as it is, running statistics and dropout too.
    """

    epochs: int
    lr: float
    targets: TargetSource
    val: Targets
    criterion: Loss
    last_layer_only: bool = False

    def freeze(self, model: Network) -> None:
        """Says which parameters learn, and forgets the gradients of before: they would count in the clipped norm."""
        model.zero_grad(set_to_none=True)
        model.requires_grad_(not self.last_layer_only)
        for layer in last_layers(model):
            layer.requires_grad_(True)

    def set_mode(self, model: Network) -> None:
        """Puts the model in train mode, or only its last layer."""
        model.train(not self.last_layer_only)
        for layer in last_layers(model):
            layer.train()


def last_layers(model: Network) -> list[nn.Module]:
    """What makes findings of features: the head, and the one that says "uncertain" where there is one."""
    heads = [head for own in classifiers_of(model) for head in (own.scorer, own.uncertain)]
    return [head for head in heads if head is not None]
