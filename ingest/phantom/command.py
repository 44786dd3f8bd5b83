"""`weakray ingest phantom`: a dataset folder of simulated films."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from ingest.gaps import split_gaps
from ingest.phantom.difficulty import Difficulty, difficulty_named
from ingest.phantom.frozen import frozen_name
from ingest.phantom.labels import report_labels
from ingest.phantom.patients import draw_cases
from ingest.phantom.reports import ReportLanguage, write_report
from ingest.phantom.simulate import Film, patient_scenes, render
from ingest.phantom.streams import stream
from ingest.phantom.taxonomy import FINDINGS, PARENTS
from ingest.result import IngestResult
from weakray.coco import BoxTruth
from weakray.config import StrictModel
from weakray.dataset import SPLITS, Split, write_dataset
from weakray.detections import Detections
from weakray.files import sha256_bytes, sha256_json, write_text
from weakray.taxonomy import Finding, Taxonomy

# Each split draws its patients from a range of numbers of its own, so that its films do not depend on the sizes of
# the others: the same seed has the same test set whatever is trained on.
_FIRST_PATIENT: dict[Split, int] = {"train": 0, "val": 1_000_000, "tune": 2_000_000, "test": 3_000_000}


class LabelNoise(StrictModel):
    """Rates of mistakes in the train labels; None takes the difficulty's."""

    missed_rate: float | None = Field(None, ge=0, le=1, description="present findings the report leaves out")
    invented_rate: float | None = Field(None, ge=0, le=1, description="absent findings reported as present")
    uncertain_positive_rate: float | None = Field(
        None, ge=0, le=1, description="present findings reported as uncertain"
    )
    uncertain_negative_rate: float | None = Field(None, ge=0, le=1, description="absent findings reported as uncertain")
    blank_rate: float | None = Field(None, ge=0, le=1, description="absent findings of which the report says nothing")


class PhantomConfig(StrictModel):
    """A phantom data set: sizes of the splits in images, what the films are like, how wrong the labels are."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"out", "workers"})

    out: Path = Field(description="dataset folder to write")
    seed: int = Field(1, ge=0, description="of films and label noise")
    difficulty: Literal["easy", "standard", "hard"] = Field("standard", description="how visible findings are")
    short_side_px: tuple[int, int] = Field((192, 256), description="smallest and largest short side of a film")
    train: int = Field(2000, ge=1, description="train images: noisy labels, boxes for the ceiling only")
    val: int = Field(400, ge=1, description="val images: true labels, no boxes")
    tune: int = Field(100, ge=0, description="annotated images to choose and calibrate on; 0: none")
    test: int = Field(1000, ge=1, description="annotated images to score on")
    noise: LabelNoise = LabelNoise()
    reports: tuple[ReportLanguage, ...] = Field(
        (), description="languages, fr and en, in which reports.LANGUAGE.jsonl tells of every film what its labels say"
    )
    workers: int = Field(2, ge=1, description="processes; any number gives the same bytes")


@dataclass(frozen=True)
class _Job:
    """One patient to render: how many of its films are wanted, and where they go."""

    split: Split
    patient: int
    films: int
    seed: int
    level: Difficulty
    short_side_px: tuple[int, int]
    folder: Path
    reports: tuple[ReportLanguage, ...]


@dataclass(frozen=True)
class _Row:
    """What the tables hold of one film written."""

    image_id: str
    split: Split
    patient: int
    size_hw: tuple[int, int]
    sha256: str
    labels: list[float]
    boxes: Detections
    reports: dict[ReportLanguage, str]

    @property
    def corners(self) -> list[list[int]]:
        """The boxes' corners: whole pixels."""
        return [[int(value) for value in box] for box in self.boxes.boxes_xyxy_px]


