"""The small baseline: four convolutions, trained from scratch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from weakray.config import StrictModel

SMALL_CNN = "small_cnn"


class SmallCnnConfig(StrictModel):
    """The network behind `backbone: small_cnn`."""

    channels: int = Field(80, ge=1, description="of the first layer; each further one has twice as many")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of the last map's values that training sets to 0")


class SmallCnn(nn.Module):
    """Four times 3×3 convolution, batch norm, ReLU, 2×2 max pool, with c, 2c, 4c and 8c channels.

    Has of a timm model what a classifier asks of one.

    Attributes:
        num_features: channels of the last map, 8c.
        feature_info: of the last map; a cell is 16 px wide.
        pretrained_cfg: mean and deviation that images are normalised by.
    """

    def __init__(self, config: SmallCnnConfig, in_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *(config.channels * 2**i for i in range(4))]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(4):
            layers[f"conv{i + 1}"] = nn.Conv2d(widths[i], widths[i + 1], 3, padding=1, bias=False)
            layers[f"norm{i + 1}"] = nn.BatchNorm2d(widths[i + 1])
            layers[f"relu{i + 1}"] = nn.ReLU(inplace=True)
            layers[f"pool{i + 1}"] = nn.MaxPool2d(2)
        layers["dropout"] = nn.Dropout(config.dropout)
        self.layers = nn.Sequential(layers)
        self.num_features = widths[-1]
        self.feature_info: list[dict[str, Any]] = [{"num_chs": widths[-1], "reduction": 16}]
        self.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # ImageNet's

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images `(n, c, s, s)` → the last map `(n, 8c, s/16, s/16)`."""
        found: Tensor = self.layers(images)
        return found
