"""`weakray classify predict`: an ensemble's probabilities for every image of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from tqdm import tqdm

from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import Ensemble, check_findings
from classify.inference import batches
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.files import replacing
from weakray.runs import open_run

_ROWS = 4096  # images a row group


class PredictConfig(StrictModel):
    """Settings of `weakray classify predict`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder; every image is predicted, whatever its split")
    ensemble: Path = Field(description="run folder of an ensemble")
    out: Path = Field(description="run folder; gets probabilities.parquet")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class PredictResult(StrictModel):
    """How many images have probabilities now."""

    images: int


def run(config: PredictConfig) -> PredictResult:
    """Writes `probabilities.parquet`: image_id, then a float32 column a finding, in the dataset's order.

    Computed in float32 whatever the members were trained in; memory does not grow with the number of images.

    Raises:
        DataError: if the dataset's findings are not the ensemble's.
    """
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return PredictResult(**done)
    device = torch_device(config.device)
    ensemble.to(device)
    image_ids = dataset.image_ids
    schema = pa.schema([("image_id", pa.string()), *((name, pa.float32()) for name in ensemble.findings)])
    with (
        torch_threads(config.threads),
        replacing(folder.root / "probabilities.parquet") as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
        tqdm(total=len(image_ids), desc="predict", unit="image", disable=None) as bar,
    ):
        for start in range(0, len(image_ids), _ROWS):
            ids = image_ids[start : start + _ROWS]
            parts: list[torch.Tensor] = []
            for pictures in batches(dataset, ids, ensemble.inputs, config.batch_size, config.workers):
                parts.append(ensemble.probabilities([picture.to(device) for picture in pictures]).cpu())
                bar.update(len(pictures[0]))
            columns = torch.cat(parts).T.numpy()
            writer.write_table(pa.table([pa.array(ids), *map(pa.array, columns)], schema=schema))
    result = PredictResult(images=len(image_ids))
    folder.finish(to_plain(result))
    return result
