"""Ribs, clavicles, scapulae and spine, as one attenuation layer."""

from __future__ import annotations

import cv2
import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT, Outlines
from ingest.phantom.canvas import Canvas, Field, Points
from ingest.phantom.curves import through

_BACK_RIBS = 10
_FRONT_RIBS = 7


def skeleton(canvas: Canvas, out: Outlines, rng: np.random.Generator) -> Field:
    """Attenuation that the bones add, `(h, w)`, >= 0.

    `rng` belongs to the patient: the same ribs come back in every film.
    """
    a = out.anatomy
    back, front = _ribs(out, rng)
    ribs = canvas.stroke(canvas.blank(), back, a.rib_width)
    canvas.stroke(ribs, back, a.rib_width * 0.45, 150)  # cortex is denser than marrow
    fronts = canvas.stroke(canvas.blank(), front, a.rib_width * 1.15, 190)
    canvas.stroke(fronts, front, a.rib_width * 0.5, 120)
    ribs = cv2.addWeighted(ribs, 0.75, fronts, 0.6, 0)

    rest = canvas.blank()
    for side in (RIGHT, LEFT):
        clavicle, blade, arm = _shoulder(out, side, rng)
        canvas.stroke(rest, [clavicle], 0.062, 230)
        canvas.stroke(rest, [clavicle], 0.03, 150)
        shade = canvas.fill(blade)
        rest = cv2.max(rest, shade // 4)
        canvas.stroke(rest, [blade], 0.018, 150)
        canvas.stroke(rest, [arm], 0.15, 210)
    bones = canvas.soften(ribs, 0.008) * np.float32(a.rib_contrast)
    bones += canvas.soften(rest, 0.01) * np.float32(a.bone_contrast * 0.8)
    bones += _spine(canvas, out) * np.float32(a.bone_contrast)
    return bones


def _ribs(out: Outlines, rng: np.random.Generator) -> tuple[list[Points], list[Points]]:
    a = out.anatomy
    t = np.linspace(0, 1, 14)
    back, front = [], []
    wander = rng.normal(0, 0.004, (2, _BACK_RIBS))
    for row, side in enumerate((RIGHT, LEFT)):
        for i in range(_BACK_RIBS):
            start = a.apex_y - 0.035 + a.rib_gap * i + wander[row, i]
            drop = a.rib_slope * (0.6 + 0.09 * i)
            end_x = out.wall_x(side, start + drop) + 0.015
            x = 0.07 + (end_x - 0.07) * np.sin(t * np.pi / 2) ** 0.9
            y = start - 0.028 * np.sin(np.pi * np.minimum(t * 1.5, 1)) + drop * t**2.2
            back.append(np.stack([side * x, y], axis=1))
            if i < _FRONT_RIBS:
                fall = 0.07 + 0.012 * i
                inner = 0.22 + 0.035 * i
                fx = end_x - (end_x - inner) * (1 - (1 - t) ** 1.6)
                fy = y[-1] + fall * t + 0.02 * np.sin(np.pi * t)
                front.append(np.stack([side * fx, fy], axis=1))
    return back, front


def _shoulder(out: Outlines, side: int, rng: np.random.Generator) -> tuple[Points, Points, Points]:
    a = out.anatomy
    high = a.apex_y + 0.03 + a.clavicle_drop + float(rng.normal(0, 0.008))
    clavicle = through(
        [(0.07, high + 0.05), (0.22, high + 0.025), (0.42, high + 0.01), (0.62, high - 0.035), (0.83, high - 0.05)]
    )
    inset = float(rng.normal(0.0, 0.05))  # arms pulled forward move the blade off the lung
    blade = through(
        [(0.80, 0.10), (0.70 + inset, 0.15), (0.69 + inset, 0.28), (0.74 + inset, 0.41), (0.82, 0.28), (0.88, 0.14)]
    )
    arm = through([(0.96, 0.14), (1.03, 0.26), (1.08, 0.48)])
    scale = np.array([side * a.breadth, 1.0])
    return clavicle * scale, blade * scale, arm * scale


def _spine(canvas: Canvas, out: Outlines) -> Field:
    a = out.anatomy
    y = np.linspace(-0.1, 1.2, 60)
    x = a.scoliosis * np.sin(np.pi * y)
    column = np.stack([x, y], axis=1)
    mask = canvas.stroke(canvas.blank(), [column], 0.15, 150)
    levels = np.arange(-0.08, 1.2, 0.058)
    sway = a.scoliosis * np.sin(np.pi * levels)
    discs = [np.array([[s - 0.07, v], [s + 0.07, v + 0.002]]) for s, v in zip(sway, levels, strict=True)]
    canvas.stroke(mask, discs, 0.016, 80)
    knobs = [np.array([[s, v + 0.022], [s, v + 0.036]]) for s, v in zip(sway, levels, strict=True)]
    canvas.stroke(mask, knobs, 0.03, 205)
    return canvas.soften(mask, 0.012)
