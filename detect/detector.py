"""A detector ready to predict, trained weights in torch or a graph, behind one small interface.

Importing this module imports no torch; a detector in torch brings it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from detect.compute import DeviceName, torch_device
from weakray.bundle.runtime import AnyGraph
from weakray.bundle.yolo import decode_yolo
from weakray.detections import BoolArray, Detections, FloatArray
from weakray.imaging import Image, InputSpec, prepare, to_batch

if TYPE_CHECKING:
    from detect.network import Network


class BoxModel(Protocol):
    """What predicts boxes: a detector of another library satisfies it too."""

    @property
    def findings(self) -> tuple[str, ...]:
        """In class-id order."""
        ...

    @property
    def spec(self) -> InputSpec:
        """What it sees of an image."""
        ...

    def raw(self, images: Sequence[Image]) -> FloatArray:
        """Images as `prepare` gives them → `(n, 4 + k, anchors)` float32, as `decode_yolo` takes it."""
        ...


def predict_boxes(
    model: BoxModel,
    images: Sequence[Image],
    score_above: float = 0.001,
    iou_above: float = 0.6,
    max_boxes: int = 100,
    may_hold: BoolArray | None = None,
) -> list[Detections]:
    """Boxes of decoded images of any size, in their own pixels, best first; see `decode_yolo`.

    `may_hold` `(n, k)` names the findings that each image may hold: there are no boxes of others, so that none takes
    the place of an allowed one among the `max_boxes`.
    """
    if not images:
        return []
    prepared = [prepare(image, model.spec) for image in images]
    raw = model.raw([image for image, _ in prepared])
    if may_hold is not None:
        raw[:, 4:] *= may_hold[:, :, None]
    return decode_yolo(raw, [placement for _, placement in prepared], score_above, iou_above, max_boxes)


@dataclass(frozen=True)
class Detector:
    """A trained network in eval mode, in torch.

    Attributes:
        network: what finds boxes.
        bf16: whether it computes in bfloat16; where boxes lie is worked out in float32 even then.
    """

    network: Network
    bf16: bool = False

    @property
    def findings(self) -> tuple[str, ...]:
        """In class-id order."""
        return tuple(self.network.names)

    @property
    def spec(self) -> InputSpec:
        """What it sees of an image."""
        return self.network.spec

    def raw(self, images: Sequence[Image]) -> FloatArray:
        """See `BoxModel.raw`."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(to_batch(images)).contiguous(memory_format=torch.channels_last)
            raw = self.network.raw(batch.to(self.network.device), bf16=self.bf16)
        return np.asarray(raw.cpu().numpy(), np.float32)

    def predict(
        self,
        images: Sequence[Image],
        score_above: float = 0.001,
        iou_above: float = 0.6,
        max_boxes: int = 100,
        may_hold: BoolArray | None = None,
    ) -> list[Detections]:
        """See `predict_boxes`."""
        return predict_boxes(self, images, score_above, iou_above, max_boxes, may_hold)


@dataclass(frozen=True)
class GraphDetector:
    """A detector exported to a graph."""

    findings: tuple[str, ...]
    spec: InputSpec
    graph: AnyGraph

    def raw(self, images: Sequence[Image]) -> FloatArray:
        """See `BoxModel.raw`."""
        return self.graph.run(images, ["raw"])[0]


def load_detector(folder: Path, device: DeviceName = "cpu") -> Detector:
    """Reads a detector that `weakray detect train` left in its run folder.

    Raises:
        ConfigError: if CUDA is asked for and not there.
        DataError: if a file is missing or not what it should be.
    """
    from detect.network import load_network

    network = load_network(folder).to(torch_device(device))
    network.module.eval().requires_grad_(False)
    return Detector(network)