def run(config: PhantomConfig) -> IngestResult:
    """Simulates the films and writes the dataset folder; `test` is the same for any sizes of the other splits."""
    set_by_user = {name: rate for name, rate in config.noise.model_dump().items() if rate is not None}
    level = replace(difficulty_named(config.difficulty), **set_by_user)
    shutil.rmtree(config.out / "images", ignore_errors=True)
    (config.out / "images").mkdir(parents=True)
    jobs = [job for split in SPLITS for job in _jobs(config, split, level)]
    rows = [row for done in tqdm(_rendered(jobs, config.workers), "films", len(jobs), disable=None) for row in done]
    images = pd.DataFrame(
        {
            "image_id": [row.image_id for row in rows],
            "path": [f"images/{row.image_id}.png" for row in rows],
            "patient_id": [f"p{row.patient:07d}" for row in rows],
            "study_id": [row.image_id for row in rows],
            "view": "PA",
            "height": [row.size_hw[0] for row in rows],
            "width": [row.size_hw[1] for row in rows],
            "split": [row.split for row in rows],
            "sha256": [row.sha256 for row in rows],
            "source": "phantom",
        }
    )
    labels = pd.DataFrame([row.labels for row in rows], columns=list(FINDINGS), index=images["image_id"])
    fingerprint = _fingerprint(rows)
    truth = _truth(rows, ("tune", "test"))
    ids_of = {split: [row.image_id for row in rows if row.split == split] for split in SPLITS}
    _write_reports(config.out, rows, config.reports)
    dataset = write_dataset(
        config.out,
        images=images,
        labels=labels,
        taxonomy=Taxonomy(tuple(Finding(name, PARENTS.get(name)) for name in FINDINGS)),
        truth=truth,
        ceiling=_truth(rows, ("train",)),
        rejected=[],
        info={
            "origin": f"weakray {frozen_name(fingerprint) or 'phantom'}: simulated films, no patient",
            "licence": "CC0-1.0",
            "labels_and_boxes_sha256": fingerprint,
            "warnings": split_gaps(ids_of, labels, truth),
            "settings": {name: v for name, v in config.model_dump(mode="json").items() if name not in config.unhashed},
        },
    )
    return IngestResult.of(dataset)


def _write_reports(out: Path, rows: list[_Row], languages: tuple[ReportLanguage, ...]) -> None:
    for path in out.glob("reports.*.jsonl"):
        path.unlink()
    for language in languages:
        lines = [json.dumps({"image_id": r.image_id, "report": r.reports[language]}, ensure_ascii=False) for r in rows]
        write_text(out / f"reports.{language}.jsonl", "".join(f"{line}\n" for line in lines))


def _fingerprint(rows: list[_Row]) -> str:
    """Names this set of films by what is to be learnt and found in them, whatever the file formats' versions."""
    return sha256_json(
        [
            [
                row.image_id,
                [None if np.isnan(label) else int(label) for label in row.labels],
                [[class_id, *box] for class_id, box in zip(row.boxes.class_id.tolist(), row.corners, strict=True)],
            ]
            for row in rows
        ]
    )


def _jobs(config: PhantomConfig, split: Split, level: Difficulty) -> Iterator[_Job]:
    wanted: int = getattr(config, split)
    patient = _FIRST_PATIENT[split]
    while wanted > 0:
        films = min(wanted, len(draw_cases(config.seed, patient, level)))
        yield _Job(
            split, patient, films, config.seed, level, config.short_side_px, config.out / "images", config.reports
        )
        wanted, patient = wanted - films, patient + 1


def _rendered(jobs: list[_Job], workers: int) -> Iterator[list[_Row]]:
    if workers == 1:
        yield from map(_render, jobs)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(_render, jobs, chunksize=8)


def _render(job: _Job) -> list[_Row]:
    rows: list[_Row] = []
    for number, scene in enumerate(patient_scenes(job.seed, job.patient, job.level, job.short_side_px)[: job.films]):
        film = render(scene)
        image_id = f"p{job.patient:07d}_{number}"
        content = cv2.imencode(".png", film.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        (job.folder / f"{image_id}.png").write_bytes(content)
        size_hw = (film.image.shape[0], film.image.shape[1])
        labels = _labels(film, job, number) if job.split == "train" else film.true_labels.astype(float).tolist()
        boxes = Detections(film.boxes_xyxy_px, film.class_id, np.ones(len(film.class_id), np.float32))
        reports = {language: _report(film, job, number, labels, language) for language in job.reports}
        rows.append(_Row(image_id, job.split, job.patient, size_hw, sha256_bytes(content), labels, boxes, reports))
    return rows


def _labels(film: Film, job: _Job, number: int) -> list[float]:
    size_hw = (film.image.shape[0], film.image.shape[1])
    rng = stream(job.seed, job.patient, number, "report")
    said: Any = report_labels(film.true_labels, film.boxes_xyxy_px, film.class_id, size_hw, rng, job.level)
    return [float(value) for value in said]


def _report(film: Film, job: _Job, number: int, labels: list[float], language: ReportLanguage) -> str:
    rng = stream(job.seed, job.patient, number, f"wording {language}")
    said = np.array(labels, np.float32)
    return write_report(said, film.boxes_xyxy_px, film.class_id, film.image.shape[1], rng, language)


def _truth(rows: list[_Row], splits: tuple[Split, ...]) -> BoxTruth:
    kept = [row for row in rows if row.split in splits]
    pairs = frozenset((row.image_id, class_id) for row in kept for class_id in range(len(FINDINGS)))
    return BoxTruth({row.image_id: row.boxes for row in kept}, pairs)
