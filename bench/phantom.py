"""Does `phantom-v1` separate methods as real films do? And does the simulator keep its pace?

`python -m bench.phantom` runs `configs/phantom.yaml` into `runs/phantom` (what is done there is found, not done again)
and a few-shot detector on 25 annotated images beside it, then prints the aims of the benchmark and what was reached.
`--quick` does the same with `configs/micro.yaml`: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.detector_cells import detector_stages, run_all, score, with_annotated
from bench.printing import Row, answer, at_least, at_most
from ingest.phantom.simulate import simulate_patient
from weakray.config import load
from weakray.dataset import Dataset
from weakray.files import read_json
from weakray.pipeline import PipelineConfig
from weakray.pipeline import run as run_pipeline
from weakray.stack import silence

CONFIGS = Path(__file__).parents[1] / "configs"
FEW = 25


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    quick = parser.parse_args().quick
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        config = load(PipelineConfig, CONFIGS / ("micro.yaml" if quick else "phantom.yaml"))
        config = config.model_copy(update={"out": Path(temporary) / "run"}) if quick else config
        run_pipeline(config)
        few = _few_shot(config)
        rows = [*_aims(read_json(config.root / "summary.json"), few), _pace(quick)]
    answer("phantom", rows)


def _few_shot(config: PipelineConfig) -> float:
    """AP50 on test of a detector trained on the boxes of `FEW` images, for as many steps as the others."""
    root = config.root / f"few_shot_{FEW}"
    films = with_annotated(config, FEW, root)
    stages = detector_stages(config, root / "dataset", root / "detector", {"source": "tune"})
    run_all([films, *stages])
    return score(stages[-1].folder / "boxes.json", Dataset.load(root / "dataset"), draws=1, seed=0).ap50.value


def _aims(summary: dict[str, Any], few: float) -> list[Row]:
    scores = {name: score["ap50"] for name, score in summary["scores"].items()}
    auroc, plain, ceiling = summary["classify"]["macro_auroc"], scores["gradcam_single"], scores["supervised_detector"]
    top = max(ceiling["value"], 1e-9)
    rows = []
    if auroc is not None:
        rows.append(at_least("classifiers/macro-auroc", auroc["value"], 0.85, "AUROC", (auroc["low"], auroc["high"])))
    return [
        *rows,
        at_most("plain-gradcam", plain["value"], 0.15, "AP50", (plain["low"], plain["high"])),
        at_least("supervised-yolo", ceiling["value"], 0.5, "AP50", (ceiling["low"], ceiling["high"])),
        at_most("few-shot-5-percent", scores["few_shot"]["value"] / top, 0.8, "of the ceiling's AP50"),
        at_most(f"few-shot-{FEW}-images", few / top, 0.65, "of the ceiling's AP50"),
    ]


def _pace(quick: bool) -> Row:
    """Films a second on one core at 256 px, PNG included."""
    import cv2

    cv2.setNumThreads(1)
    rates = []
    for turn in range(3):
        films, start = 0, time.perf_counter()
        for patient in range(5 if quick else 40):
            for film in simulate_patient(turn, patient, "standard", (256, 256)):
                cv2.imencode(".png", film.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
                films += 1
        rates.append(films / (time.perf_counter() - start))
    rates.sort()
    return Row("simulator/vs-limit", rates[1], 40.0, "films/s/core", rates[1] / 40, rates[0] / 40, rates[2] / 40, 3)


if __name__ == "__main__":
    main()
