"""Heads: the last map → a logit map per finding → a logit per finding.

A head is a scorer, which gives each place of the map a logit, and a pooling, which makes one logit of them:

| kind | scorer | pooling |
|---|---|---|
| `gap`, `gmp`, `lse`, `noisy_or`, `pcam` | 1×1 convolution, s = w·X + b | mean, max, log-sum-exp, noisy-OR, PCAM |
| `fc` | each place's share in a linear layer over the whole map | mean |
| `rnn`, `lstm` | a cell that reads the places row by row, and a readout at each step | the last step |
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from weakray.config import StrictModel

HeadKind = Literal["gap", "gmp", "lse", "noisy_or", "pcam", "fc", "rnn", "lstm"]


class HeadConfig(StrictModel):
    """What makes logits of the last map."""

    kind: HeadKind = Field("pcam", description="pooling of a 1×1 convolution's logit map, or what reads the whole map")
    lse_sharpness: float = Field(10.0, gt=0, description="r of lse: near 0 it pools like gap, far above like gmp")
    hidden: int = Field(128, ge=1, description="size of the state of rnn and lstm")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features' channels that training sets to 0")


class HeadOutput(NamedTuple):
    """What a head makes of features, all raw (before the sigmoid), float32."""

    logits: Tensor  # (n, k)
    logit_maps: Tensor  # (n, k, h, w)
    uncertain: Tensor | None = None  # (n, k): logit of "uncertain"; that of "absent" is 0 and of "present" `logits`


def make_scorer(config: HeadConfig, channels: int, grid_hw: tuple[int, int], findings: int) -> nn.Module:
    """What makes logit maps `(n, k, h, w)` of features `(n, d, h, w)`.

    Args:
        config: the head.
        channels: d.
        grid_hw: h and w; only `fc` is bound to them.
        findings: k.
    """
    match config.kind:
        case "fc":
            return MapLinear(channels, grid_hw, findings)
        case "rnn" | "lstm":
            return PixelSequence(config.kind, channels, config.hidden, findings)
        case _:
            conv = nn.Conv2d(channels, findings, kernel_size=1)
            nn.init.normal_(conv.weight, std=0.01)
            # A noisy-OR of many places at one half is all but certain; here the whole begins at one half, as others do.
            places = grid_hw[0] * grid_hw[1]
            start = math.log(math.expm1(math.log(2) / places)) if config.kind == "noisy_or" else 0.0
            nn.init.constant_(conv.bias, start)  # type: ignore[arg-type]
            return conv


def pool(config: HeadConfig, logit_maps: Tensor) -> Tensor:
    """Logit maps `(n, k, h, w)` → logits `(n, k)`."""
    match config.kind:
        case "gap" | "fc":
            return logit_maps.mean((2, 3))
        case "gmp":
            return logit_maps.amax((2, 3))
        case "lse":
            return lse_pool(logit_maps, config.lse_sharpness)
        case "noisy_or":
            return noisy_or_pool(logit_maps)
        case "pcam":
            return pcam_pool(logit_maps)
        case "rnn" | "lstm":
            return logit_maps[:, :, -1, -1]


def lse_pool(logit_maps: Tensor, sharpness: float) -> Tensor:
    """Logit maps `(n, k, h, w)` → logits `(n, k)`: (1/r)·log mean exp(r·s), between mean and max.

    Pinheiro and Collobert, "From Image-level to Pixel-level Labeling with Convolutional Networks", 2015.
    """
    flat = logit_maps.flatten(2)
    return ((flat * sharpness).logsumexp(-1) - math.log(flat.shape[-1])) / sharpness


def noisy_or_pool(logit_maps: Tensor) -> Tensor:
    """Logit maps `(n, k, h, w)` → logits `(n, k)` of P = 1 − Π(1 − σ(s)): the finding is at one place at least.

    With u = −log(1 − P) = Σ softplus(s) the logit is log(e^u − 1). Where u is small it is taken from log u, itself a
    sum in logs, so that P is rounded neither to 0 nor to 1. Viola, Platt and Zhang, "Multiple Instance Boosting for
    Object Detection", 2005.
    """
    flat = logit_maps.flatten(2)
    log_small = _log_softplus(flat).logsumexp(-1)  # log u
    total = nn.functional.softplus(flat).sum(-1)  # u
    # Each branch gets an argument that it can bear where it is not taken, else its gradient would be NaN · 0.
    small = total < 0.1
    bounded = log_small.clamp(max=0.0)
    u = bounded.exp()
    rising = bounded + u / 2 + u * u / 24  # log(e^u − 1) = log u + u/2 + u²/24 − u⁴/2880 …
    large = total.clamp(min=0.1)
    return torch.where(small, rising, large + (1 - (-large).exp()).log())


def _log_softplus(x: Tensor) -> Tensor:
    """The logarithm of log(1 + e^x), which is x far below 0, where softplus itself underflows."""
    low = x.clamp(max=-3.0)
    e = low.exp()
    series = low - e / 2 + 5 / 24 * e * e - e * e * e / 8  # the next term is below 1e-6
    return torch.where(x < -3.0, series, nn.functional.softplus(x.clamp(min=-3.0)).log())


def pcam_pool(logit_maps: Tensor) -> Tensor:
    """Logit maps `(n, k, h, w)` → logits `(n, k)`: Σ s·σ(s) / Σ σ(s) over the map.

    σ(s) is the localisation map; each finding has its own weights. They are taken as a softmax of log σ(s), which is
    the same and has no 0/0 where all of a map is far below 0. Ye et al., "Weakly Supervised Lesion Localization With
    Probabilistic-CAM Pooling", 2020.
    """
    flat = logit_maps.flatten(2)
    # ONNX has no log σ: the exporter writes log of σ, which onnxruntime rounds to log 0 from −18 down. Softplus it has.
    log_p = -nn.functional.softplus(-flat) if torch.onnx.is_in_onnx_export() else nn.functional.logsigmoid(flat)
    return (flat * log_p.softmax(-1)).sum(-1)


class MapLinear(nn.Module):
    """A linear layer over the whole flattened map, taken apart by place.

    The logit is Σ_ij w_ij·X_ij + b; the map is h·w·(w_ij·X_ij) + b, whose mean is the logit.
    """

    def __init__(self, channels: int, grid_hw: tuple[int, int], findings: int) -> None:
        super().__init__()
        height, width = grid_hw
        bound = (channels * height * width) ** -0.5  # what torch gives a linear layer of as many inputs
        self.weight = nn.Parameter(torch.empty(findings, channels, height, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(findings).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """Features `(n, d, h, w)` → logit maps `(n, k, h, w)`."""
        shares = torch.einsum("ndhw,kdhw->nkhw", features, self.weight)
        return shares * (self.weight.shape[2] * self.weight.shape[3]) + self.bias[:, None, None]


class PixelSequence(nn.Module):
    """A recurrent cell that reads the places of the map row by row, and a linear readout at each step.

    The map at a place says what the cell would answer if the image ended there.
    """

    def __init__(self, kind: Literal["rnn", "lstm"], channels: int, hidden: int, findings: int) -> None:
        super().__init__()
        cell = nn.RNN if kind == "rnn" else nn.LSTM
        self.cell = cell(channels, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, findings)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(n, d, h, w)` → logit maps `(n, k, h, w)`."""
        # cuDNN's cells have no gradient in eval mode, which Grad-CAM asks for.
        mapped = torch.is_grad_enabled() and not self.training
        with torch.backends.cudnn.flags(enabled=False) if mapped else nullcontext():
            states, _ = self.cell(features.flatten(2).transpose(1, 2))
        answers: Tensor = self.readout(states)
        return answers.transpose(1, 2).unflatten(2, features.shape[2:])
