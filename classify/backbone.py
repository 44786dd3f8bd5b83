"""Backbones: timm's models and the small CNN, each giving a last map `(n, d, h, w)`.

Convolutional networks give it as it is, some with channels last; vision transformers give tokens, which are put back on
their grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from classify.small_cnn import SMALL_CNN, SmallCnn, SmallCnnConfig
from weakray.config import StrictModel
from weakray.errors import ConfigError
from weakray.imaging import InputSpec
from weakray.stack import silence


class BackboneConfig(StrictModel):
    """What turns an image into the last map."""

    backbone: str = Field("resnet18", description="name of a timm model with a spatial last map, or small_cnn")
    pretrained: bool = Field(False, description="start from timm's weights (read from its cache, or downloaded)")
    output_stride: Literal[8, 16, 32] | None = Field(16, description="pixels per cell of the map; null: backbone's own")
    drop_stages: int = Field(
        0, ge=0, le=3, description="leave out so many of the backbone's last stages: a finer map of smaller regions"
    )
    drop_path_rate: float | None = Field(
        None, ge=0, lt=1, description="stochastic depth: share of the last block's skips; null: backbone's own"
    )
    small_cnn: SmallCnnConfig = Field(SmallCnnConfig(), description="the network that small_cnn stands for")
    input: InputSpec = Field(InputSpec(), description="what the model sees of an image")


@dataclass(frozen=True)
class LastMap:
    """What a backbone's `forward_features` gives, and how it is read as a map.

    Attributes:
        channels: d.
        grid_hw: h and w.
        layout: order of the axes; `tokens` is `(n, prefix + h·w, d)`.
        prefix: tokens that stand before those of the grid (class token, registers).
    """

    channels: int
    grid_hw: tuple[int, int]
    layout: Literal["channels_first", "channels_last", "tokens"]
    prefix: int = 0

    def read(self, found: Tensor) -> Tensor:
        """What `forward_features` gave → `(n, d, h, w)`."""
        match self.layout:
            case "channels_first":
                return found
            case "channels_last":
                return found.permute(0, 3, 1, 2)
            case "tokens":
                return found[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid_hw)


def make_backbone(config: BackboneConfig) -> Any:
    """A module with `forward_features`, `num_features` and `pretrained_cfg`.

    Raises:
        ConfigError: if timm does not know it, or cannot build it with these settings.
    """
    if config.backbone == SMALL_CNN:
        for name, off in (("pretrained", False), ("drop_stages", 0), ("drop_path_rate", None)):
            if getattr(config, name) != off:
                raise ConfigError(
                    f"model.{name}: {SMALL_CNN} has none, got {getattr(config, name)}; leave it out, or take a timm "
                    "backbone such as resnet18"
                )
        return SmallCnn(config.small_cnn, config.input.channels)
    silence()
    import timm

    if not timm.is_model(config.backbone):
        near = timm.list_models(f"*{config.backbone[:6]}*")[:5]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"model.backbone: timm {timm.__version__} has no model {config.backbone!r}{hint}")
    by_hand = config.backbone.startswith("densenet") and not config.drop_stages
    options: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    if config.drop_stages:
        options = {"features_only": True, "out_indices": (-1 - config.drop_stages,)}
    if config.output_stride is not None and not by_hand:
        options["output_stride"] = config.output_stride
    if config.drop_path_rate is not None:
        options["drop_path_rate"] = config.drop_path_rate
    published = timm.get_pretrained_cfg(config.backbone)
    if published is not None and published.fixed_input_size:
        options["img_size"] = config.input.size_px  # their position codes or windows are made for one size
    try:
        backbone = timm.create_model(
            config.backbone, pretrained=config.pretrained, in_chans=config.input.channels, **options
        )
    # timm has no error of its own: it refuses a setting by any of these (a TypeError for an argument that a model does
    # not take, a failed assert for a size), torch a weight of another shape by the last. What `_refusal` cannot lay to
    # our settings is a bug, and is raised as it was.
    except (TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
        refusal = _refusal(config, options, error)
        if refusal is None:
            raise
        raise refusal from None
    except OSError as error:
        if not config.pretrained:
            raise
        raise ConfigError(
            f"model.pretrained: could not read timm's weights of {config.backbone} ({error}); "
            "put them in the hub's cache first, or set pretrained to false"
        ) from None
    if config.drop_stages:
        return _FirstStages(backbone)
    if by_hand:
        _dilate_densenet(backbone, config.output_stride or 32)
    return backbone


def _refusal(config: BackboneConfig, options: dict[str, Any], error: Exception) -> ConfigError | None:
    """What timm's refusal means; None where it is not about our settings."""
    name, text = config.backbone, str(error).split("\n", 1)[0]
    # A NotImplementedError is a RuntimeError too, but says that timm lacks the setting: it is read further down.
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        if config.pretrained:
            return ConfigError(
                f"model.pretrained: timm's weights of {name} cannot be used ({text}); "
                f"{_own_size(config)}, or pretrained to false"
            )
        return _unfit_size(config, text, None) if "img_size" in options else None
    if "drop_path_rate" in options and "drop_path_rate" in text:
        return ConfigError(f"model.drop_path_rate: {name} has no stochastic depth ({text}); set it to null")
    if "output_stride" in options:
        return ConfigError(
            f"model.output_stride: {name} cannot be built with output stride {config.output_stride} "
            f"({text}); set it to null, or take a resnet, densenet, convnext or efficientnet"
        )
    if isinstance(error, TypeError):
        return None
    if "img_size" in options and "pool" not in text:
        return _unfit_size(config, text, None)
    return ConfigError(
        f"model.backbone: {name} cannot give a spatial last map ({text}); "
        "take another, such as resnet18, densenet121, convnext_tiny or deit_tiny_patch16_224"
    )


