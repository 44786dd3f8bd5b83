"""Batches for a detector. A batch is a function of (seed, phase, step) alone, so a run resumes at any step exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from detect.augment import AugmentConfig, augment
from detect.pasting import Regions, paste
from detect.yolo_folder import Example
from weakray.imaging import to_batch

_PASTE = 1  # its own stream of chance: pasting moves no other draw

Batch = dict[str, torch.Tensor]  # what ultralytics' loss takes: img, cls, bboxes, batch_idx


def batches(
    examples: Sequence[Example],
    regions: Regions,
    config: AugmentConfig,
    batch_size: int,
    key: tuple[int, int],
    steps: range,
    makers: int = 1,
) -> Iterator[Batch]:
    """Augmented batches of the given steps; the next ones are made on other threads while one is learnt.

    Args:
        examples: the training set.
        regions: what may be pasted onto its images.
        config: augmentation.
        batch_size: images a step; always full, for the end of one shuffled pass runs on into the next.
        key: seed and phase of the training.
        steps: step numbers, from 0.
        makers: threads; as many batches are made ahead.
    """

    def make(step: int) -> Batch:
        rows = _rows(len(examples), batch_size, key, step)
        return collate([shown(examples[row], (*key, step, i)) for i, row in enumerate(rows)])

    def shown(example: Example, chance: tuple[int, ...]) -> Example:
        pasted = paste(example, regions, config.paste, config.flip, np.random.default_rng([*chance, _PASTE]))
        return augment(pasted, config, np.random.default_rng(chance))

    with ThreadPoolExecutor(max_workers=makers) as pool:
        ahead = deque(pool.submit(make, step) for step in steps[:makers])
        for step in steps:
            batch = ahead.popleft().result()
            if step + makers in steps:
                ahead.append(pool.submit(make, step + makers))
            yield batch


def _rows(examples: int, batch_size: int, key: tuple[int, int], step: int) -> list[int]:
    """Which examples a step shows: positions step · batch … of an endless row of shuffled passes."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    passes = sorted({position // examples for position in positions})
    orders = {number: np.random.default_rng([*key, number]).permutation(examples) for number in passes}
    return [int(orders[position // examples][position % examples]) for position in positions]


def collate(examples: Sequence[Example]) -> Batch:
    """Examples → tensors.

    `img` (n, c, s, s) float32 in [0, 1]; `cls` (b, 1), `bboxes` (b, 4), `batch_idx` (b,), `weights` (b,), of all boxes
    in the order of their images; `elsewhere` (n, k).
    """
    counts = [len(example.class_id) for example in examples]
    return {
        "img": torch.from_numpy(to_batch([example.image for example in examples])),
        "cls": torch.from_numpy(np.concatenate([e.class_id for e in examples]).astype(np.float32))[:, None],
        "bboxes": torch.from_numpy(np.concatenate([e.boxes_cxcywh_rel for e in examples])),
        "batch_idx": torch.from_numpy(np.repeat(np.arange(len(examples), dtype=np.float32), counts)),
        "weights": torch.from_numpy(np.concatenate([e.weights for e in examples])),
        "elsewhere": torch.from_numpy(np.stack([e.elsewhere for e in examples])),
    }
