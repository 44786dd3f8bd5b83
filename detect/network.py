"""The detector's network: built from an architecture, written as safetensors + json, read back. No pickles of ours.

Two families are known. In YOLO's, v3 to 26, every anchor answers for the boxes near it; in RT-DETR, 300 queries, chosen
among such places by their scores, answer for one box each, in no fixed order.

Heads of yolov10 and yolo26 have two branches: in one many anchors answer for a box, in its copy a single one does, so
that nothing need be suppressed. The copy is left away, and what predicts suppresses, for every network alike: all are
trained by one loss (`detect.multilabel`), in which an anchor answers for each class that shares a place.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors
import safetensors.torch
import torch

from detect.quiet_import import import_ultralytics
from weakray.config import validate
from weakray.errors import ConfigError, DataError
from weakray.files import read_json, read_yaml, sha256_bytes, write_bytes, write_json
from weakray.imaging import InputSpec

FORMAT = 1
_QUERIES = "RTDETRDecoder"
_HEADS = ("Detect", "v10Detect", _QUERIES)


@dataclass(frozen=True)
class Network:
    """A network with what is needed to build it again.

    Attributes:
        module: ultralytics' `DetectionModel`, or its `RTDETRDetectionModel`.
        architecture: ultralytics' YAML as a dict, scale, classes and channels included.
        names: findings, in class-id order.
        spec: what the network sees.
    """

    module: Any
    architecture: dict[str, Any]
    names: list[str]
    spec: InputSpec

    def raw(self, images: torch.Tensor, *, bf16: bool = False) -> torch.Tensor:
        """What it finds, in eval mode: see `detect.detector.BoxModel.raw`.

        Args:
            images: `(n, c, s, s)` float32 in [0, 1], on its device.
            bf16: whether it computes in bfloat16; where boxes lie is worked out in float32 even then.
        """
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            decoded, outputs = self.module(images)
        if self.queries:
            boxes, scores = (of_layers.squeeze(0).float() for of_layers in outputs[:2])  # the last layer's
            return torch.cat((boxes * self.spec.size_px, scores.sigmoid()), dim=-1).transpose(1, 2)
        if not bf16:
            return decoded
        # decoded again: in bfloat16 a place past pixel 128 is a whole number
        head = self.module.model[-1]
        boxes = head.decode_bboxes(head.dfl(outputs["boxes"].float()), head.anchors.float()[None])
        return torch.cat((boxes * head.strides.float(), outputs["scores"].float().sigmoid()), dim=1)

    def folded(self) -> Network:
        """A copy to predict with: in eval mode, each batch norm made part of the convolution before it."""
        return replace(self, module=copy.deepcopy(self.module).eval().requires_grad_(False).fuse(verbose=False))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device) -> Network:
        """The same network, with its weights there; it is built on the CPU, so that they begin alike everywhere."""
        self.module.to(device)
        return self

    @property
    def queries(self) -> bool:
        """Whether its boxes are those of queries, not of anchors."""
        return type(self.module.model[-1]).__name__ == _QUERIES

    @property
    def strides(self) -> list[int]:
        """Pixels a step of each output level; of RT-DETR the largest alone."""
        return [int(stride) for stride in self.module.stride.tolist()]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.module.parameters())


def new_network(architecture: str, names: Sequence[str], spec: InputSpec, seed: int) -> Network:
    """A network with fresh weights, or with the weights of a file of the user's.

    Args:
        architecture: a YAML that ultralytics ships ("yolo11n.yaml"), a path to one, or a path to its weights (".pt",
            a pickle: open only files you trust). Nothing is downloaded.
        names: the findings.
        spec: what the network will see.
        seed: of the fresh weights.

    Raises:
        ConfigError: if there is no such architecture, its head is of another kind, or `spec` does not suit it.
    """
    pretrained = None
    if architecture.endswith(".pt"):
        pretrained = _user_weights(Path(architecture))
        plain = {key: value for key, value in pretrained.yaml.items() if key != "yaml_file"}
    else:
        plain = _architecture(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(plain, names, spec)
    if pretrained is not None:
        network.module.load(pretrained, verbose=False)
    first = next(layer for layer in network.module.modules() if isinstance(layer, torch.nn.Conv2d))
    if first.in_channels != spec.channels:
        raise ConfigError(
            f"input.channels: expected {first.in_channels}, which {architecture} has fixed, got {spec.channels}"
        )
    if spec.size_px % max(network.strides):
        raise ConfigError(
            f"input.size_px: expected a multiple of {max(network.strides)}, the stride of {architecture}, "
            f"got {spec.size_px}"
        )
    return network


def save_network(folder: Path, network: Network, extra: dict[str, Any]) -> str:
    """Writes `detector.safetensors` (float32) and `detector.json`; returns the weights' SHA-256."""
    weights = {name: tensor.detach().contiguous() for name, tensor in network.module.state_dict().items()}
    content = safetensors.torch.save(weights)
    write_bytes(folder / "detector.safetensors", content)
    write_json(
        folder / "detector.json",
        {
            "format": FORMAT,
            "architecture": network.architecture,
            "names": network.names,
            "input": network.spec.model_dump(),
            "strides": network.strides,
            "parameters": network.parameters,
            "weights_sha256": sha256_bytes(content),
            **extra,
        },
    )
    return sha256_bytes(content)


