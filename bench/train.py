"""How fast does a classifier train: is it kept fed, what does bf16 give, and what does a plain loop reach?

`python -m bench.train` trains DenseNet-121 at 224 px on made films of about 1,000 px, on CUDA where there is one, else
on all cores. Rows, each in images a second, measured in turn:

- `loader/…/vs-limit`: fed by the loader, all augmentation on, over fed from memory with batches that lie ready.
- `bf16/…/vs-fp32`: both fed from memory.
- `train/…/vs-plain-loop`: what `classify train` does over what one writes in an afternoon: DataLoader with a process a
  core but one (two at least), PIL, albumentations with the same steps, float32, channels first.
- `augment/…/vs-albumentations`: films augmented a second on one thread, over albumentations' own `Compose`.
- on CUDA also channels last, `torch.compile`, and memory at its peak.

`--quick` does the same with a tiny model and films: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as Picture

from bench.printing import Row, answer, side_by_side
from classify.augment import AugmentConfig, Augmenter
from classify.batches import training_batches, turns
from classify.cache import cached_images
from classify.compute import autocast, bf16_pays, torch_device, torch_threads
from classify.images import Images
from classify.model import Classifier, ModelConfig
from ingest.phantom.command import PhantomConfig
from ingest.phantom.command import run as make_phantom
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.imaging import InputSpec
from weakray.stack import silence

FULL = AugmentConfig(
    horizontal_flip=0.5,
    translate=0.1,
    rotate_deg=15,
    grid_probability=0.5,
    elastic_probability=0.5,
    gamma_probability=0.5,
    noise_probability=0.5,
)
FINDINGS = 14
WARM_STEPS = 2  # not timed: threads, processes and kernels are set up in them


@dataclass(frozen=True)
class Work:
    """How much is done: of a bench or of its quick form."""

    backbone: str
    size_px: int
    film_px: tuple[int, int]  # short side, least and most
    films: int
    batch: int
    steps: int  # timed in a turn
    turns: int


QUICK = Work("test_resnet", 64, (192, 256), films=16, batch=4, steps=4, turns=2)
WHOLE = Work("densenet121", 224, (960, 1024), films=32, batch=16, steps=6, turns=7)

Feed = Callable[[], Generator[torch.Tensor]]  # batches (b, 1, s, s) in [0, 1], more than are taken


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model: shape of the rows only")
    work = QUICK if parser.parse_args().quick else WHOLE
    silence()
    device, cores = torch_device("auto"), len(os.sched_getaffinity(0))
    if device.type == "cuda":
        work = replace(work, batch=4 * work.batch)
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as temporary,
        torch_threads(cores),
    ):
        rows = _rows(work, device, cores, Path(temporary))
        if device.type == "cuda":
            rows += _cuda_rows(work, device)
    answer("train", rows)


def _rows(work: Work, device: torch.device, cores: int, folder: Path) -> list[Row]:
    settings = {"seed": 0, "short_side_px": work.film_px, "train": work.films, "val": 1, "tune": 1, "test": 1}
    make_phantom(validate(PhantomConfig, settings | {"out": folder / "films"}))
    dataset = Dataset.load(folder / "films")
    ids, spec, workers = dataset.ids_of("train"), InputSpec(size_px=work.size_px), max(2, cores - 1)
    images = cached_images(folder / "cache", dataset, ids, spec, workers)
    files = [dataset.path_of(image_id) for image_id in ids]
    memory, loader, afternoon = (
        _from_memory(work),
        _from_loader(images, work, workers),
        _plain_feed(files, work, workers),
    )
    fp32 = _trainee(work, device, bf16=False)
    half = _trainee(work, device, bf16=True)
    ours = half if bf16_pays(device, _model(work)) else fp32
    plain = _trainee(work, device, bf16=False, layout=torch.contiguous_format)
    runs: dict[str, Callable[[], float]] = {
        "memory": lambda: _speed(ours, memory, work),
        "loader": lambda: _speed(ours, loader, work),
        "fp32": lambda: _speed(fp32, memory, work),
        "bf16": lambda: _speed(half, memory, work),
        "plain": lambda: _speed(plain, afternoon, work),
        "augment": lambda: _augment_speed(images, work),
        "compose": lambda: _compose_speed(images, work),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(work.turns):
        for name, run in runs.items():
            found[name].append(run())
    name = work.backbone
    return [
        side_by_side(f"loader/{name}/vs-limit", found["loader"], found["memory"], "images/s"),
        side_by_side(f"bf16/{name}/vs-fp32", found["bf16"], found["fp32"], "images/s"),
        side_by_side(f"train/{name}/vs-plain-loop", found["loader"], found["plain"], "images/s"),
        side_by_side(
            f"augment/{spec.size_px}px/vs-albumentations", found["augment"], found["compose"], "images/s/core"
        ),
    ]


def _cuda_rows(work: Work, device: torch.device) -> list[Row]:
    """What layout and compilation give to bf16 on CUDA, and what bf16 gives to memory; all fed from memory."""
    first = torch.contiguous_format
    trainees = {
        "fp32": _trainee(work, device, bf16=False),
        "bf16": _trainee(work, device, bf16=True),
        "channels first": _trainee(work, device, bf16=True, layout=first),
        "compiled": _trainee(work, device, bf16=True, compiled=True),
    }
    memory = _from_memory(work)
    speed: dict[str, list[float]] = {name: [] for name in trainees}
    peak: dict[str, list[float]] = {name: [] for name in trainees}
    for _ in range(work.turns):
        for name, trainee in trainees.items():
            torch.cuda.reset_peak_memory_stats(device)
            held = torch.cuda.memory_allocated(device)
            speed[name].append(_speed(trainee, memory, work))
            peak[name].append((torch.cuda.max_memory_allocated(device) - held) / 2**20)
    name = work.backbone
    # Less memory is better: the two change places in the ratio.
    less = side_by_side(f"cuda-memory/{name}/vs-fp32", peak["fp32"], peak["bf16"], "MiB")
    return [
        side_by_side(
            f"cuda-channels-last/{name}/vs-channels-first", speed["bf16"], speed["channels first"], "images/s"
        ),
        side_by_side(f"cuda-compile/{name}/vs-eager", speed["compiled"], speed["bf16"], "images/s"),
        Row(less.case, less.peer, less.ours, less.unit, less.ratio, less.low, less.high, less.runs),
    ]


def _model(work: Work) -> Classifier:
    torch.manual_seed(0)
    config = ModelConfig(backbone=work.backbone, output_stride=None, input=InputSpec(size_px=work.size_px))
    return Classifier(config, FINDINGS)


def _trainee(
    work: Work,
    device: torch.device,
    *,
    bf16: bool,
    layout: torch.memory_format = torch.channels_last,
    compiled: bool = False,
) -> Callable[[torch.Tensor], None]:
    """One training step of a model of its own, as the training loop does it: forward, loss, backward, clip, AdamW."""
    model = _model(work).to(device).to(memory_format=layout).train()
    forward: Callable[[torch.Tensor], Any] = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    truth = (torch.rand(work.batch, FINDINGS) < 0.3).float().to(device)
    loss_of = torch.nn.BCEWithLogitsLoss()

    def step(pixels: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, "bf16" if bf16 else "fp32"):
            logits = forward(pixels.to(device, memory_format=layout)).logits
        loss = loss_of(logits.float(), truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise ArithmeticError("the loss is not finite: a step that learns nothing may not be timed")

    return step


def _speed(step: Callable[[torch.Tensor], None], feed: Feed, work: Work) -> float:
    """Images a second over the timed steps; the feed goes on making batches throughout, and none is counted twice."""
    with contextlib.closing(feed()) as batches:
        for pixels in itertools.islice(batches, WARM_STEPS):
            step(pixels)
        start = time.perf_counter()
        for pixels in itertools.islice(batches, work.steps):
            step(pixels)
        return work.batch * work.steps / (time.perf_counter() - start)


def _from_memory(work: Work) -> Feed:
    made = [torch.rand(work.batch, 1, work.size_px, work.size_px) for _ in range(4)]

    def feed() -> Generator[torch.Tensor]:
        yield from itertools.cycle(made)

    return feed


def _from_loader(images: Images, work: Work, workers: int) -> Feed:
    def feed() -> Generator[torch.Tensor]:
        batches = work.steps + WARM_STEPS + 2 * workers + 2  # it works ahead: what is left keeps it busy to the end
        rows = np.arange(batches * work.batch).reshape(batches, work.batch) % len(images)
        for pixels in training_batches(images, list(rows), turns(list(rows)), FULL, 0, 0, workers):
            yield torch.from_numpy(pixels)

    return feed


class _PlainFilms(torch.utils.data.Dataset[torch.Tensor]):
    """Films as one would load them: decoded and resized by PIL at each use, augmented by albumentations."""

    def __init__(self, files: list[Path], work: Work, length: int) -> None:
        self._files = files
        self._size = (work.size_px, work.size_px)
        self._augment = _compose(work)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: int) -> torch.Tensor:
        with Picture.open(self._files[item % len(self._files)]) as film:
            grey = np.asarray(film.convert("L").resize(self._size, Picture.Resampling.BILINEAR))
        changed = self._augment(image=grey)["image"]
        return torch.from_numpy(changed).float().div(255)[None]


def _plain_feed(files: list[Path], work: Work, workers: int) -> Feed:
    def feed() -> Generator[torch.Tensor]:
        length = work.batch * (work.steps + WARM_STEPS + 3 * workers)
        loader = torch.utils.data.DataLoader(
            _PlainFilms(files, work, length),
            batch_size=work.batch,
            shuffle=True,
            num_workers=workers,
            worker_init_fn=lambda _: cv2.setNumThreads(1),  # in its favour: its threads would crowd the cores
        )
        yield from loader

    return feed


def _compose(work: Work) -> Any:
    """`FULL` as a user of albumentations writes it, elastic shifts of the same deviation and smoothness."""
    import albumentations

    tone, gamma = (-FULL.brightness_contrast, FULL.brightness_contrast), 100 * FULL.gamma
    sigma = FULL.elastic_smooth * work.size_px
    peak = math.sqrt(2 * math.log(2 * work.size_px**2))  # about the largest value of its noise, by which it divides
    alpha = peak * FULL.elastic_shift * work.size_px * 2 * sigma * math.sqrt(math.pi)
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=FULL.horizontal_flip),
            albumentations.Affine(
                translate_percent=(-FULL.translate, FULL.translate),
                rotate=(-FULL.rotate_deg, FULL.rotate_deg),
                scale=(1 - FULL.scale, 1 + FULL.scale),
                p=FULL.affine_probability,
            ),
            albumentations.GridDistortion(
                FULL.grid_steps, (-FULL.grid_limit, FULL.grid_limit), p=FULL.grid_probability
            ),
            albumentations.ElasticTransform(alpha=alpha, sigma=sigma, p=FULL.elastic_probability),
            albumentations.RandomBrightnessContrast(tone, tone, p=FULL.tone_probability),
            albumentations.RandomGamma((100 - gamma, 100 + gamma), p=FULL.gamma_probability),
            albumentations.GaussNoise((0.0, FULL.noise), per_channel=False, p=FULL.noise_probability),
        ]
    )


def _augment_speed(images: Images, work: Work) -> float:
    augmenter = Augmenter(FULL, 0)
    return _on_one_thread(augmenter(images[row % len(images)], 0, row) for row in range(8 * work.batch))


def _compose_speed(images: Images, work: Work) -> float:
    augment = _compose(work)
    return _on_one_thread(augment(image=images[row % len(images)]) for row in range(8 * work.batch))


def _on_one_thread(made: Iterable[Any]) -> float:
    """Things a second of an iterable."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    count, start = 0, time.perf_counter()
    for _ in made:
        count += 1
    seconds = time.perf_counter() - start
    cv2.setNumThreads(before)
    return count / seconds


if __name__ == "__main__":
    main()
