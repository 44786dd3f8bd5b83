"""Where in a backbone a map is taken: `last` features, the output of a stage, or any module by its path.

Stages are those that timm lists for a backbone (`feature_info`), counted from 0 at the finest: `stage1` of a ResNet is
`layer1`, at a quarter of the image's resolution.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from weakray.errors import ConfigError

LAST = "last"


def stage_paths(backbone: nn.Module) -> list[str]:
    """Module path of each stage, finest first; empty where timm lists none."""
    found = (_found(backbone, stage["module"]) for stage in _stages(backbone))
    return [path for path in found if path is not None]


def is_stage(layer: str) -> bool:
    """Whether a layer's name counts stages; anything else is `last` or a module's path."""
    return layer.startswith("stage") and layer[5:].isdecimal()


def from_stage(backbone: nn.Module, layer: str) -> list[str]:
    """The layers from stage `layer` on, finest first: it, the stages after it but the final one, and `last`.

    Raises:
        ConfigError: if `layer` is no stage of the backbone, or the final one.
    """
    stages = stage_paths(backbone)
    before = [f"stage{i}" for i in range(len(stages) - 1)]
    if layer not in before:
        raise ConfigError(
            f"layer: expected the finest of the stages to fuse, one of {', '.join(before)}; got {layer!r}"
        )
    return [*before[before.index(layer) :], LAST]


def layer_module(backbone: nn.Module, layer: str) -> nn.Module:
    """The module whose output is meant.

    Args:
        backbone: of a classifier.
        layer: `stageN`, or a module's dotted path.

    Raises:
        ConfigError: if there is none, listing those that there are.
    """
    stages = stage_paths(backbone)
    path = layer
    if is_stage(layer):
        path = stages[int(layer[5:])] if int(layer[5:]) < len(stages) else ""
    modules = dict(backbone.named_modules())
    if not path or path not in modules:
        known = [LAST, *(f"stage{i}" for i in range(len(stages)))]
        paths = [name for name in modules if name and name.count(".") <= 1]
        raise ConfigError(
            f"layer: expected one of {', '.join(known)}, or a module's path such as {', '.join(paths[:12])}; "
            f"got {layer!r}"
        )
    return modules[path]


@contextmanager
def tapped(modules: dict[str, nn.Module], leaf: bool) -> Iterator[dict[str, Tensor]]:
    """Keeps the modules' outputs of the next pass, by layer.

    Args:
        modules: layer → module.
        leaf: cut the graph at the first of them to run, so that gradients are kept from there on alone.

    Yields:
        layer → output as the module gave it, filled while a pass runs.
    """
    kept: dict[str, Tensor] = {}

    def hook(layer: str) -> Any:
        def keep(_module: nn.Module, _given: object, out: Tensor) -> Tensor:
            kept[layer] = out.detach().requires_grad_(True) if leaf and not kept else out
            return kept[layer].clone()  # what runs next may write in place

        return keep

    handles = [module.register_forward_hook(hook(layer)) for layer, module in modules.items()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(module: nn.Module, value: Tensor) -> Iterator[None]:
    """The module answers `value` inside the block, whatever it is given."""
    handle = module.register_forward_hook(lambda _module, _given, _out: value)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters ask for no gradient inside the block."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def as_maps(out: Tensor, channels: Collection[int] | None = None, grid_hw: tuple[int, int] | None = None) -> Tensor:
    """A module's output → `(n, d, h, w)`; channels that stand last (as many as `channels` names) come second.

    Args:
        out: maps `(n, d, h, w)` or `(n, h, w, d)`, or tokens `(n, t, d)`: those of the grid, row by row, last, behind
            any prefix such as a class token, which is left out.
        channels: numbers of channels that the backbone's stages have.
        grid_hw: height and width of the token grid; None refuses tokens.

    Raises:
        ConfigError: if the output is no stack of maps.
    """
    if isinstance(out, Tensor) and out.ndim == 3 and grid_hw is not None:
        prefix = out.shape[1] - grid_hw[0] * grid_hw[1]
        if prefix >= 0:
            return out[:, prefix:].transpose(1, 2).unflatten(2, grid_hw)
    if not isinstance(out, Tensor) or out.ndim != 4:
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        grid = f", or tokens of the grid {grid_hw[0]}×{grid_hw[1]}" if grid_hw is not None else ""
        raise ConfigError(f"layer: expected a module that gives maps (n, d, h, w){grid}, got {got}; take another layer")
    return out.movedim(channel_axis(out, channels), 1)


def channel_axis(out: Tensor, channels: Collection[int] | None) -> int:
    """Which axis of maps or tokens holds the channels."""
    if out.ndim == 3:
        return 2
    return 3 if channels and out.shape[1] not in channels and out.shape[3] in channels else 1


def stage_channels(backbone: nn.Module) -> set[int]:
    """Channel numbers of the stages, to tell `(n, h, w, d)` from `(n, d, h, w)`."""
    return {stage["num_chs"] for stage in _stages(backbone)}


def _stages(backbone: nn.Module) -> list[dict[str, Any]]:
    """What timm says of each stage."""
    info: Any = getattr(backbone, "feature_info", None) or []
    listed: list[dict[str, Any]] = getattr(info, "info", info)
    return listed


def _found(backbone: nn.Module, name: str) -> str | None:
    """A stage's module path: timm names it from the backbone's own root, which may lie deeper here."""
    paths = [path for path, _ in backbone.named_modules()]
    for path in (name, name.replace(".", "_")):
        ends = [full for full in paths if full == path or full.endswith(f".{path}")]
        if ends:
            return min(ends, key=len)
    return None


def grad_of(logit: Tensor, layers: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """D logit / d each layer; zeros for one that the logit does not depend on."""
    found = torch.autograd.grad(logit, list(layers.values()), retain_graph=keep, allow_unused=True)
    return {
        layer: torch.zeros_like(a) if slope is None else slope
        for (layer, a), slope in zip(layers.items(), found, strict=True)
    }
