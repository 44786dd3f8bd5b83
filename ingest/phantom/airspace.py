"""Consolidation, pneumonia and atelectasis: opacities that take a lung's own shape."""

from __future__ import annotations

import cv2
import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT
from ingest.phantom.canvas import Field, Mask, Points
from ingest.phantom.chest import AIR, Chest
from ingest.phantom.curves import around, through, wobbly
from ingest.phantom.patients import Mark
from ingest.phantom.regions import Box, Effect, box_around

# Lobes in lung coordinates (across, down): from, to; and which border is a sharp fissure.
_LOBES: dict[int, tuple[tuple[float, float, float, float, str], ...]] = {
    RIGHT: ((0.0, 1.0, 0.03, 0.47, "below"), (0.0, 0.75, 0.50, 0.92, "above"), (0.1, 1.0, 0.52, 1.05, "none")),
    LEFT: ((0.05, 1.0, 0.03, 0.50, "none"), (0.05, 0.6, 0.45, 0.80, "none"), (0.3, 1.0, 0.58, 1.08, "none")),
}


def consolidation(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """An evenly filled part of a lobe: sharp at a fissure, denser downwards, with air bronchograms."""
    left, right, top, bottom, fissure = _LOBES[mark.side][int(rng.integers(3))]
    extent = min(1.0, size * (0.50 + 0.5 * mark.severity))
    width, height = (right - left) * extent, (bottom - top) * extent * rng.uniform(0.8, 1.0)
    x0 = left + (right - left - width) * rng.uniform(0, 1)
    slack = bottom - top - height
    y0 = {"below": bottom - height, "above": top, "none": top + slack * rng.uniform(0.3, 1)}[fissure]
    polygon = _lung_polygon(chest, mark.side, rng, (x0, x0 + width, y0, y0 + height), fissure)
    canvas = chest.canvas
    mask = cv2.min(canvas.fill(polygon), chest.lungs[mark.side])
    boxes = box_around(_seen(chest, mask))
    soft = canvas.soften(mask, 0.012 if fissure != "none" else rng.uniform(0.02, 0.045))
    gravity = 0.8 + 0.4 * np.linspace(0, 1, canvas.size_hw[0], dtype=np.float32)[:, None] * rng.uniform(0, 1)
    fill = np.clip(0.92 + 0.14 * canvas.noise(rng, 0.12), 0, 1.2) * gravity
    fill *= 1 - np.float32(rng.uniform(0.25, 0.6)) * _bronchograms(chest, mark.side, rng)
    added = soft * fill * np.float32(strength * AIR) * chest.air
    return Effect(added.astype(np.float32), boxes, 1 - 0.75 * soft)


def pneumonia(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """One or two clusters of fluffy, mottled patches towards the pleura, without a sharp border."""
    canvas = chest.canvas
    clusters = 1 + int(rng.random() < 0.3)
    grains = np.clip(0.88 + 0.24 * canvas.noise(rng, 0.055) + 0.11 * canvas.noise(rng, 0.025), 0.25, 1.3)
    added = np.zeros(canvas.size_hw, np.float32)
    kept = np.ones(canvas.size_hw, np.float32)
    boxes: list[Box] = []
    for _ in range(clusters):
        across, down = rng.uniform(0.45, 1.0), rng.uniform(0.12, 1.0)
        x, y = chest.outlines.lung_point(mark.side, across, down)
        spread = size * (0.07 + 0.13 * mark.severity) * rng.uniform(0.8, 1.2)
        patches = []
        for _ in range(int(rng.integers(4, 10))):
            dx, dy = np.clip(rng.normal(0, 1, 2), -1.6, 1.6) * (spread, spread * 0.6)
            patches.append(wobbly(rng, (x + dx, y + dy), spread * rng.uniform(0.4, 0.85), 1.4, 0.25))
        mask = cv2.min(canvas.fill(*patches), chest.lungs[mark.side])
        found = box_around(_seen(chest, mask))
        soft = canvas.soften(mask, 0.028) * np.float32(bool(found))
        added = np.maximum(added, soft)
        kept *= 1 - 0.35 * soft
        boxes += found
    return Effect((added * grains * chest.air * np.float32(strength * AIR)).astype(np.float32), tuple(boxes), kept)


def atelectasis(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """Plates across the lower lung, or a lobe shrunk to a wedge against hilum or diaphragm."""
    canvas, side = chest.canvas, mark.side
    if rng.random() < 0.68:
        mask = _plates(chest, mark, rng, size)
        soft = canvas.soften(mask, rng.uniform(0.008, 0.016))
        kept = None
    else:
        mask = cv2.min(canvas.fill(_wedge(chest, mark, rng, size)), chest.lungs[side])
        soft = canvas.soften(mask, 0.012) * (0.7 + 0.5 * canvas.soften(mask, 0.06))
        kept = 1 - 0.8 * soft
    boxes = box_around(_seen(chest, mask))
    shown = 0.15 + 0.85 * chest.air
    return Effect((soft * shown * np.float32(strength * AIR * bool(boxes))).astype(np.float32), boxes, kept)


def _plates(chest: Chest, mark: Mark, rng: np.random.Generator, size: float) -> Mask:
    canvas = chest.canvas
    mask = canvas.blank()
    down = rng.uniform(0.5, 0.97)
    across = rng.uniform(0.15, 0.6)
    tilt = rng.normal(0, 0.35)
    for _ in range(1 + int(rng.choice(3, p=(0.3, 0.4, 0.3)))):
        x, y = chest.outlines.lung_point(mark.side, across, down)
        length = size * (0.22 + 0.30 * mark.severity) * rng.uniform(0.75, 1.1)
        bow = rng.normal(0, 0.02)
        t = np.linspace(0, 1, 7)
        run = (t - 0.25) * length
        curve = np.stack([x + mark.side * run, y + (run * np.sin(tilt)) / 2 + bow * np.sin(np.pi * t)], axis=1)
        width = size * rng.uniform(0.014, 0.038)
        canvas.stroke(mask, [curve], width)
        canvas.stroke(mask, [curve[2:5]], width * 1.5)
        down += rng.uniform(0.07, 0.14) * (1 if rng.random() < 0.5 else -1)
        across = float(np.clip(across + rng.normal(0, 0.12), 0.05, 0.7))
        tilt += rng.normal(0, 0.08)
    return np.asarray(cv2.min(mask, chest.lungs[mark.side]))


def _wedge(chest: Chest, mark: Mark, rng: np.random.Generator, size: float) -> Points:
    out, side = chest.outlines, mark.side
    reach = min(1.0, size * (0.45 + 0.5 * mark.severity))
    if rng.random() < 0.45:  # upper lobe, folded up against the mediastinum
        corners = [(-0.1, 0.0), (0.5 * reach + 0.2, 0.0), (0.38 * reach, 0.20 * reach), (-0.1, 0.15 + 0.32 * reach)]
    else:  # lower lobe, folded down to hilum and diaphragm
        corners = [(-0.15, 0.55), (0.10, 0.60), (0.30 * reach, 0.82), (0.40 + 0.5 * reach, 1.06), (-0.15, 1.08)]
    points = [out.lung_point(side, across + rng.normal(0, 0.03), down) for across, down in corners]
    return through([*points, points[0]]) if len(points) < 5 else around(points)


def _lung_polygon(
    chest: Chest, side: int, rng: np.random.Generator, window: tuple[float, float, float, float], fissure: str
) -> Points:
    """A region of lung coordinates with rough borders, straight at the fissure."""
    x0, x1, y0, y1 = window
    t = np.linspace(0, 1, 6)[:-1]
    across = np.concatenate([x0 + (x1 - x0) * t, np.full(5, x1), x1 - (x1 - x0) * t, np.full(5, x0)])
    down = np.concatenate([np.full(5, y0), y0 + (y1 - y0) * t, np.full(5, y1), y1 - (y1 - y0) * t])
    rough = rng.normal(0, 0.05, (2, 20)) * np.array([[x1 - x0 + 0.3], [y1 - y0]])
    if fissure == "above":
        rough[1, :6] = 0
    if fissure == "below":
        rough[1, 10:16] = 0
    across, down = across + rough[0], down + rough[1]
    corner = (np.abs(across - (x0 + x1) / 2) / (x1 - x0) + np.abs(down - (y0 + y1) / 2) / (y1 - y0)) > 0.85
    cut = np.where(corner, rng.uniform(0.75, 0.95), 1.0)
    across = (x0 + x1) / 2 + (across - (x0 + x1) / 2) * cut
    return around([chest.outlines.lung_point(side, float(u), float(v)) for u, v in zip(across, down, strict=True)])


def _bronchograms(chest: Chest, side: int, rng: np.random.Generator) -> Field:
    branches = []
    for _ in range(int(rng.integers(4, 8))):
        heading = rng.uniform(-1.2, 1.3)
        t = np.linspace(0, 1, 6) * rng.uniform(0.3, 0.65)
        bent = heading + rng.normal(0, 0.5) * t
        x = 0.17 + np.cos(bent) * t
        branches.append(np.stack([side * x, 0.42 + np.sin(bent) * t / 2], axis=1))
    mask = chest.canvas.stroke(chest.canvas.blank(), branches, 0.018)
    return chest.canvas.soften(mask, 0.008)


def _seen(chest: Chest, mask: Mask) -> Mask:
    """The part of a mask that has air around it to show against."""
    return np.where(chest.air > 0.12, mask, 0).astype(np.uint8)
