"""`weakray detect benchmark`: latency, throughput and memory of detectors on this machine, side by side."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import ClassVar

import pandas as pd
from pydantic import Field

from detect.compute import DeviceName
from detect.opening import detector_sha256
from detect.speed import Speed, measure
from weakray.bundle.parity import spread
from weakray.bundle.runtime import Engine
from weakray.config import StrictModel, to_plain
from weakray.cores import usable_cores
from weakray.dataset import Dataset, Split
from weakray.errors import DataError
from weakray.files import write_json
from weakray.imaging import read_image
from weakray.runs import environment


class DetectBenchmarkConfig(StrictModel):
    """Settings of `weakray detect benchmark`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "detectors", "out"})

    data: Path = Field(..., description="dataset folder; its images are what is timed")
    detectors: tuple[Path, ...] = Field(
        ..., min_length=1, description="what to time: run folders of `detect train`, exports, bundles"
    )
    split: Split = Field("val", description="whose images")
    images: int = Field(100, ge=1, description="how many images, evenly spread; each once alone and once in a batch")
    turns: int = Field(3, ge=1, description="times each detector is measured, in turn; the median counts")
    engine: Engine = Field("auto", description="what runs a bundle's detector: auto, onnxruntime, openvino")
    device: DeviceName = Field("auto", description="of detectors in torch; auto takes CUDA where there is one")
    out: Path | None = Field(None, description="JSON file to write the figures to")
    threads: int | None = Field(None, ge=1, description="threads of each detector; all cores when not given")


class DetectBenchmarkResult(StrictModel):
    """The figures of each detector, by the path it was given with."""

    speeds: dict[str, Speed]
    table: str


def run(config: DetectBenchmarkConfig) -> DetectBenchmarkResult:
    """Times every detector in processes of their own, in turn.

    Raises:
        DataError: if the split has no image, or a detector cannot be opened.
    """
    dataset = Dataset.load(config.data)
    ids = spread(dataset.ids_of(config.split), config.images) if dataset.ids_of(config.split) else []
    if not ids:
        raise DataError(f"{config.data}: split {config.split!r} has no image to time; choose another split")
    hashes = {str(folder): detector_sha256(folder) for folder in config.detectors}
    images = [read_image(dataset.path_of(image_id)) for image_id in ids]
    threads = config.threads or usable_cores()
    found: dict[str, list[Speed]] = {str(folder): [] for folder in config.detectors}
    for _ in range(config.turns):
        for folder in config.detectors:
            found[str(folder)].append(measure(folder, images, threads, config.engine, config.device))
    speeds = {name: _median(turns) for name, turns in found.items()}
    if config.out is not None:
        plain = {name: {**to_plain(speed), "sha256": hashes[name]} for name, speed in speeds.items()}
        write_json(config.out, {"images": len(ids), "turns": config.turns, **environment(), "speeds": plain})
    table = pd.DataFrame.from_dict({name: to_plain(speed) for name, speed in speeds.items()}, orient="index")
    return DetectBenchmarkResult(speeds=speeds, table="\n" + table.to_string())


def _median(turns: list[Speed]) -> Speed:
    return Speed(
        p50_ms=median(speed.p50_ms for speed in turns),
        p95_ms=median(speed.p95_ms for speed in turns),
        images_per_s=median(speed.images_per_s for speed in turns),
        peak_mib=median(speed.peak_mib for speed in turns),
        threads=turns[0].threads,
    )
