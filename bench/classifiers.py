"""Are hierarchy, PCAM and an ensemble worth what they cost? Every combination rule against a flat classifier.

`python -m bench.classifiers` makes `phantom-v1` in `runs/classifiers-seed1`, trains the members of
`configs/phantom.yaml` and a flat classifier of the same backbone, steps and seed (average pooling, no class tree),
and prints the macro AUROC on test of each member and of every rule over the flat one's, paired patient by patient. What
is done there is found, not done again. `--quick` takes `configs/micro.yaml`: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.printing import Row, answer
from classify import ensemble as ensembles
from classify import train
from classify.compute import torch_device
from classify.ensemble import Ensemble, split_truth
from classify.fitting import rows as outputs
from classify.inference import member_logits
from classify.settings import TrainConfig
from classify.studies import group
from eval.classification import MIN_POSITIVES, FigureDraws, LabelledScores
from eval.intervals import PatientDraws, comparison_of
from ingest.phantom import command as phantom
from weakray.config import load, validate
from weakray.dataset import Dataset
from weakray.pipeline import PipelineConfig
from weakray.stack import silence

CONFIGS = Path(__file__).parents[1] / "configs"
FLAT: dict[str, Any] = {"hierarchy": "none", "head": {"kind": "gap"}}
DRAWS = 1000


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    parser.add_argument("--seed", type=int, default=1, help="of the phantom")
    given = parser.parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        config = load(PipelineConfig, CONFIGS / ("micro.yaml" if given.quick else "phantom.yaml"))
        root = Path(temporary) if given.quick else Path("runs") / f"classifiers-seed{given.seed}"
        found = _measured(config, root, given.seed)
    answer("classifiers", found)


def _measured(config: PipelineConfig, root: Path, seed: int) -> list[Row]:
    settings = {name: value for name, value in config.ingest.items() if name != "source"} | {"seed": seed}
    if not (root / "dataset" / "dataset.json").is_file():
        phantom.run(validate(phantom.PhantomConfig, {**settings, "out": root / "dataset"}))
    data = Dataset.load(root / "dataset")
    shared = config.classify.train
    flat = {**shared, "model": {**shared["model"], "head": FLAT["head"]}, "hierarchy": FLAT["hierarchy"]}
    alone = _ensemble(root, "flat", [flat])
    together = _ensemble(root, "ensemble", [{**shared, **own} for own in config.classify.members])
    ids = data.ids_of("test")
    draws = PatientDraws.of(ids, data.patients, DRAWS)
    peer = _figures(alone, data, ids, draws)["mean"].mean("auroc", MIN_POSITIVES)
    rows = []
    for name, figures in _figures(together, data, ids, draws).items():
        own = figures.mean("auroc", MIN_POSITIVES)
        ratio = comparison_of(*own, *peer, kind="ratio").interval
        case = f"{name.replace(' ', '-')}/vs-flat-gap"
        rows.append(Row(case, own[0], peer[0], "AUROC", ratio.value, ratio.low, ratio.high, 1))
    return rows


def _ensemble(root: Path, name: str, members: list[dict[str, Any]]) -> Ensemble:
    """Trains what is not trained yet, calibrates it on val."""
    folders = [root / name / f"member_{i}" for i in range(len(members))]
    for folder, settings in zip(folders, members, strict=True):
        train.run(validate(TrainConfig, {**settings, "data": root / "dataset", "out": folder}))
    values = {"data": root / "dataset", "members": folders, "out": root / name / "ensemble", "allow_single": True}
    ensembles.run(validate(ensembles.EnsembleConfig, values))
    return Ensemble.load(root / name / "ensemble")


def _figures(ensemble: Ensemble, data: Dataset, ids: list[str], draws: PatientDraws) -> dict[str, FigureDraws]:
    """Figures on test of each member and rule."""
    logits = member_logits(
        *(ensemble.members, data, group(data, "test", "images")),
        device=torch_device("auto"),
        batch_size=16,
        workers=2,
        told="test",
    )
    fitted = ensemble.fitted
    found = outputs(logits, fitted.scaling, fitted.weights, ensemble.taxonomy, ensemble.hierarchy)
    truth = split_truth(data, ids, ensemble.blanks)
    return {
        name: FigureDraws.of(
            LabelledScores(ids, ensemble.findings, np.asarray(own.double()), truth.values == 1, truth.mask), draws
        )
        for name, own in found.items()
    }


if __name__ == "__main__":
    main()