def load_network(folder: Path) -> Network:
    """Reads what `save_network` wrote.

    Raises:
        DataError: if a file is missing, of another format, or the weights are not those the json speaks of.
    """
    content = read_json(folder / "detector.json")
    if content.get("format") != FORMAT:
        raise DataError(f"{folder}: expected a detector of format {FORMAT}, got {content.get('format')}; train again")
    try:
        weights = (folder / "detector.safetensors").read_bytes()
    except FileNotFoundError:
        raise DataError(f"{folder}: expected detector.safetensors, found none; train the detector again") from None
    if sha256_bytes(weights) != content["weights_sha256"]:
        raise DataError(f"{folder}: detector.safetensors is not the file detector.json speaks of; train it again")
    network = _build(content["architecture"], content["names"], validate(InputSpec, content["input"], "input"))
    try:
        network.module.load_state_dict(safetensors.torch.load(weights))
    except RuntimeError as error:  # torch's word for tensors of other names or shapes
        raise DataError(
            f"{folder}: expected weights of the network that detector.json describes, with {len(network.names)} "
            f"findings {network.names}, got others ({str(error).splitlines()[-1].strip()}); train the detector again"
        ) from None
    return network


def _build(architecture: dict[str, Any], names: Sequence[str], spec: InputSpec) -> Network:
    kind = str(architecture["head"][-1][2])
    if kind not in _HEADS:
        raise ConfigError(
            f"architecture: expected a head that finds boxes from the image alone (as of yolo26, yolo11, yolov8, "
            f"rtdetr), got {kind}"
        )
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    family = RTDETRDetectionModel if kind == _QUERIES else DetectionModel
    module = family(dict(architecture), ch=spec.channels, nc=len(names), verbose=False)
    head = module.model[-1]
    for branch in [name for name, _ in head.named_children() if name.startswith("one2one_")]:
        delattr(head, branch)
    module.names = dict(enumerate(names))
    module.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # weights of the loss's parts: ultralytics' defaults
    module.to(memory_format=torch.channels_last)  # convolutions on CPU are a third faster so
    return Network(module, {**architecture, "nc": len(names), "channels": spec.channels}, list(names), spec)


def _architecture(name: str) -> dict[str, Any]:
    import_ultralytics()
    import ultralytics
    from ultralytics.nn.tasks import guess_model_scale

    path = Path(name)
    if not path.is_file():
        shipped = {file.name: file for file in (Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml")}
        family = re.sub(r"(\d)[nslmx](-[\w-]+)?\.yaml$", r"\1\2.yaml", name)  # yolo11n.yaml is yolo11.yaml at scale n
        if name not in shipped and family not in shipped:
            raise ConfigError(
                f"architecture: expected a YAML that ultralytics ships (yolo11n.yaml, yolov8s.yaml …), or a path to a "
                f".yaml or .pt file, got {name!r}"
            )
        path = shipped.get(name) or shipped[family]
    plain = read_yaml(path)
    if not isinstance(plain, dict) or not (plain.get("backbone") and plain.get("head")):
        raise ConfigError(f"architecture: {path}: expected a network (`backbone:` and `head:`), got something else")
    scale = plain.get("scale") or guess_model_scale(name)
    return {**plain, "scale": scale} if scale else plain


def _user_weights(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"architecture: expected weights at {path}, found none; nothing is ever downloaded")
    import_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    return load_checkpoint(path)[0]
