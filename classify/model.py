"""The classifier: a timm backbone with a spatial last map, and a PCAM head.

PCAM (Ye et al. 2020): a 1×1 convolution gives a logit map per finding, s = w·X + b; its sigmoid p is the localisation
map; the class logit is the mean of s weighted by p, so each finding has its own weights.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from weakray.config import StrictModel
from weakray.errors import ConfigError
from weakray.imaging import InputSpec
from weakray.stack import silence


class ModelConfig(StrictModel):
    """Architecture of one classifier."""

    backbone: str = Field("resnet18", description="name of a timm model with a spatial last map")
    pretrained: bool = Field(False, description="start from timm's weights (read from its cache, or downloaded)")
    output_stride: Literal[8, 16, 32] | None = Field(16, description="pixels per cell of the map; null: backbone's own")
    drop_stages: int = Field(
        0, ge=0, le=3, description="leave out so many of the backbone's last stages: a finer map of smaller regions"
    )
    input: InputSpec = Field(InputSpec(), description="what the model sees of an image")


class HeadOutput(NamedTuple):
    """What the head makes of features, both raw (before the sigmoid), float32."""

    logits: Tensor  # (n, k)
    logit_maps: Tensor  # (n, k, h, w)


def pcam_pool(logit_maps: Tensor) -> Tensor:
    """Logit maps `(n, k, h, w)` → logits `(n, k)`: Σ s·σ(s) / Σ σ(s) over the map.

    The weights are taken as a softmax of log σ(s), which is the same and has no 0/0 where all of a map is far below 0.
    """
    flat = logit_maps.flatten(2)
    return (flat * nn.functional.logsigmoid(flat).softmax(-1)).sum(-1)


class Classifier(nn.Module):
    """Backbone and PCAM head for k findings.

    Takes prepared images `(n, c, s, s)`, float in [0, 1]; the normalisation is inside.

    Attributes:
        grid_hw: height and width of the last map.

    Raises:
        ConfigError: if timm does not know the backbone, or it has no spatial map or not the wanted stride.
    """

    def __init__(self, config: ModelConfig, findings: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        channels, self.grid_hw, self._last = _probe(self.backbone, config)
        self.conv = nn.Conv2d(channels, findings, kernel_size=1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        mean, std = _normalisation(self.backbone, config.input.channels)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        # Convolutions are 1.1 to 1.7 times as fast in this memory layout on CPU, and take bf16 best in it on GPU.
        self.to(memory_format=torch.channels_last)

    mean: Tensor
    std: Tensor

    def features(self, images: Tensor) -> Tensor:
        """Images `(n, c, s, s)` in [0, 1] → last map `(n, d, h, w)`."""
        found: Tensor = self.backbone.forward_features((images - self.mean) / self.std)
        return found.permute(0, 3, 1, 2) if self._last else found

    def head(self, features: Tensor) -> HeadOutput:
        """Features `(n, d, h, w)` → logits and logit maps, in float32 whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            logit_maps = self.conv(features.float())
            return HeadOutput(pcam_pool(logit_maps), logit_maps)

    def forward(self, images: Tensor) -> HeadOutput:
        """Images `(n, c, s, s)` in [0, 1] → logits `(n, k)` and logit maps `(n, k, h, w)`."""
        return self.head(self.features(images))


def _backbone(config: ModelConfig) -> Any:
    silence()
    import timm

    if not timm.is_model(config.backbone):
        near = timm.list_models(f"*{config.backbone[:6]}*")[:5]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"model.backbone: timm {timm.__version__} has no model {config.backbone!r}{hint}")
    by_hand = config.backbone.startswith("densenet") and not config.drop_stages
    stride = {} if config.output_stride is None or by_hand else {"output_stride": config.output_stride}
    whole = {"num_classes": 0, "global_pool": ""}
    form = {"features_only": True, "out_indices": (-1 - config.drop_stages,)} if config.drop_stages else whole
    try:
        backbone = timm.create_model(
            config.backbone, pretrained=config.pretrained, in_chans=config.input.channels, **form, **stride
        )
        if config.drop_stages:
            return _FirstStages(backbone)
        if by_hand:
            _dilate_densenet(backbone, config.output_stride or 32)
        return backbone
    except (TypeError, NotImplementedError, AssertionError) as error:  # timm refuses a stride in any of these ways
        if not stride:
            raise
        raise ConfigError(
            f"model.output_stride: {config.backbone} cannot be built with output stride {config.output_stride} "
            f"({error}); set it to null, or take a resnet, densenet, convnext or efficientnet"
        ) from None
    except OSError as error:
        if not config.pretrained:
            raise
        raise ConfigError(
            f"model.pretrained: could not read timm's weights of {config.backbone} ({error}); "
            "put them in the hub's cache first, or set pretrained to false"
        ) from None


class _FirstStages(nn.Module):
    """A backbone without its last stages, called like a whole one."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.feature_info = body.feature_info
        self.num_features = int(body.feature_info.channels()[-1])
        self.pretrained_cfg = body.pretrained_cfg

    def forward_features(self, images: Tensor) -> Tensor:
        """Images `(n, c, s, s)` → the last map that is left."""
        found: list[Tensor] = self.body(images)
        return found[-1]


def _dilate_densenet(backbone: Any, stride: int) -> None:
    """Gives a DenseNet, which timm builds at stride 32 only, a finer last map; its weights stay usable.

    The last transitions no longer halve the map, and the blocks behind them dilate their 3×3 convolutions instead
    (Yu and Koltun 2016).
    """
    for skipped in range(1, {32: 0, 16: 1, 8: 2}[stride] + 1):
        # Transition 3 feeds block 4 and transition 2 block 3; each skipped one doubles the dilation of all behind it.
        getattr(backbone.features, f"transition{4 - skipped}").pool = nn.Identity()
        for block in range(5 - skipped, 5):
            for module in getattr(backbone.features, f"denseblock{block}").modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    module.dilation = module.padding = (2 * module.dilation[0], 2 * module.dilation[1])


def _probe(backbone: Any, config: ModelConfig) -> tuple[int, tuple[int, int], bool]:
    """Channels and size of the last map, and whether channels stand last; one forward of a black image."""
    size, stride = config.input.size_px, config.output_stride
    training = backbone.training
    try:
        with torch.inference_mode():
            shape = tuple(backbone.eval().forward_features(torch.zeros(1, config.input.channels, size, size)).shape)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(f"model.backbone: {config.backbone} does not take images of {size} px ({error})") from None
    finally:
        backbone.train(training)
    channels = int(backbone.num_features)
    if len(shape) != 4 or channels not in (shape[1], shape[3]):
        raise ConfigError(
            f"model.backbone: {config.backbone} has no spatial last map; expected features (n, {channels}, h, w), "
            f"got {shape}; take a convolutional one such as resnet18, densenet121 or convnext_tiny"
        )
    last = shape[1] != channels
    grid = (shape[1], shape[2]) if last else (shape[2], shape[3])
    if stride is not None and grid[0] != -(-size // stride):
        raise ConfigError(
            f"model.output_stride: {config.backbone} gives a {grid[0]}×{grid[1]} map of {size} px, expected "
            f"{-(-size // stride)}×{-(-size // stride)} for stride {stride}; set output_stride to null"
        )
    return channels, grid, last


def _normalisation(backbone: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation `(1, c, 1, 1)` that the backbone's weights expect; for grey, the means over RGB."""
    mean = torch.tensor(backbone.pretrained_cfg["mean"], dtype=torch.float32)
    std = torch.tensor(backbone.pretrained_cfg["std"], dtype=torch.float32)
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
