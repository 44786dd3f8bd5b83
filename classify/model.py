"""The classifier: a backbone with a spatial last map, and a head."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from classify.backbone import BackboneConfig, last_map, make_backbone, normalisation
from classify.heads import HeadConfig, HeadOutput, make_scorer, pool


class ModelConfig(BackboneConfig):
    """Architecture of one classifier."""

    head: HeadConfig = Field(HeadConfig(), description="what makes logits of the last map")


class Classifier(nn.Module):
    """Backbone and head for k findings.

    Takes prepared images `(n, c, s, s)`, float in [0, 1]; the normalisation is inside.

    Args:
        config: the architecture.
        findings: k.
        uncertain: whether a second head of the same kind says "uncertain"; only training needs it.

    Attributes:
        grid_hw: height and width of the last map.
        conv: the 1×1 convolution of the heads that pool one; in its place others have `fc`, `rnn` or `lstm`.
        uncertain: the second head's scorer, or None.

    Raises:
        ConfigError: if timm does not know the backbone, or it has no spatial map or not the wanted stride.
    """

    def __init__(self, config: ModelConfig, findings: int, uncertain: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config)
        self._last = last_map(self.backbone, config)
        self.grid_hw = self._last.grid_hw
        shape = (config.head, self._last.channels, self.grid_hw, findings)
        self._scorer_name = config.head.kind if config.head.kind in ("fc", "rnn", "lstm") else "conv"
        self.add_module(self._scorer_name, make_scorer(*shape))
        self.uncertain = make_scorer(*shape) if uncertain else None
        self.dropout = nn.Dropout2d(config.head.dropout)
        mean, std = normalisation(self.backbone, config.input.channels)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        # Convolutions are 1.1 to 1.7 times as fast in this memory layout on CPU, and take bf16 best in it on GPU.
        self.to(memory_format=torch.channels_last)

    conv: nn.Conv2d
    mean: Tensor
    std: Tensor

    @property
    def scorer(self) -> nn.Module:
        """What makes the logit maps, whatever its name."""
        return self.get_submodule(self._scorer_name)

    def features(self, images: Tensor) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1] → last map `(n, d, h, w)`."""
        return self._last.read(self.backbone.forward_features((images - self.mean) / self.std))

    def head(self, features: Tensor) -> HeadOutput:
        """Features `(n, d, h, w)` → logits and logit maps, in float32 whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            # Whole channels are dropped: with mean pooling the same as dropping pooled features.
            kept = self.dropout(features.float())
            logit_maps = self.scorer(kept)
            uncertain = None if self.uncertain is None else pool(self.config.head, self.uncertain(kept))
            return HeadOutput(pool(self.config.head, logit_maps), logit_maps, uncertain)

    def forward(self, images: Tensor) -> HeadOutput:
        """Images `(n, c, s, s)` in [0, 1] → logits `(n, k)` and logit maps `(n, k, h, w)`."""
        return self.head(self.features(images))
