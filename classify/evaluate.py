"""`weakray classify evaluate`: AUROC and AUPRC of an ensemble and of each member, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from tqdm import tqdm

from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import Ensemble, batches, check_findings, split_truth
from eval.classification import MIN_POSITIVES, score_classification
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json
from weakray.runs import open_run


class EvaluateConfig(StrictModel):
    """Settings of `weakray classify evaluate`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "batch_size", "workers", "threads"})

    data: Path = Field(description="dataset folder")
    ensemble: Path = Field(description="run folder of an ensemble")
    out: Path = Field(description="run folder; gets metrics.json")
    split: Literal["val", "test"] = Field("test", description="val chose epochs and calibration: its figures flatter")
    min_positives: int = Field(MIN_POSITIVES, ge=1, description="a finding with fewer is shown, not averaged")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")


class EvaluateResult(StrictModel):
    """The ensemble's means over findings; None where no finding has enough positives."""

    images: int
    macro_auroc: dict[str, float] | None
    macro_auprc: dict[str, float] | None


def run(config: EvaluateConfig) -> EvaluateResult:
    """Writes `metrics.json`: `{"split", "images", "ensemble": figures, "members": [figures, ...]}`.

    Figures are those of `eval.classification.score_classification`. A member's are those of its calibrated
    probabilities under the same hierarchy, as if it stood alone. Uncertain labels do not count, blank ones count as
    they did in training, and an ancestor of a present finding is present.

    Raises:
        DataError: if the dataset's findings are not the ensemble's, or the split has no image.
    """
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return EvaluateResult(**done)
    image_ids = dataset.ids_of(config.split)
    if not image_ids:
        raise DataError(f"{dataset.root}: expected images in split {config.split}, got none")
    device = torch_device(config.device)
    ensemble.to(device)
    parts: list[torch.Tensor] = []
    with (
        torch_threads(config.threads),
        tqdm(total=len(image_ids), desc=f"evaluate {config.split}", unit="image", disable=None) as bar,
    ):
        for pixels in batches(dataset, image_ids, ensemble.input, config.batch_size, config.workers):
            parts.append(ensemble.logits(pixels.to(device)).cpu())
            bar.update(len(pixels))
        ensemble.to(torch.device("cpu"))
        logits = torch.cat(parts, dim=1)
        together, alone = ensemble.graph.probabilities(logits), ensemble.graph.member_probabilities(logits)
    truth = split_truth(dataset, image_ids, ensemble.blanks)
    labels = pd.DataFrame(np.where(truth.mask, truth.values, np.nan), index=image_ids, columns=ensemble.findings)
    patient_of = {image_id: dataset.patient_of(image_id) for image_id in image_ids}

    def figures(probability: torch.Tensor) -> dict[str, Any]:
        table = pd.DataFrame(probability.numpy(), index=image_ids, columns=ensemble.findings)
        return score_classification(table, labels, patient_of, config.min_positives, config.draws, config.seed)

    whole = figures(together)
    content = {"split": config.split, "images": len(image_ids), "ensemble": whole, "members": [*map(figures, alone)]}
    write_json(folder.root / "metrics.json", content)
    result = EvaluateResult(images=len(image_ids), macro_auroc=whole["macro_auroc"], macro_auprc=whole["macro_auprc"])
    folder.finish(to_plain(result))
    return result
