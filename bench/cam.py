"""All findings' maps: how much faster than pytorch-grad-cam, and how near to the bare forward pass?

`python -m bench.cam` takes both through the same weights, images and threads in one process, in turn, K = 14 findings,
and prints medians. The peer is called once a finding, as its users do, and does the same work for each: one call is
timed and counted K times; EigenCAM, which knows no findings, is counted once. Score-CAM and Ablation-CAM take a forward
pass a channel: they are timed on the first backbone alone, and one smaller image. It takes a quarter of an hour: with
`--rows FILE` each row is kept there when it is measured, and found there when the bench is run again. `--quick` takes a
tiny model and image: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bench.printing import KeptRows, Row, answer
from camgen.layers import LAST, layer_module
from camgen.maps import MapName, raw_maps
from camgen.methods.masked import MaskedPasses
from classify.compute import bf16_pays
from weakray.stack import silence

FINDINGS = 14
BATCH = 8
PEERS = {
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "xgradcam": "XGradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "elementwise": "GradCAMElementWise",
}


class Output(NamedTuple):
    """What `raw_maps` needs of a head."""

    logits: Tensor
    logit_maps: Tensor


class Model(nn.Module):
    """A timm backbone of random weights, and a 1×1 convolution pooled by mean or by its own probabilities (PCAM)."""

    def __init__(self, backbone: str, head: Literal["gap", "pcam"]) -> None:
        super().__init__()
        silence()
        import timm

        torch.manual_seed(0)
        self.backbone: Any = timm.create_model(backbone, num_classes=0, global_pool="", in_chans=1)
        self.conv = nn.Conv2d(self.backbone.num_features, FINDINGS, 1)
        self.pooling = head
        self.eval().to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Images `(n, 1, s, s)` → last map `(n, d, h, w)`."""
        found: Tensor = self.backbone.forward_features(images)
        return found

    def head(self, features: Tensor) -> Output:
        """Last map → logits and logit maps."""
        maps = self.conv(features)
        flat = maps.flatten(2)
        weighted = flat.mean(2) if self.pooling == "gap" else (flat * nn.functional.logsigmoid(flat).softmax(2)).sum(2)
        return Output(weighted, maps)

    def forward(self, images: Tensor) -> Tensor:
        """Images → logits, as the peer wants them."""
        return self.head(self.features(images)).logits


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    backbones: tuple[str, ...]
    size_px: int
    masked_size_px: int
    runs: int
    masked_runs: int


FULL = Scale(("densenet121", "resnet50"), size_px=320, masked_size_px=128, runs=5, masked_runs=2)
QUICK = Scale(("test_resnet",), size_px=96, masked_size_px=96, runs=3, masked_runs=2)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model and image: shape of the rows only")
    parser.add_argument("--rows", type=Path, help="file that keeps each row when it is measured")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    silence()
    kept = KeptRows(given.rows)
    with contextlib.redirect_stdout(sys.stderr):
        rows = [row for backbone in scale.backbones for row in _backbone_rows(backbone, scale, kept)]
    answer("cam", rows, kept.commits)


