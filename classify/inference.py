"""Images of a dataset → what each member sees of them → logits. A file is decoded once, whatever the members want."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from classify.batches import ahead
from classify.member import Member
from classify.studies import Studies
from classify.study_network import read_images, study_logits
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
    members: Sequence[Member],
    dataset: Dataset,
    studies: Studies,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    told: str,
) -> Tensor:
    """Raw logits `(m, b, k)` on CPU of all members and studies, each member fed by its own input.

    Calibration, rules and class tree act on these sums, which is what training put through the sigmoid.

    Args:
        members: of the studies' mode.
        dataset: where the images come from.
        studies: grouped as the members were trained.
        device: where to compute.
        batch_size: images at a time.
        workers: threads that decode images.
        told: names the progress bar.
    """
    (logits,) = study_chunks(members, dataset, studies, len(studies), device, batch_size, workers, told)
    return logits


def study_chunks(
    members: Sequence[Member],
    dataset: Dataset,
    studies: Studies,
    chunk: int,
    device: torch.device,
    batch_size: int,
    workers: int,
    told: str,
) -> Iterator[Tensor]:
    """As `member_logits`, of `chunk` studies at a time."""
    networks = [member.network.to(device) for member in members]
    inputs = distinct([member.input for member in members])
    input_of = [inputs.index(member.input) for member in members]
    with tqdm(total=len(studies.image_ids), desc=told, unit="image", disable=None) as bar:
        for start in range(0, len(studies), chunk):
            wanted = np.arange(start, min(start + chunk, len(studies)))
            rows, index = studies.flatten(wanted)
            frontal = torch.from_numpy(studies.frontal[rows]).to(device).split(batch_size)
            ids = [studies.image_ids[row] for row in rows.tolist()]
            parts: list[Tensor] = []
            for pictures, views in zip(batches(dataset, ids, inputs, batch_size, workers), frontal, strict=True):
                seen = [picture.to(device) for picture in pictures]
                with torch.inference_mode():
                    own = [read_images(net, seen[i], views).logits for net, i in zip(networks, input_of, strict=True)]
                    parts.append(torch.stack(own, dim=1).cpu())  # (n, m, k)
                bar.update(len(pictures[0]))
            yield study_logits(torch.cat(parts), torch.from_numpy(index), len(wanted)).transpose(0, 1).contiguous()
    for network in networks:
        network.to("cpu")
