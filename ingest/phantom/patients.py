"""Who is filmed: which findings a patient has, on which side, and how they change from film to film."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT, Anatomy, breathe, draw_anatomy
from ingest.phantom.difficulty import Difficulty
from ingest.phantom.streams import SHARED, stream

_FILM_COUNT_RATES = (0.42, 0.28, 0.18, 0.12)  # of patients with 1, 2, 3, 4 films

# What a sick patient's findings owe to four latent causes: heart failure, infection, tumour, accident or surgery.
# The first number is the rate among sick patients; a row's loadings make findings of one cause come together.
_CAUSES: dict[str, tuple[float, tuple[float, float, float, float]]] = {
    "Cardiomegaly": (0.24, (0.75, 0.0, -0.1, 0.0)),
    "Enlarged Cardiomediastinum": (0.11, (0.2, 0.0, 0.3, 0.3)),
    "Pleural Effusion": (0.30, (0.6, 0.3, 0.3, 0.1)),
    "Pneumonia": (0.19, (0.0, 0.75, 0.0, 0.0)),
    "Consolidation": (0.13, (0.1, 0.5, 0.1, 0.2)),
    "Atelectasis": (0.22, (0.1, 0.3, 0.2, 0.5)),
    "Nodule": (0.20, (0.0, 0.0, 0.6, 0.0)),
    "Mass": (0.16, (0.0, 0.0, 0.6, 0.0)),
    "Pneumothorax": (0.16, (-0.2, 0.0, 0.0, 0.6)),
}
_RIGHT_RATE = {"Pleural Effusion": 0.55, "Pneumothorax": 0.52, "Pneumonia": 0.55, "Cardiomegaly": 0.5}
_BILATERAL_RATE = {"Pleural Effusion": 0.3, "Pneumonia": 0.25, "Atelectasis": 0.2, "Consolidation": 0.1}


@dataclass(frozen=True)
class Mark:
    """One finding of one film, before it is drawn.

    Attributes:
        finding: a name of FINDINGS.
        side: RIGHT or LEFT; of no meaning for heart and mediastinum.
        number: counts the patient's findings; names the mark's random stream, which all his films share.
        severity: 0 barely there to 1 severe, as of this film.
    """

    finding: str
    side: int
    number: int
    severity: float


@dataclass(frozen=True)
class Case:
    """What one film shows: the anatomy as of this exposure without its findings, and the findings."""

    anatomy: Anatomy
    marks: tuple[Mark, ...]


def draw_cases(seed: int, patient: int, level: Difficulty) -> list[Case]:
    """All films of one patient: a shared anatomy and course, other breath and severity each time."""
    rng = stream(seed, patient, SHARED, "course")
    anatomy = draw_anatomy(stream(seed, patient, SHARED, "anatomy"))
    marks = _draw_marks(rng, level)
    count = 1 + int(rng.choice(len(_FILM_COUNT_RATES), p=_FILM_COUNT_RATES))
    trend = rng.normal(0, 0.12, len(marks))
    cases = []
    for image in range(count):
        change = stream(seed, patient, image, "progress")
        shown = []
        for mark, slope in zip(marks, trend, strict=True):
            severity = mark.severity + slope * image + change.normal(0, 0.05)
            resolved = change.random() < 0.12 and count > 1
            if not resolved:
                shown.append(replace(mark, severity=float(np.clip(severity, 0, 1))))
        cases.append(Case(breathe(anatomy, change), tuple(shown)))
    return cases


def _draw_marks(rng: np.random.Generator, level: Difficulty) -> list[Mark]:
    if rng.random() >= level.sick_rate:
        return []
    causes = rng.standard_normal(4)
    marks: list[Mark] = []
    for finding, (rate, loadings) in _CAUSES.items():
        load = np.array(loadings)
        latent = causes @ load + rng.standard_normal() * np.sqrt(1 - load @ load)
        side = RIGHT if rng.random() < _RIGHT_RATE.get(finding, 0.5) else LEFT
        both = rng.random() < _BILATERAL_RATE.get(finding, 0.0)
        severities = rng.beta(1.3, 1.4, 2)
        if latent > -NormalDist().inv_cdf(min(rate * level.finding_rate, 0.95)):
            for each, severity in ((side, severities[0]), (-side, severities[1]))[: 1 + both]:
                marks.append(Mark(finding, each, len(marks), float(severity)))
    return marks


def reshaped(case: Case, rng: np.random.Generator, level: Difficulty) -> Anatomy:
    """The anatomy with what findings do to its outlines: a large heart, a wide mediastinum, a raised diaphragm."""
    anatomy = case.anatomy
    share = float(rng.uniform(0.15, 0.85))  # of the widening that goes to the right
    for mark in case.marks:
        if mark.finding == "Cardiomegaly":
            low, high = level.contrast.heart_ratio
            anatomy = replace(anatomy, heart_ratio=low + (high - low) * mark.severity)
        elif mark.finding == "Enlarged Cardiomediastinum":
            low, high = level.contrast.widening
            width = low + (high - low) * mark.severity
            anatomy = replace(anatomy, widening=(width * share, width * (1 - share)))
        elif mark.finding == "Atelectasis":
            right, left = anatomy.dome_y
            lift = 0.022 * mark.severity
            dome = (right - lift, left) if mark.side == RIGHT else (right, left - lift)
            anatomy = replace(anatomy, dome_y=dome)
    return anatomy
