"""Images of a dataset → what each member sees of them → logits. A file is decoded once, whatever the members want."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from classify.batches import ahead
from weakray.dataset import Dataset
from weakray.detections import FloatArray
from weakray.imaging import InputSpec, prepare, read_image, to_batch

Seen = Tensor | Sequence[Tensor]  # a batch (b, c, s, s) in [0, 1]; where members see unlike inputs, one for each input


def distinct(specs: Sequence[InputSpec]) -> list[InputSpec]:
    """The inputs that differ, in order of first use."""
    return list(dict.fromkeys(specs))


def batches(
    dataset: Dataset, image_ids: Sequence[str], inputs: Sequence[InputSpec], batch_size: int, workers: int
) -> Iterator[list[Tensor]]:
    """Images of a dataset in the ids' order: for each of `inputs` a batch `(b, c, s, s)` in [0, 1].

    Memory does not grow with the number of images.
    """

    def make(rows: npt.NDArray[np.int64]) -> list[FloatArray]:
        decoded = [read_image(dataset.path_of(image_ids[row])) for row in rows.tolist()]
        return [to_batch([prepare(image, spec)[0] for image in decoded]) for spec in inputs]

    order = np.arange(len(image_ids))
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for pictures in ahead(make, parts, workers):
        yield [torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last) for pixels in pictures]


def member_logits(
    models: nn.ModuleList,
    specs: Sequence[InputSpec],
    dataset: Dataset,
    image_ids: Sequence[str],
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    told: str,
) -> Tensor:
    """Raw logits `(m, n, k)` on CPU of all members, each fed by its own input; `told` names the progress bar."""
    inputs = distinct(specs)
    parts: list[Tensor] = []
    models.to(device)
    with torch.inference_mode(), tqdm(total=len(image_ids), desc=told, unit="image", disable=None) as bar:
        for pictures in batches(dataset, image_ids, inputs, batch_size, workers):
            seen = [picture.to(device) for picture in pictures]
            own = [model(seen[inputs.index(spec)]).logits for model, spec in zip(models, specs, strict=True)]
            parts.append(torch.stack(own).cpu())
            bar.update(len(pictures[0]))
    models.to("cpu")
    return torch.cat(parts, dim=1)
