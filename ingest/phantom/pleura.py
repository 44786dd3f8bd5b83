"""Pleural effusion and pneumothorax: what lies between lung and chest wall."""

from __future__ import annotations

import cv2
import numpy as np

from ingest.phantom.canvas import Canvas, Mask, Points
from ingest.phantom.chest import AIR, Chest
from ingest.phantom.curves import around
from ingest.phantom.patients import Mark
from ingest.phantom.regions import Effect, box_around


def effusion(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """Free fluid with a meniscus, from a blunted angle to half a lung; or a pocket; or a supine patient's veil."""
    canvas = chest.canvas
    kind = rng.random()
    if kind < 0.72:
        polygon, edge = _free_fluid(chest, mark, rng, size), 0.014
    elif kind < 0.86:
        polygon, edge = _pocket(chest, mark, rng, size), 0.018
    else:
        polygon, edge, strength = _veil(chest, mark, rng, size), 0.07, strength * 0.6
    mask = cv2.min(canvas.fill(polygon), chest.lungs[mark.side])
    boxes = box_around(np.where(chest.air > 0.10, mask, 0).astype(np.uint8))
    soft = canvas.soften(mask, edge)
    depth = 0.78 + 0.3 * canvas.soften(mask, 0.10)
    added = soft * depth * chest.air * np.float32(strength * AIR * 1.06 * bool(boxes))
    return Effect(added.astype(np.float32), boxes, 1 - 0.7 * soft * strength)


def pneumothorax(chest: Chest, mark: Mark, rng: np.random.Generator, strength: float, size: float) -> Effect:
    """Air around a fallen lung: dark, without vessels, bordered by a thin pleural line."""
    canvas = chest.canvas
    wall = chest.outlines.walls[mark.side]
    steps = np.arange(len(wall))
    kind = rng.random()
    depth = size * (0.20 + 0.32 * mark.severity)
    if kind < 0.66:  # apical cap
        fall = depth * np.exp(-0.5 * ((steps - rng.uniform(14, 20)) / rng.uniform(6, 10)) ** 2)
    elif kind < 0.92:  # along the whole wall
        fall = depth * np.clip((steps - 8) / 10, 0, 1) * np.clip((len(wall) - steps + 6) / 16, 0, 1)
    else:  # at the base
        depth *= 0.8
        fall = depth * np.exp(-0.5 * ((steps - rng.uniform(40, 46)) / rng.uniform(5, 8)) ** 2)
    root = np.array([mark.side * 0.22, 0.46])
    ripple = 1 + 0.08 * np.sin(steps * rng.uniform(0.2, 0.5) + rng.uniform(0, 6))
    fallen = wall + (root - wall) * (fall * ripple)[:, None]
    lung = canvas.fill(np.concatenate([fallen, chest.outlines.diaphragms[mark.side]]))
    lune = cv2.subtract(chest.lungs[mark.side], lung)
    boxes = box_around(_wide_part(canvas, np.where(chest.air > 0.10, lune, 0).astype(np.uint8)), 110)
    present = np.float32(bool(boxes))
    free = fall > 0.25 * fall.max()
    line = _line(chest, fallen[free], mark)
    dark = canvas.soften(lune, 0.008)
    added = canvas.soften(line, 0.004) * np.float32(0.19) - dark * chest.air * np.float32(0.24)
    within = canvas.soften(cv2.min(lung, chest.lungs[mark.side]), 0.02)
    added = added * np.float32(strength) + within * chest.air * np.float32(0.22 * depth * depth)
    return Effect((added * present).astype(np.float32), boxes, 1 - present * dark)


def _wide_part(canvas: Canvas, lune: Mask) -> Mask:
    """The lune without its hair-thin horns, which nobody sees or boxes."""
    side = 2 * round(0.012 * canvas.px_x) + 1
    return np.asarray(cv2.morphologyEx(lune, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)))


def _line(chest: Chest, curve: Points, mark: Mark) -> Mask:
    line = chest.canvas.stroke(chest.canvas.blank(), [curve], 0.009)
    return np.asarray(cv2.min(line, chest.lungs[mark.side]))


def _free_fluid(chest: Chest, mark: Mark, rng: np.random.Generator, size: float) -> Points:
    out, side = chest.outlines, mark.side
    angle_y = float(out.diaphragms[side][0, 1])
    amount = size * (0.03 + 0.97 * mark.severity**1.6)
    lateral = angle_y - 0.075 - 0.40 * amount  # where the meniscus meets the chest wall
    drop = rng.uniform(0.05, 0.11) + 0.04 * amount
    outer = out.wall_x(side, lateral) + 0.02
    reach = min(1.0, 0.30 + 1.1 * amount) * outer
    t = np.linspace(0, 1, 12)
    x = outer - t * reach
    y = lateral + drop * (1 - np.exp(-4.5 * t)) + 0.02 * np.clip(t - 0.8, 0, 1) * rng.uniform(-1, 1)
    floor = np.array([[x[-1], 1.05], [outer, 1.05]])
    return np.asarray(np.concatenate([np.stack([x, y], axis=1), floor]) * np.array([side, 1.0]))


def _pocket(chest: Chest, mark: Mark, rng: np.random.Generator, size: float) -> Points:
    out, side = chest.outlines, mark.side
    middle = rng.uniform(0.30, 0.72)
    half = size * (0.06 + 0.12 * mark.severity)
    depth = size * (0.10 + 0.16 * mark.severity)
    t = np.linspace(-1, 1, 9)
    y = middle + half * t
    wall = np.array([out.wall_x(side, float(v)) for v in y])
    inner = np.stack([wall - depth * (1 - t**2), y], axis=1)
    outer = np.stack([wall + 0.05, y], axis=1)[::-1]
    return np.asarray(np.concatenate([inner, outer]) * np.array([side, 1.0]))


def _veil(chest: Chest, mark: Mark, rng: np.random.Generator, size: float) -> Points:
    out, side = chest.outlines, mark.side
    top = 1 - min(0.85, size * (0.30 + 0.5 * mark.severity))
    upper = [out.lung_point(side, across, top + rng.normal(0, 0.04)) for across in (-0.1, 0.4, 1.05)]
    low_x = out.wall_x(side, 0.8) + 0.1
    return around([*upper, (side * low_x, 0.95), (side * 0.4, 1.02), (side * 0.05, 0.95)])