def _backbone_rows(backbone: str, scale: Scale, kept: KeptRows) -> list[Row]:
    rows: list[Row] = []
    images = torch.rand(BATCH, 1, scale.size_px, scale.size_px, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    gap, pcam = Model(backbone, "gap"), Model(backbone, "pcam")
    for head, model in (("gap", gap), ("pcam", pcam)):
        for method, kind in PEERS.items():
            ours, peer = _ours(model, images, method), _peer(model, images, kind)
            case = f"{method}/{backbone}/{head}"
            rows.append(
                _against(kept, f"{case}/vs-pytorch-grad-cam", ours, peer, scale.runs, BATCH, peer_times=FINDINGS)
            )
            rows.append(_against(kept, f"{case}/vs-limit", ours, _bare(model, images), scale.runs, BATCH))
    ours, peer = _ours(gap, images, "layercam", "stage3"), _peer(gap, images, "LayerCAM", "stage3")
    case = f"layercam@stage3/{backbone}/gap/vs-pytorch-grad-cam"
    rows.append(_against(kept, case, ours, peer, scale.runs, BATCH, peer_times=FINDINGS))
    ours, peer = _ours(gap, images, "eigencam"), _peer(gap, images, "EigenCAM")
    rows.append(_against(kept, f"eigencam/{backbone}/gap/vs-pytorch-grad-cam", ours, peer, scale.runs, BATCH))
    if backbone != scale.backbones[0]:
        return rows
    smaller = images[..., : scale.masked_size_px, : scale.masked_size_px].contiguous(memory_format=torch.channels_last)
    return [*rows, *_masked_rows(backbone, gap, smaller, scale.masked_runs, kept)]


def _masked_rows(backbone: str, model: Model, images: Tensor, runs: int, kept: KeptRows) -> list[Row]:
    """Score-CAM and Ablation-CAM, on one image."""
    one, rows = images[:1], []
    kinds = [("scorecam", MaskedPasses())]
    if bf16_pays(images.device, model):
        kinds.append(("scorecam-bf16", MaskedPasses(bf16=True)))
    with torch.no_grad():
        a = model.features(one)
    masks = int((a.amax((2, 3)) > a.amin((2, 3))).sum())
    for case, passes in kinds:
        ours = _ours(model, one, "scorecam", passes=passes)
        peer = _peer(model, one, "ScoreCAM")
        rows.append(
            _against(kept, f"{case}/{backbone}/gap/vs-pytorch-grad-cam", ours, peer, runs, 1, peer_times=FINDINGS)
        )
        if not passes.bf16:
            bare = _bare(model, images)
            rows.append(_against(kept, f"{case}/{backbone}/gap/vs-limit", ours, bare, runs, masks, peer_images=BATCH))
    ours, peer = _ours(model, one, "ablationcam"), _peer(model, one, "AblationCAM")
    case = f"ablationcam/{backbone}/gap/vs-pytorch-grad-cam"
    return [*rows, _against(kept, case, ours, peer, runs, 1, peer_times=FINDINGS)]


def _ours(
    model: Model, images: Tensor, method: str, layer: str = LAST, passes: MaskedPasses | None = None
) -> Callable[[], object]:
    wanted = [MapName(0, method, layer, k) for k in range(FINDINGS)]
    return lambda: raw_maps(model, images, wanted, passes=passes)


def _bare(model: Model, images: Tensor) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return model(images)

    return forward


def _peer(model: Model, images: Tensor, kind: str, layer: str | None = None) -> Callable[[], object]:
    """Its call for one finding, at the last stage or another."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    final = f"stage{len(model.backbone.feature_info) - 1}"
    module = layer_module(model.backbone, layer or final)

    def call() -> object:
        with (
            contextlib.redirect_stderr(io.StringIO()),  # its progress bars
            getattr(pytorch_grad_cam, kind)(model=model, target_layers=[module]) as engine,
        ):
            return engine(images, [ClassifierOutputTarget(0)] * len(images))

    return call


def _against(
    kept: KeptRows,
    case: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    runs: int,
    images: int,
    *,
    peer_images: int | None = None,
    peer_times: int = 1,
) -> Row:
    """Images a second of both, in turn, after one unmeasured run of ours.

    Args:
        kept: where the row is found if it was measured before.
        case: of the row.
        ours: what is measured.
        peer: what it is measured against.
        runs: of each.
        images: that a run of ours takes.
        peer_images: that a run of the peer's takes; None: as many.
        peer_times: how often the peer's run would be needed for the same work.
    """

    def measure() -> Row:
        ours()
        mine, theirs = [], []
        for _ in range(runs):
            mine.append(images / _seconds(ours))
            theirs.append((peer_images or images) / (_seconds(peer) * peer_times))
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        figures = (statistics.median(mine), statistics.median(theirs))
        row = Row(case, *figures, "images/s", statistics.median(ratios), min(ratios), max(ratios), runs)
        print(row, file=sys.stderr)
        return row

    return kept.get(case, measure)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
