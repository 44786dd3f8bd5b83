"""Films of one simulated patient, as a pure function of seed, patient number and settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.phantom.anatomy import outline
from ingest.phantom.canvas import Canvas, Pose, draw_pose
from ingest.phantom.chest import AIR, draw_chest
from ingest.phantom.devices import devices
from ingest.phantom.difficulty import Difficulty, difficulty_named
from ingest.phantom.film import Exposure, develop, draw_exposure, markers
from ingest.phantom.findings import draw_mark, true_boxes
from ingest.phantom.labels import ReportLabels, TrueLabels, labels_of, report_labels
from ingest.phantom.mimics import mimics
from ingest.phantom.patients import Case, draw_cases, reshaped
from ingest.phantom.streams import SHARED, stream
from weakray.errors import ConfigError

_SMALLEST_SHORT_SIDE_PX = 64


@dataclass(frozen=True, eq=False)
class Film:
    """One simulated image with its truth.

    Attributes:
        image: `(h, w)` uint8.
        boxes_xyxy_px: `(n, 4)` float32, half-open, inside the image, whole pixels. Every finding has its boxes,
            parents included: a nodule's box is there as Nodule, as Lung Lesion and as Lung Opacity.
        class_id: `(n,)` int64, index into FINDINGS.
        true_labels: `(findings,)` int8, 0 or 1; 1 exactly where a box exists, so ancestors follow children.
    """

    image: npt.NDArray[np.uint8]
    boxes_xyxy_px: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    true_labels: TrueLabels


@dataclass(frozen=True)
class Scene:
    """Everything that one film is rendered from."""

    seed: int
    patient: int
    image: int
    level: Difficulty
    size_hw: tuple[int, int]
    case: Case
    pose: Pose
    exposure: Exposure


def simulate_patient(seed: int, patient: int, difficulty: str, short_side_px: tuple[int, int]) -> list[Film]:
    """All films of one patient, oldest first.

    Args:
        seed: of the whole data set, >= 0.
        patient: number of the patient, >= 0; films depend on no other patient.
        difficulty: `easy`, `standard` or `hard`.
        short_side_px: smallest and largest short side; the long side is up to 1.3 times longer.

    Raises:
        ConfigError: on an unknown difficulty, a negative number or an impossible size range.
    """
    return [render(scene) for scene in patient_scenes(seed, patient, difficulty_named(difficulty), short_side_px)]


def noisy_labels(film: Film, seed: int, patient: int, image: int, difficulty: str) -> ReportLabels:
    """Labels as mined from this film's report: `(findings,)` of 1, 0, -1 (uncertain) or NaN (not mentioned).

    The mistakes are drawn from a stream of their own, so that a film's pixels do not depend on them.
    """
    rng = stream(seed, patient, image, "report")
    size_hw = (film.image.shape[0], film.image.shape[1])
    level = difficulty_named(difficulty)
    return report_labels(film.true_labels, film.boxes_xyxy_px, film.class_id, size_hw, rng, level)


def patient_scenes(seed: int, patient: int, level: Difficulty, short_side_px: tuple[int, int]) -> list[Scene]:
    """What `render` needs for each film of one patient.

    Raises:
        ConfigError: on a negative number or an impossible size range.
    """
    low, high = short_side_px
    if seed < 0 or patient < 0:
        raise ConfigError(f"seed and patient: expected whole numbers >= 0, got {seed} and {patient}")
    if not _SMALLEST_SHORT_SIDE_PX <= low <= high:
        raise ConfigError(f"short_side_px: expected {_SMALLEST_SHORT_SIDE_PX} <= low <= high, got {short_side_px}")
    scenes = []
    for image, case in enumerate(draw_cases(seed, patient, level)):
        rng = stream(seed, patient, image, "film")
        size_hw = _draw_size(rng, low, high)
        pose = draw_pose(rng, level.pose_spread)
        scenes.append(Scene(seed, patient, image, level, size_hw, case, pose, draw_exposure(size_hw, rng, level)))
    return scenes


def render(scene: Scene) -> Film:
    """The film and its truth."""
    level, case = scene.level, scene.case

    def own(purpose: str, number: int = 0) -> np.random.Generator:
        return stream(scene.seed, scene.patient, scene.image, purpose, number)

    def shared(purpose: str, number: int = 0) -> np.random.Generator:
        return stream(scene.seed, scene.patient, SHARED, purpose, number)

    canvas = Canvas(scene.size_hw, scene.pose)
    anatomy = reshaped(case, shared("outline"), level)
    chest = draw_chest(canvas, outline(anatomy), shared("bones"), own("mottle"), level.tissue_texture)
    effects = [(mark, draw_mark(chest, mark, shared(mark.finding, mark.number), level)) for mark in case.marks]

    lung_vessels = chest.vessels
    attenuation = chest.solid - np.float32(AIR) * chest.air
    filled = np.zeros(scene.size_hw, np.float32)
    for _, effect in effects:
        filled += effect.added * (1 - 0.85 * np.clip(filled * np.float32(1 / AIR), 0, 1))  # air is replaced only once
        if effect.vessels_left is not None:
            lung_vessels = lung_vessels * effect.vessels_left
    attenuation += filled + lung_vessels
    attenuation += mimics(chest, own("mimics"), level)
    shown = frozenset(mark.finding for mark in case.marks)
    attenuation += devices(canvas, chest.outlines, shown, own("devices"), level)

    lead = markers(scene.size_hw, own("markers"), level)
    image = develop(attenuation, lead, scene.exposure, own("grain"))
    boxes, class_id = true_boxes(effects, scene.exposure.field)
    return Film(image, boxes, class_id, labels_of(class_id))


def _draw_size(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    short = int(rng.integers(low, high + 1))
    long = round(short * float(1 + rng.beta(1.0, 2.5) * 0.3))
    return (long, short) if rng.random() < 0.6 else (short, long)