def _own_size(config: BackboneConfig) -> str:
    import timm

    published = timm.get_pretrained_cfg(config.backbone)
    if published is None or published.input_size[-1] == config.input.size_px:
        return "take another backbone, or another model.input.channels"
    return f"set model.input.size_px to its own {published.input_size[-1]}"


def _unfit_size(config: BackboneConfig, text: str, step: int | None) -> ConfigError:
    """Says which sizes a backbone takes: multiples of its patch or reduction, or else its own."""
    size = config.input.size_px
    if step is not None and size % step:
        below = size // step * step
        near = " or ".join(str(each) for each in (below, below + step) if each)
        fitting = f"set model.input.size_px to a multiple of {step}, such as {near}"
    else:
        fitting = _own_size(config)
    return ConfigError(
        f"model.backbone: {config.backbone} does not take images of {size} px and {config.input.channels} "
        f"channel{'s' if config.input.channels > 1 else ''} ({text}); {fitting}"
    )


class _FirstStages(nn.Module):
    """A backbone without its last stages, called like a whole one."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.num_features = int(body.feature_info.channels()[-1])
        stages, last = body.feature_info.info, body.feature_info.out_indices[-1]
        self.feature_info = stages[: last % len(stages) + 1]  # of those that are left
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


def last_map(backbone: Any, config: BackboneConfig) -> LastMap:
    """Layout and size of the last map, from one forward of a black image.

    Raises:
        ConfigError: if the backbone does not take the image, leaves out part of it, or gives no map of the wanted
            stride.
    """
    size, stride = config.input.size_px, config.output_stride
    reduction = stride or _reduction(backbone)
    training = backbone.training
    try:
        with torch.inference_mode():
            found = backbone.eval().forward_features(torch.zeros(1, config.input.channels, size, size))
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:  # timm refuses a size in any of these ways
        raise _unfit_size(config, str(error).split("\n", 1)[0], reduction) from None
    finally:
        backbone.train(training)
    seen = _layout(backbone, found, size, reduction)
    if seen is None:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"model.backbone: {config.backbone} has no spatial last map; expected features "
            f"(n, {backbone.num_features}, h, w) or tokens of a square grid, got {shape}; take another, such as "
            "resnet18, densenet121, convnext_tiny or deit_tiny_patch16_224"
        )
    height, width = seen.grid_hw
    patch = _patch(backbone)
    if size % patch:
        raise _unfit_size(config, f"its patches of {patch} would leave out the last {size % patch}", patch)
    if reduction is not None and size % reduction and height == size // reduction:
        raise _unfit_size(config, f"it would leave out the last {size - height * reduction}", reduction)
    if stride is not None and height != -(-size // stride):
        raise ConfigError(
            f"model.output_stride: {config.backbone} gives a {height}×{width} map of {size} px, expected "
            f"{-(-size // stride)}×{-(-size // stride)} for stride {stride}; set output_stride to null"
        )
    return seen


def _layout(backbone: Any, found: Any, size: int, reduction: int | None) -> LastMap | None:
    """How `found` is a map; None if it is none."""
    channels = int(backbone.num_features)
    if not isinstance(found, Tensor):
        return None
    shape = tuple(found.shape)
    if len(shape) == 3 and shape[2] == channels:
        prefix = getattr(backbone, "num_prefix_tokens", None) or 0
        side = math.isqrt(max(0, shape[1] - prefix))
        # A lone class token is a square too, but not one of the image.
        of_image = reduction is None or side in (size // reduction, -(-size // reduction))
        return LastMap(channels, (side, side), "tokens", prefix) if of_image and side**2 == shape[1] - prefix else None
    if len(shape) != 4 or channels not in (shape[1], shape[3]):
        return None
    if shape[3] == channels and (shape[1] != channels or str(getattr(backbone, "output_fmt", "")) == "NHWC"):
        return LastMap(channels, (shape[1], shape[2]), "channels_last")
    return LastMap(channels, (shape[2], shape[3]), "channels_first")


def _reduction(backbone: Any) -> int | None:
    """Pixels per cell of the last map as timm notes them; None where it does not."""
    stages = getattr(backbone, "feature_info", None)
    return int(stages[-1]["reduction"]) if stages else None


def _patch(backbone: Any) -> int:
    """Side of the patches that a transformer cuts the image into; 1 where there are none, or they overlap."""
    for name, module in backbone.named_modules():
        if name.endswith("patch_embed.proj") and isinstance(module, nn.Conv2d) and module.kernel_size == module.stride:
            return module.stride[0]
    return 1


def normalisation(backbone: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation `(1, c, 1, 1)` that the backbone's weights expect; for grey, the means over RGB."""
    mean = torch.tensor(backbone.pretrained_cfg["mean"], dtype=torch.float32)
    std = torch.tensor(backbone.pretrained_cfg["std"], dtype=torch.float32)
    if channels == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
