"""How fast a detector is and what memory it takes, measured in a process of its own that does nothing else.

Importing this module imports no torch: its memory would count as that of a graph that needs none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from detect.compute import DeviceName
from detect.detector import predict_boxes
from detect.opening import kind_of, open_detector
from weakray.bundle.runtime import Engine
from weakray.config import StrictModel
from weakray.imaging import Image
from weakray.memory import peak_mib
from weakray.stack import silence

BATCH = 8  # images of a pass when throughput is measured
_WARM = 3


class Speed(StrictModel):
    """From decoded image to boxes: scaling, padding, the network, and the choice of boxes."""

    p50_ms: float  # of one image at a time
    p95_ms: float
    images_per_s: float  # eight at a time
    peak_mib: float  # most memory the process ever held, its libraries included
    threads: int


def measure(
    folder: Path, images: Sequence[Image], threads: int, engine: Engine = "auto", device: DeviceName = "cpu"
) -> Speed:
    """Measures a detector in a new process.

    Args:
        folder: what `open_detector` opens.
        images: decoded images, each timed once alone and once in a batch.
        threads: of the detector.
        engine: what runs a bundle's detector.
        device: of a detector in torch.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(_measure, folder, list(images), threads, engine, device).result()


def _measure(folder: Path, images: list[Image], threads: int, engine: Engine, device: DeviceName) -> Speed:
    silence()
    if kind_of(folder) == "detector.json" or "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
    model = open_detector(folder, threads, engine, device)
    for image in images[:_WARM]:
        predict_boxes(model, [image])
    alone = []
    for image in images:
        start = time.perf_counter()
        predict_boxes(model, [image])
        alone.append(time.perf_counter() - start)
    predict_boxes(model, images[:BATCH])
    start = time.perf_counter()
    for first in range(0, len(images), BATCH):
        predict_boxes(model, images[first : first + BATCH])
    seconds = time.perf_counter() - start
    p50, p95 = np.percentile(alone, [50, 95]) * 1000
    return Speed(
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        images_per_s=round(len(images) / seconds, 2),
        peak_mib=round(peak_mib(), 1),
        threads=threads,
    )
