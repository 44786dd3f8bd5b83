"""The healthy layers of a film: how much each pixel attenuates before findings and devices are added."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT, Outlines
from ingest.phantom.canvas import Canvas, Field, Mask
from ingest.phantom.curves import through
from ingest.phantom.skeleton import skeleton
from ingest.phantom.vessels import hila, vessels

AIR = 0.62  # attenuation that a lung lacks against soft tissue of the same depth


@dataclass(frozen=True)
class Chest:
    """Layers of one exposure, each `(h, w)`.

    Attributes:
        canvas: the film's pixel grid.
        outlines: the curves that were drawn.
        lungs: side → outline of that lung, heart not taken out, 0..255.
        air: share of full lung air in the beam's path, [0, 1].
        solid: attenuation of everything but lung vessels if the lungs held no air, >= 0.
        vessels: attenuation of lung vessels, >= 0, where nothing displaces them.
    """

    canvas: Canvas
    outlines: Outlines
    lungs: dict[int, Mask]
    air: Field
    solid: Field
    vessels: Field


def draw_chest(
    canvas: Canvas, outlines: Outlines, shared: np.random.Generator, film: np.random.Generator, texture: float
) -> Chest:
    """Draws one patient's chest.

    Args:
        canvas: the film's pixel grid.
        outlines: this exposure's curves.
        shared: stream of what all films of the patient have in common (bones, vessels).
        film: stream of this film alone.
        texture: standard deviation of the soft-tissue mottle.
    """
    a = outlines.anatomy
    body = canvas.fill(outlines.body)
    lungs = {side: canvas.fill(outlines.lung(side)) for side in (RIGHT, LEFT)}
    both = cv2.max(lungs[RIGHT], lungs[LEFT])
    heart, mediastinum = canvas.fill(outlines.heart), canvas.fill(outlines.mediastinum)
    bones = skeleton(canvas, outlines, shared)
    tree = vessels(canvas, outlines, shared)

    core = cv2.max(canvas.soften(heart, 0.013), canvas.soften(mediastinum, 0.015))
    air = canvas.soften(both, 0.010) * (0.66 + 0.34 * canvas.soften(both, 0.09)) * (1 - 0.93 * core)

    flesh = canvas.soften(body, 0.02)
    solid = flesh * (0.50 + 0.12 * a.fat + 0.45 * canvas.soften(body, 0.22))
    solid += (0.13 + 0.05 * a.fat) * core + 0.16 * canvas.soften(heart, 0.10)
    solid += _abdomen(canvas, outlines)
    solid += bones + hila(canvas, outlines, shared, prominence=1.0) * (1 - 0.6 * core)
    solid -= _airway(canvas, outlines)
    if a.breasts:
        solid += _breasts(canvas, outlines, shared)
    mottle = canvas.noise(film, 0.30) * 1.2 + canvas.noise(film, 0.10) + canvas.noise(film, 0.035) * 0.8
    solid += np.float32(texture) * mottle * (0.35 + 0.65 * flesh)
    return Chest(canvas, outlines, lungs, air, np.maximum(solid, 0), tree * np.sqrt(air))


def _abdomen(canvas: Canvas, out: Outlines) -> Field:
    belly = np.concatenate([out.diaphragms[RIGHT], out.diaphragms[LEFT][::-1], np.array([[1.0, 1.3], [-1.0, 1.3]])])
    filled = canvas.fill(belly)
    mask = canvas.soften(filled, 0.012)
    dense = (0.26 + 0.16 * out.anatomy.fat) * mask * (0.75 + 0.25 * canvas.soften(filled, 0.15))
    gas = out.anatomy.gastric_gas
    if gas:
        x, y = 0.42, out.anatomy.dome_y[1] + 0.055
        angle = np.linspace(0, 2 * np.pi, 24)
        flat = np.where(np.sin(angle) > 0, 0.018, 0.026)  # air above, a fluid level below
        bubble = np.stack([x + 0.14 * gas * np.cos(angle), y + flat * np.sin(angle)], axis=1)
        dense = dense - 0.36 * gas * canvas.soften(canvas.fill(bubble), 0.016)
    return np.asarray(dense, np.float32)


def _airway(canvas: Canvas, out: Outlines) -> Field:
    a = out.anatomy
    shift = (a.widening[1] - a.widening[0]) * -0.25  # a wide side pushes the trachea away
    trachea = through([(0.0, -0.1), (0.005 + shift / 2, 0.1), (0.01 + shift, 0.26), (0.015 + shift / 2, 0.355)])
    mask = canvas.stroke(canvas.blank(), [trachea], 0.075, 235)
    bronchi = [
        through([(0.015, 0.345), (-0.08, 0.40), (-0.17, 0.45)]),
        through([(0.015, 0.345), (0.11, 0.395), (0.21, 0.425)]),
    ]
    canvas.stroke(mask, bronchi, 0.05, 170)
    return canvas.soften(mask, 0.016) * np.float32(0.22)


def _breasts(canvas: Canvas, out: Outlines, rng: np.random.Generator) -> Field:
    a = out.anatomy
    mask = canvas.blank()
    for side in (RIGHT, LEFT):
        low = a.dome_y[0] - 0.02 + 0.08 * a.breasts + float(rng.normal(0, 0.012))
        fold = through(
            [
                (side * 0.98, low - 0.30),
                (side * 0.93, low - 0.05),
                (side * 0.62, low + 0.01),
                (side * 0.30, low - 0.06),
                (side * 0.22, low - 0.18),
                (side * 0.45, low - 0.36),
                (side * 0.80, low - 0.42),
            ]
        )
        mask = cv2.max(mask, canvas.fill(fold))
    sharp, wide = canvas.soften(mask, 0.012), canvas.soften(mask, 0.13)
    return np.asarray(0.26 * a.breasts * sharp * wide, np.float32)
