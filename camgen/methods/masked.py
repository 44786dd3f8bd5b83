"""Maps from further passes: of the image behind masks (Score-CAM), of a layer without a channel (Ablation-CAM).

One such pass answers for all findings. What is held at a time is bounded in bytes. Masks come from a member's own
activations, so that members cannot share them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from camgen.layers import channel_axis, replaced
from classify.compute import autocast

_CPU_INPUTS = 16


@dataclass(frozen=True)
class MaskedPasses:
    """How further passes are run.

    Attributes:
        budget_bytes: memory of the masks and masked inputs, or of the ablated copies of a layer, held at a time; at
            least one is. What the network itself holds while it runs them comes on top. A CPU is given 16 at a time at
            most: with more a layer's output no longer fits its caches (DenseNet-121 at 224 px: 23 images/s in
            sixteens, 14 in 256s).
        bf16: run them under bfloat16 autocast: faster where the hardware has it, scores good to two or three digits.
    """

    budget_bytes: int = 64 * 2**20
    bf16: bool = False

    def chunk(self, bytes_each: int, device: torch.device) -> int:
        """How many inputs of that size one pass takes."""
        fitting = max(1, self.budget_bytes // bytes_each)
        return min(fitting, _CPU_INPUTS) if device.type == "cpu" else fitting


def score_cam(
    logits_of: Callable[[Tensor], Tensor], batch: Tensor, a: Tensor, passes: MaskedPasses
) -> tuple[Tensor, int]:
    """Score-CAM of all findings: relu(Σ_c w_kc A_c), w_k = softmax over channels of logit_k(image · mask_c).

    mask_c is A_c, upsampled (bilinear, corners aligned, as published) and min–max scaled. The published baseline, the
    logit of an empty image, is the same for all channels and falls out of the softmax. A flat channel makes no mask: it
    is left out and counted. Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", 2020.

    Args:
        logits_of: images `(m, c, s, s)` → logits `(m, k)`.
        batch: `(n, c, s, s)`.
        a: `(n, d, h, w)`.
        passes: memory and precision.

    Returns:
        `(n, k, h, w)`, >= 0, and how many channels were flat.
    """
    flat = a.amax((2, 3)) == a.amin((2, 3))  # (n, d)
    pairs = (~flat).nonzero()
    bytes_each = (batch.shape[1] + 1) * batch[0, 0].numel() * batch.element_size()
    scores = []
    with torch.no_grad(), autocast(batch.device, "bf16" if passes.bf16 else "fp32"):
        for part in pairs.split(passes.chunk(bytes_each, batch.device)):
            image, channel = part.unbind(1)
            mask = functional.interpolate(
                a[image, channel][:, None], size=batch.shape[2:], mode="bilinear", align_corners=True
            )
            low = mask.amin((2, 3), keepdim=True)
            spread = mask.amax((2, 3), keepdim=True) - low + 1e-8
            masked = batch[image].mul_(mask.sub_(low).div_(spread))
            scores.append(logits_of(masked.contiguous(memory_format=torch.channels_last)).to(a.dtype))
    findings = scores[0].shape[1] if scores else logits_of(batch[:1]).shape[1]
    found = a.new_full((*flat.shape, findings), -torch.inf)
    if scores:
        found[~flat] = torch.cat(scores)
    weights = torch.where(flat[..., None], 0, found.softmax(1))  # (n, d, k); an image of flat channels has none
    return torch.relu(torch.einsum("ndk,ndhw->nkhw", weights, a)), int(flat.sum())


def ablation_cam(drops: Tensor, logits: Tensor, a: Tensor) -> Tensor:
    """Ablation-CAM of all findings: relu(Σ_c w_kc A_c), w_kc = (logit_k − logit_k without channel c) / |logit_k|.

    As published the divisor is the logit itself, which turns the map upside down where it is below 0: what speaks for
    the finding goes dark. A finding's logit is below 0 on most images, and often on those that show it, so we
    divide by its size. Where the logit is above 0 the two are equal. Desai and Ramaswamy, "Ablation-CAM: Visual
    Explanations for Deep Convolutional Network via Gradient-free Localization", 2020.

    Args:
        drops: `(n, d, k)`, what each logit loses with each channel.
        logits: `(n, k)`.
        a: `(n, d, h, w)`.

    Returns:
        `(n, k, h, w)`, >= 0.
    """
    weights = drops / logits[:, None].abs().clamp(min=1e-6)
    return torch.relu(torch.einsum("ndk,ndhw->nkhw", weights, a))


def drops_at_head(head: Any, features: Tensor, passes: MaskedPasses) -> Tensor:
    """What each logit loses with each channel of the last map, `(n, d, k)`; only the head is run.

    In closed form where the head averages a linear map: Σ_hw g_c A_c, which costs K gradients of the head. Whether it
    does is seen in its answers: the logits are the means of the logit maps, and stay what the gradients say when half
    of the channels go.
    """
    closed = _closed_form(head, features)
    if closed is not None:
        return closed
    with torch.no_grad():
        whole = head(features).logits
        drops = whole.new_zeros(*features.shape[:2], whole.shape[1])
        for image, channel, copies in _ablated(features, 1, passes):
            drops[image, channel] = whole[image] - head(copies).logits
    return drops


def drops_behind(
    model: Any,
    batch: Tensor,
    module: nn.Module,
    out: Tensor,
    passes: MaskedPasses,
    *,
    channels: Collection[int],
    alone: bool,
) -> Tensor:
    """What each logit loses with each channel of an earlier layer, `(n, d, k)`.

    Args:
        model: with `features` and `head`.
        batch: `(n, c, s, s)`.
        module: the layer.
        out: what it gave for the batch, as it gave it.
        passes: memory and precision.
        channels: numbers of channels of the backbone's stages.
        alone: all that follows hangs on this layer alone, so that what stands before it is run on one image for a whole
            chunk of ablated copies; a layer that others pass by, inside a block, needs as many images as copies.
    """
    axis = channel_axis(out, channels)
    with torch.no_grad(), autocast(batch.device, "bf16" if passes.bf16 else "fp32"):
        findings = model.head(model.features(batch[:1])).logits.shape[1]
        drops = out.new_zeros(out.shape[0], out.shape[axis], findings)
        for i in range(len(batch)):
            whole = out[i : i + 1]
            for _, channel, copies in _ablated(whole, axis, passes):
                # The whole layer goes along: a batch of another size is rounded another way, by as much as a channel
                # may matter, and always to the same side.
                together = torch.cat([whole, copies])
                with replaced(module, together):
                    given = batch[i : i + 1] if alone else batch[i : i + 1].repeat(len(together), 1, 1, 1)
                    logits = model.head(model.features(given)).logits.to(drops.dtype)
                drops[i, channel] = logits[0] - logits[1:]
    return drops


def _ablated(out: Tensor, axis: int, passes: MaskedPasses) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks of images, channels, and copies of the images' `out` with that channel at 0; dark channels are skipped."""
    inner = [i for i in range(1, out.ndim) if i != axis]
    pairs = (out != 0).any(dim=inner[0], keepdim=True).any(dim=inner[-1], keepdim=True).flatten(1).nonzero()
    for part in pairs.split(passes.chunk(out[0].numel() * out.element_size(), out.device)):
        image, channel = part.unbind(1)
        copies = out[image]
        copies.movedim(axis, 1)[torch.arange(len(part), device=out.device), channel] = 0
        yield image, channel, copies


def _closed_form(head: Any, features: Tensor) -> Tensor | None:
    """The drops of a head that averages a linear map; None for any other."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_(True)
        out = head(leaf)
        if not torch.allclose(out.logits, out.logit_maps.mean((2, 3)), rtol=1e-4, atol=1e-5):
            return None
        count = out.logits.shape[1]
        slopes = (
            torch.autograd.grad(out.logits[:, k].sum(), leaf, retain_graph=k + 1 < count)[0] for k in range(count)
        )
        drops = torch.stack([(g * features).sum((2, 3)) for g in slopes], 2)
    with torch.no_grad():
        for start in (0, 1):
            half = features.clone()
            half[:, start::2] = 0
            expected = out.logits - drops[:, start::2].sum(1)
            scale = 1e-4 * drops.abs().sum(1).amax()
            if not torch.allclose(head(half).logits, expected, rtol=1e-4, atol=float(scale) + 1e-6):
                return None
    return drops
