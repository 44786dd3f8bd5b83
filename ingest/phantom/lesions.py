"""Nodules and masses: round opacities, from ground glass to calcified, smooth to spiculated, whole to cavitated."""

from __future__ import annotations

import cv2
import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT
from ingest.phantom.canvas import Canvas, Field, Mask, Points
from ingest.phantom.chest import AIR, Chest
from ingest.phantom.curves import wobbly
from ingest.phantom.patients import Mark
from ingest.phantom.regions import Box, Effect, box_around


def nodules(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """One nodule or several; diameters of 5 to 11 % of the chest's full width."""
    count = 1 + int(rng.choice(5, p=(0.58, 0.17, 0.11, 0.08, 0.06)))
    added = np.zeros(chest.canvas.size_hw, np.float32)
    boxes: list[Box] = []
    lungs = cv2.max(chest.lungs[RIGHT], chest.lungs[LEFT])
    for i in range(count):
        side = mark.side if i == 0 or rng.random() < 0.5 else (LEFT if rng.random() < 0.5 else RIGHT)
        across, down = rng.uniform(0.10, 0.92), rng.uniform(0.06, 0.93)
        radius = size * (0.055 + 0.05 * float(np.clip(mark.severity + rng.normal(0, 0.25), 0, 1)))
        outline = wobbly(rng, chest.outlines.lung_point(side, across, down), radius, rng.uniform(1, 1.5), 0.10, 4)
        kind = rng.random()
        weight = strength * rng.uniform(0.8, 1.2)
        if kind < 0.16:  # calcified: small and dense
            weight *= 1.35
        elif kind < 0.40:  # ground glass: faint and soft
            weight *= 0.72
        mask = cv2.min(chest.canvas.fill(outline), lungs)
        found = box_around(mask, 90)
        if not found:
            continue
        edge = rng.uniform(0.12, 0.40) if kind > 0.16 else 0.08
        added += _dome(chest.canvas, mask, radius, edge, found[0]) * np.float32(weight * AIR)
        boxes += found
    return Effect(added * _shown(chest), tuple(boxes))


def mass(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """One large lesion: lobulated or spiculated, sometimes cavitated, sometimes against hilum or chest wall."""
    seat = rng.random()
    if seat < 0.3:
        across = rng.uniform(0.0, 0.2)
    elif seat < 0.55:
        across = rng.uniform(0.8, 0.98)
    else:
        across = rng.uniform(0.25, 0.75)
    x, y = chest.outlines.lung_point(mark.side, across, rng.uniform(0.08, 0.9))
    radius = size * (0.125 + 0.13 * mark.severity)
    outline = wobbly(rng, (x, y), radius, rng.uniform(1, 1.7), rng.uniform(0.05, 0.28), int(rng.integers(4, 8)))
    canvas = chest.canvas
    mask = canvas.fill(outline)
    if rng.random() < 0.55:
        _spicules(canvas, mask, outline, (x, y), rng)
    mask = np.asarray(cv2.min(mask, cv2.max(chest.lungs[RIGHT], chest.lungs[LEFT])), np.uint8)
    boxes = box_around(mask, 90)
    if not boxes:
        return Effect(np.zeros(canvas.size_hw, np.float32), ())
    body = _dome(canvas, mask, radius, rng.uniform(0.05, 0.22), boxes[0])
    if rng.random() < 0.22:  # a cavity: air inside a wall
        hole = wobbly(rng, (x, y), radius * rng.uniform(0.45, 0.7), 1.2, 0.15)
        body = body * (1 - np.float32(rng.uniform(0.5, 0.9)) * canvas.soften(canvas.fill(hole), 0.02))
    body = body * (1 + 0.12 * canvas.noise(rng, 0.06))
    return Effect(body * np.float32(strength * AIR) * _shown(chest), boxes)


def _dome(canvas: Canvas, mask: Mask, radius: float, edge: float, box: Box) -> Field:
    """A solid body's path length: thick in the middle, `edge` of its radius soft at the rim."""
    margin = int(1.2 * radius * canvas.px_x) + 3
    height, width = canvas.size_hw
    rows = slice(max(box[1] - margin, 0), min(box[3] + margin, height))
    cols = slice(max(box[0] - margin, 0), min(box[2] + margin, width))
    part = np.ascontiguousarray(mask[rows, cols])
    rim = canvas.soften(part, edge * radius)
    thick = canvas.soften(part, 0.5 * radius)
    dome = np.zeros(canvas.size_hw, np.float32)
    dome[rows, cols] = rim * (0.45 + 0.75 * thick)
    return dome


def _spicules(
    canvas: Canvas, mask: Mask, outline: Points, centre: tuple[float, float], rng: np.random.Generator
) -> None:
    middle = np.array(centre)
    rays = []
    for i in rng.choice(len(outline), int(rng.integers(7, 16)), replace=False):
        reach = rng.uniform(1.15, 1.45)
        rays.append(np.stack([middle + 0.8 * (outline[i] - middle), middle + reach * (outline[i] - middle)]))
    canvas.stroke(mask, rays, 0.012, 150)


def _shown(chest: Chest) -> Field:
    """How well an opacity shows: fully in air, faintly behind heart and diaphragm."""
    both = cv2.max(chest.lungs[RIGHT], chest.lungs[LEFT])
    return np.asarray(0.25 + 0.75 * np.minimum(chest.air * 1.3, 1) * (both > 0), np.float32)
