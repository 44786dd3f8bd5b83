"""`weakray classify predict`: an ensemble's probabilities for every image of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import Ensemble, check_findings
from classify.inference import study_chunks
from classify.studies import group
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
    left_out_images: int = 0  # of studies that members of frontal images cannot read
    events: list[str] = Field([])  # what was read as a study


def run(config: PredictConfig) -> PredictResult:
    """Writes `probabilities.parquet`: image_id, then a float32 column a finding, in the dataset's order.

    Where the members were trained on studies, an image has the probabilities of its study: the label that they are
    compared with speaks of the study too. A study that members of frontal images cannot read, for it has none, is left
    out of the table, and counted.

    Computed in float32 whatever the members were trained in; memory grows by the probabilities alone.

    Raises:
        DataError: if the dataset's findings are not the ensemble's.
    """
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return PredictResult(**done)
    studies = group(dataset, None, ensemble.studies)
    probability = np.empty((len(studies), len(ensemble.findings)), np.float32)
    device = torch_device(config.device)
    with torch_threads(config.threads):
        made = study_chunks(
            ensemble.members, dataset, studies, _ROWS, device, config.batch_size, config.workers, "predict"
        )
        for start, logits in zip(range(0, len(studies), _ROWS), made, strict=True):
            probability[start : start + _ROWS] = ensemble.graph.probabilities(logits)
    image_ids = [image_id for image_id in dataset.image_ids if image_id in studies.row_of]
    schema = pa.schema([("image_id", pa.string()), *((name, pa.float32()) for name in ensemble.findings)])
    with (
        replacing(folder.root / "probabilities.parquet") as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for start in range(0, len(image_ids), _ROWS):
            ids = image_ids[start : start + _ROWS]
            columns = probability[[studies.row_of[image_id] for image_id in ids]].T
            writer.write_table(pa.table([pa.array(ids), *map(pa.array, columns)], schema=schema))
    result = PredictResult(
        images=len(image_ids),
        left_out_images=len(dataset.image_ids) - len(image_ids),
        events=studies.counts.lines,
    )
    folder.finish(to_plain(result))
    return result
