"""How fast is an exported detector, from a decoded film to its boxes, beside the same network elsewhere?

`python -m bench.detect` takes an untrained yolo11n at 512 px and made films; with `--run FOLDER`, the weak detector of
a pipeline's run folder, its size, and val films of its dataset. One film at a time, all on the same number of threads,
measured in turn. Our side is the faster of OpenVINO in bf16 and in INT8 (of a run, of those that keep AP50 on tune).

- `predict/…/vs-ultralytics`: over ultralytics' `predict` in torch, on as many threads as we take, quiet.
- `predict/…/vs-ultralytics-defaults`: over the same as it comes: its own number of threads, its own score threshold.
- `predict/…/vs-onnxruntime`: over onnxruntime in fp32 as it comes, with our scaling and our choice of boxes.
- `ap50-loss/…/vs-limit`, with a run: AP50 on test that our side loses against torch, which should stay below .01.

`--quick` does the same with small images and without INT8: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.printing import Row, answer, at_most, side_by_side
from detect.compute import torch_threads
from detect.detector import BoxModel, Detector, load_detector, predict_boxes
from detect.exporting import export_detector, write_export
from detect.formats import Format, open_graph
from detect.network import new_network, save_network
from detect.parity import macro_ap50, predict_prepared
from detect.quiet_import import import_ultralytics
from ingest.phantom.simulate import simulate_patient
from weakray.bundle.manifest import DETECTOR
from weakray.bundle.parity import spread
from weakray.coco import Predictions
from weakray.dataset import Dataset
from weakray.detections import FloatArray
from weakray.imaging import Image, InputSpec, prepare, read_image, to_batch
from weakray.stack import silence

FINDINGS = 14
SCORE_ABOVE = 0.25  # of both sides: what a user is shown
LOSS_LIMIT = 0.01


@dataclass(frozen=True)
class Work:
    """How much is done: of a bench or of its quick form."""

    size_px: int
    film_px: tuple[int, int]  # short side, least and most
    films: int
    calibration: int
    turns: int
    forms: tuple[Format, ...]


QUICK = Work(64, (128, 160), films=4, calibration=4, turns=2, forms=("openvino-bf16",))
WHOLE = Work(512, (960, 1024), films=24, calibration=64, turns=7, forms=("openvino-bf16", "openvino-int8"))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images: shape of the rows only")
    parser.add_argument("--run", type=Path, help="run folder of a pipeline: its weak detector and its films")
    given = parser.parse_args()
    silence()
    cores = len(os.sched_getaffinity(0))
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as temporary,
        torch_threads(cores),
    ):
        rows = _rows(QUICK if given.quick else WHOLE, given.run, cores, Path(temporary))
    answer("detect", rows)


def _rows(work: Work, run: Path | None, cores: int, temporary: Path) -> list[Row]:
    if run is None:
        folder, dataset, name = temporary / "detector", None, "yolo11n"
        folder.mkdir()
        spec = InputSpec(size_px=work.size_px, channels=3)
        save_network(folder, new_network("yolo11n.yaml", [f"finding {i}" for i in range(FINDINGS)], spec, seed=0), {})
        films = _made_films(work)
        calibration = films
    else:
        folder, dataset = run / "detect" / "weak_detector", Dataset.load(run / "dataset")
        ids = dataset.ids_of("val")
        films = [read_image(dataset.path_of(image_id)) for image_id in spread(ids, work.films)]
        calibration = [read_image(dataset.path_of(image_id)) for image_id in spread(ids, work.calibration)]
        name = f"{run.name}-{load_detector(folder).spec.size_px}px"
    detector = load_detector(folder)
    ours = _exports(work, folder, detector, calibration, cores, temporary)
    losses: dict[str, float] = {}
    if dataset is not None:
        losses = {form: _loss(dataset, detector, model, "tune") for form, model in ours.items()}
        ours = {form: model for form, model in ours.items() if losses[form] <= LOSS_LIMIT}
    if not ours:
        raise SystemExit(f"no export keeps AP50 on tune within {LOSS_LIMIT}: {losses}")
    runs: dict[str, Callable[[Image], Any]] = {form: _ours(model) for form, model in ours.items()}
    runs["onnxruntime"] = _ours(_PlainOnnx(detector, temporary / DETECTOR, cores))
    peer, as_it_comes = _ultralytics(detector, tuned=True), _ultralytics(detector, tuned=False)
    found: dict[str, list[float]] = {key: [] for key in (*runs, "ultralytics", "ultralytics-defaults")}
    own_threads = _ultralytics_threads()
    for _ in range(work.turns):
        for key, predict in runs.items():
            found[key].append(_speed(predict, films))
        found["ultralytics"].append(_speed(peer, films))
        with torch_threads(own_threads):
            found["ultralytics-defaults"].append(_speed(as_it_comes, films))
    best = max(ours, key=lambda form: float(np.median(found[form])))
    print(f"our side: {best}; of {sorted(found)}", file=sys.stderr)
    rows = [
        side_by_side(f"predict/{name}/vs-{key}", found[best], found[key], "images/s")
        for key in ("ultralytics", "ultralytics-defaults", "onnxruntime")
    ]
    if dataset is not None:
        rows.append(
            at_most(f"ap50-loss/{name}", max(0.0, _loss(dataset, detector, ours[best], "test")), LOSS_LIMIT, "AP50")
        )
    return rows


def _made_films(work: Work) -> list[Image]:
    films: list[Image] = []
    patient = 0
    while len(films) < work.films:
        films += [film.image for film in simulate_patient(0, patient, "standard", work.film_px)]
        patient += 1
    return films[: work.films]


def _exports(
    work: Work, folder: Path, detector: Detector, films: Sequence[Image], cores: int, temporary: Path
) -> dict[str, BoxModel]:
    export_detector(folder, temporary / DETECTOR, 18)
    prepared = [prepare(film, detector.spec)[0] for film in films]
    models: dict[str, BoxModel] = {}
    for form in work.forms:
        write_export(temporary / form, form, folder, temporary / DETECTOR, prepared)
        models[form] = open_graph(temporary / form, form, detector.findings, detector.spec, cores)
    return models


class _PlainOnnx:
    """onnxruntime as its tutorial opens a session, on our number of threads."""

    def __init__(self, detector: Detector, path: Path, cores: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores
        self.findings, self.spec = detector.findings, detector.spec
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def raw(self, images: Sequence[Image]) -> FloatArray:
        return np.asarray(self._session.run(["raw"], {"images": to_batch(images)})[0], np.float32)


def _ours(model: BoxModel) -> Callable[[Image], Any]:
    return lambda film: predict_boxes(model, [film], score_above=SCORE_ABOVE)


def _ultralytics(detector: Detector, *, tuned: bool) -> Callable[[Image], Any]:
    """Its `predict` of the same network, on a film as OpenCV would read it."""
    import_ultralytics()
    from ultralytics import YOLO

    model = YOLO("yolo11n.yaml", task="detect")
    model.model = copy.deepcopy(detector.network.module).float()
    channels = detector.spec.channels
    settings: dict[str, Any] = {"imgsz": detector.spec.size_px, "verbose": False, "device": "cpu", "save": False}
    if tuned:
        settings |= {"conf": SCORE_ABOVE, "iou": 0.6, "max_det": 100}

    def predict(film: Image) -> Any:
        colour = film if film.ndim == 3 or channels == 1 else np.repeat(film[..., None], 3, axis=2)
        return model.predict(colour, **settings)

    return predict


def _ultralytics_threads() -> int:
    from ultralytics.utils import NUM_THREADS

    return int(NUM_THREADS)


def _speed(predict: Callable[[Image], Any], films: Sequence[Image]) -> float:
    """Films a second, one at a time, after one to warm up."""
    with torch.inference_mode():
        predict(films[0])
        start = time.perf_counter()
        for film in films:
            predict(film)
        return len(films) / (time.perf_counter() - start)


def _loss(dataset: Dataset, detector: Detector, model: BoxModel, split: Any) -> float:
    """AP50 of torch less that of an export."""
    truth = dataset.truth_of(split)
    prepared = {i: prepare(read_image(dataset.path_of(i)), detector.spec) for i in truth.image_ids}
    scores = []
    for each in (detector, model):
        found: Predictions = predict_prepared(each, prepared, 0.6, 100)
        scores.append(macro_ap50(found, truth, len(detector.findings)) or 0.0)
    return scores[0] - scores[1]


if __name__ == "__main__":
    main()
