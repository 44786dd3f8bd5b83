"""Branching lung vessels and the hila they leave from."""

from __future__ import annotations

import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT, Outlines
from ingest.phantom.canvas import Canvas, Field

# By branching generation: width in units of x, grey value of the stroke, length in units of x.
_GENERATIONS = ((0.028, 200, 0.17), (0.020, 150, 0.15), (0.014, 110, 0.13), (0.010, 80, 0.11), (0.008, 55, 0.09))
_TRUNKS = 9


def vessels(canvas: Canvas, out: Outlines, rng: np.random.Generator) -> Field:
    """Attenuation of the vessel tree before the lung's own shape is applied, `(h, w)`, >= 0.

    `rng` belongs to the patient: the same tree comes back in every film.
    """
    side = np.repeat([RIGHT, LEFT], _TRUNKS)
    start = np.stack([0.15 + 0.01 * side, 0.42 - 0.015 * side], axis=1) + rng.normal(0, 0.012, (2 * _TRUNKS, 2))
    heading = np.tile(np.linspace(-1.3, 1.45, _TRUNKS), 2) + rng.normal(0, 0.14, 2 * _TRUNKS)
    t = np.linspace(0, 1, 5)
    layers = []
    for _, _, length in _GENERATIONS:
        count = len(side)
        reach = length * rng.uniform(0.6, 1.4, (count, 1))
        bent = heading[:, None] + rng.normal(0, 0.4, (count, 1)) * t  # (count, 5); 0 is lateral, positive is down
        steps = np.stack([np.cos(bent), np.sin(bent) / 2], axis=2) * reach[:, :, None] / 4
        steps[:, 0] = start
        curves = np.cumsum(steps, axis=1)  # (count, 5, 2)
        layers.append(curves * np.stack([side * out.anatomy.breadth, np.ones(count)], axis=1)[:, None])
        fork = np.tile([-0.42, 0.38], count) * rng.uniform(0.3, 1.6, 2 * count)
        start, side = np.repeat(curves[:, -1], 2, axis=0), np.repeat(side, 2)
        heading = np.repeat(bent[:, -1], 2) + fork
    mask = canvas.blank()
    for (width, value, _), curves in reversed(list(zip(_GENERATIONS, layers, strict=True))):
        canvas.stroke(mask, list(curves), width, value)
    return canvas.soften(mask, 0.006) * np.float32(0.27 * out.anatomy.vascularity)


def hila(canvas: Canvas, out: Outlines, rng: np.random.Generator, prominence: float) -> Field:
    """Attenuation of the two hila: clustered vessel roots, `(h, w)`, >= 0. `prominence` 1 is usual, 2 a mimic."""
    mask = canvas.blank()
    for side in (RIGHT, LEFT):
        size = prominence if rng.random() < 0.6 else 1.0
        count = int(rng.integers(4, 8))
        centre = np.array([side * (0.19 * out.anatomy.breadth), 0.42 - 0.015 * side])
        for offset in rng.normal(0, 1, (count, 2)) * np.array([0.028, 0.03]) * size:
            spot = centre + offset
            canvas.stroke(mask, [np.stack([spot, spot + np.array([0.01 * side, 0.025])])], 0.05 * size, 190)
    return canvas.soften(mask, 0.02) * np.float32(0.20)
