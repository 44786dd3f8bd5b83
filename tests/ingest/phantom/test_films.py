"""Films: the same bytes every time, true boxes, consistent truth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ingest.phantom import FINDINGS, PARENTS, Film, simulate_patient
from ingest.phantom.difficulty import difficulty_named
from ingest.phantom.patients import Mark
from ingest.phantom.simulate import Scene, patient_scenes, render
from weakray.boxes.geometry import iou
from weakray.errors import ConfigError

SMALL = (96, 128)


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return [film for patient in range(200) for film in simulate_patient(3, patient, "standard", SMALL)]


def test_same_bytes_twice_in_any_order_and_on_any_number_of_threads() -> None:
    forward = {p: simulate_patient(11, p, "standard", (192, 200)) for p in (0, 4, 5, 7)}
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1 if threads != 1 else 2)
        backward = {p: simulate_patient(11, p, "standard", (192, 200)) for p in (7, 5, 4, 0)}
    finally:
        cv2.setNumThreads(threads)
    for patient, expected in forward.items():
        assert len(expected) == len(backward[patient])
        for a, b in zip(expected, backward[patient], strict=True):
            assert a.image.tobytes() == b.image.tobytes()
            assert a.boxes_xyxy_px.tobytes() == b.boxes_xyxy_px.tobytes()
            assert a.class_id.tobytes() == b.class_id.tobytes()


def test_seed_patient_and_film_each_make_another_image() -> None:
    first = simulate_patient(1, 0, "standard", (100, 100))[0].image
    assert first.tobytes() != simulate_patient(2, 0, "standard", (100, 100))[0].image.tobytes()
    assert first.tobytes() != simulate_patient(1, 1, "standard", (100, 100))[0].image.tobytes()
    several = next(made for p in range(20) if len(made := simulate_patient(1, p, "standard", (100, 100))) > 1)
    assert several[0].image.tobytes() != several[1].image.tobytes()


def test_arrays_have_the_promised_types_and_sizes(films: list[Film]) -> None:
    for film in films:
        height, width = film.image.shape
        assert film.image.dtype == np.uint8
        assert SMALL[0] <= min(height, width) <= SMALL[1]
        assert max(height, width) <= 1.31 * min(height, width)
        assert film.boxes_xyxy_px.dtype == np.float32
        assert film.boxes_xyxy_px.shape == (len(film.class_id), 4)
        assert film.class_id.dtype == np.int64
        assert film.true_labels.dtype == np.int8
        assert film.true_labels.shape == (len(FINDINGS),)


def test_sizes_differ_and_are_rarely_square(films: list[Film]) -> None:
    shapes = [film.image.shape for film in films]
    assert len(set(shapes)) > 100
    assert sum(h > w for h, w in shapes) > 50
    assert sum(h < w for h, w in shapes) > 50


def test_no_film_is_flat_or_burnt_out(films: list[Film]) -> None:
    for film in films:
        assert film.image.std() > 12
        assert (film.image == 255).mean() < 0.6


def test_boxes_are_whole_pixels_inside_the_film_and_not_empty(films: list[Film]) -> None:
    for film in films:
        height, width = film.image.shape
        x0, y0, x1, y1 = film.boxes_xyxy_px.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x1 <= width).all()
        assert (y1 <= height).all()
        assert (x1 - x0 >= 4).all()
        assert (y1 - y0 >= 4).all()
        assert (film.boxes_xyxy_px == np.rint(film.boxes_xyxy_px)).all()


def test_labels_are_one_exactly_where_a_box_is_and_follow_the_tree(films: list[Film]) -> None:
    for film in films:
        expected = np.isin(np.arange(len(FINDINGS)), film.class_id)
        assert (film.true_labels.astype(bool) == expected).all()
        for child, parent in PARENTS.items():
            assert film.true_labels[FINDINGS.index(parent)] >= film.true_labels[FINDINGS.index(child)]


def test_a_childs_box_lies_within_a_box_of_its_parent(films: list[Film]) -> None:
    for film in films:
        for child, parent in PARENTS.items():
            above = film.boxes_xyxy_px[film.class_id == FINDINGS.index(parent)]
            for box in film.boxes_xyxy_px[film.class_id == FINDINGS.index(child)]:
                inside = (above[:, :2] <= box[:2]).all(axis=1) & (above[:, 2:] >= box[2:]).all(axis=1)
                assert inside.any()


def test_prevalences(films: list[Film]) -> None:
    labels = np.stack([film.true_labels for film in films])
    leaves = [name for name in FINDINGS if name not in PARENTS.values()] + ["Consolidation"]
    for name in leaves:
        assert 0.08 <= labels[:, FINDINGS.index(name)].mean() <= 0.30, name
    assert 0.22 <= (labels.sum(axis=1) == 0).mean() <= 0.40


def test_findings_come_on_both_sides_and_in_numbers(films: list[Film]) -> None:
    for name in ("Nodule", "Mass", "Pneumonia", "Atelectasis", "Pleural Effusion", "Pneumothorax"):
        index = FINDINGS.index(name)
        centres = [
            (box[0] + box[2]) / 2 / film.image.shape[1]
            for film in films
            for box in film.boxes_xyxy_px[film.class_id == index]
        ]
        assert np.mean(np.array(centres) < 0.5) > 0.2, name
        assert np.mean(np.array(centres) > 0.5) > 0.2, name
    nodules = [int((film.class_id == FINDINGS.index("Nodule")).sum()) for film in films]
    assert max(nodules) >= 3


def _without(scene: Scene, mark: Mark) -> Scene:
    marks = tuple(other for other in scene.case.marks if other != mark)
    return replace(scene, case=replace(scene.case, marks=marks))


def _scenes_with(finding: str, difficulty: str, wanted: int) -> list[tuple[Scene, Mark]]:
    """First films whose finding is the only one of its tree, with devices that do not depend on findings."""
    level = replace(difficulty_named(difficulty), confounding=1.0, inverted_rate=0.0, collimation_rate=0.0)
    found: list[tuple[Scene, Mark]] = []
    for patient in range(600):
        scene = patient_scenes(21, patient, level, (192, 224))[0]
        same = [mark for mark in scene.case.marks if mark.finding == finding]
        if len(same) == 1 and same[0].severity > 0.15:
            found.append((scene, same[0]))
        if len(found) == wanted:
            return found
    raise AssertionError(f"only {len(found)} films with {finding}")


def _own_boxes(scene: Scene, mark: Mark) -> list[list[float]]:
    alone = render(replace(scene, case=replace(scene.case, marks=(mark,))))
    return alone.boxes_xyxy_px[alone.class_id == FINDINGS.index(mark.finding)].tolist()


# The least share of the squared change that lies in the boxes. A collapsed lobe also lifts the diaphragm and a
# fallen lung grows denser: signs outside the boxes, as in life.
INSIDE = {
    "Nodule": 0.85,
    "Mass": 0.85,
    "Consolidation": 0.85,
    "Pneumonia": 0.85,
    "Atelectasis": 0.25,
    "Pleural Effusion": 0.85,
    "Pneumothorax": 0.60,
    "Cardiomegaly": 0.85,
    "Enlarged Cardiomediastinum": 0.80,
}


@pytest.mark.parametrize("finding", INSIDE)
def test_leaving_a_finding_out_changes_the_film_inside_its_boxes(finding: str) -> None:
    shares, filled = [], []
    for scene, mark in _scenes_with(finding, "easy", 7):
        boxes = _own_boxes(scene, mark)
        if not boxes:
            continue
        change = render(scene).image.astype(float) - render(_without(scene, mark)).image
        energy = change**2
        inside = np.zeros(change.shape, bool)
        for x0, y0, x1, y1 in np.array(boxes).astype(int):
            margin = 4  # blur and soft edges
            inside[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin] = True
        shares.append(energy[inside].sum() / energy.sum())
        filled.append(np.abs(change)[inside].mean() / max(np.abs(change)[~inside].mean(), 1e-9))
    assert len(shares) >= 5
    assert np.median(shares) >= INSIDE[finding], shares
    assert np.median(filled) > 3, filled


@pytest.mark.parametrize("finding", ["Nodule", "Mass", "Consolidation", "Pneumonia", "Pleural Effusion", "Atelectasis"])
def test_boxes_are_as_large_as_what_is_seen(finding: str) -> None:
    overlaps = []
    for scene, mark in _scenes_with(finding, "easy", 10):
        boxes = np.array(_own_boxes(scene, mark)).reshape(-1, 4)
        quiet = replace(scene.exposure, noise=0.0, inverted=False)
        alone = replace(scene, exposure=quiet, case=replace(scene.case, marks=(mark,)))
        change = np.abs(render(alone).image.astype(np.float32) - render(_without(alone, mark)).image)
        for box in boxes if len(boxes) == 1 else []:
            x0, y0, x1, y1 = box.astype(int)
            near = np.zeros_like(change)
            near[max(y0 - 15, 0) : y1 + 15, max(x0 - 15, 0) : x1 + 15] = 1
            x, y, width, height = cv2.boundingRect(
                (change * near > 0.3 * np.percentile(change[change > 2], 95)).astype(np.uint8)
            )
            seen = np.array([[x, y, x + width, y + height]], np.float32)
            overlaps.append(float(iou(box[None].astype(np.float32), seen)[0, 0]))
    assert len(overlaps) >= 4
    assert np.median(overlaps) > 0.7, overlaps


def test_contrast_to_noise_falls_from_easy_to_hard() -> None:
    for finding in ("Nodule", "Consolidation", "Pleural Effusion", "Pneumothorax"):
        ratios = []
        for difficulty in ("easy", "standard", "hard"):
            values = []
            for scene, mark in _scenes_with(finding, difficulty, 7):
                healthy = render(_without(scene, mark)).image.astype(np.float32)
                change = np.abs(render(scene).image - healthy)
                noise = (healthy - cv2.GaussianBlur(healthy, (0, 0), 1.5)).std()
                values += [
                    change[y0:y1, x0:x1].mean() / noise
                    for x0, y0, x1, y1 in np.array(_own_boxes(scene, mark)).reshape(-1, 4).astype(int)
                ]
            ratios.append(np.median(values))
        assert ratios[0] > ratios[1] > ratios[2], (finding, ratios)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="difficulty: expected one of easy, standard, hard, got 'medium'"):
        simulate_patient(0, 0, "medium", SMALL)
    with pytest.raises(ConfigError, match=r"seed and patient: expected whole numbers >= 0, got -1 and 0"):
        simulate_patient(-1, 0, "easy", SMALL)
    with pytest.raises(ConfigError, match=r"short_side_px: expected 64 <= low <= high, got \(128, 96\)"):
        simulate_patient(0, 0, "easy", (128, 96))
