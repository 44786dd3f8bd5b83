"""Healthy shadows that look like findings: nipples, end-on vessels, fat pads, skin folds, rib callus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ingest.phantom.anatomy import LEFT, RIGHT
from ingest.phantom.canvas import Field
from ingest.phantom.chest import Chest
from ingest.phantom.curves import through, wobbly
from ingest.phantom.difficulty import Difficulty
from ingest.phantom.vessels import hila


def mimics(chest: Chest, rng: np.random.Generator, level: Difficulty) -> Field:
    """Attenuation of all mimics of a film, `(h, w)`."""
    added = np.zeros(chest.canvas.size_hw, np.float32)
    for draw in _MIMICS:
        chance = rng.random()
        own = rng.spawn(1)[0]
        if chance < level.mimic_rate:
            added += draw(chest, own)
    return added


def _nipples(chest: Chest, rng: np.random.Generator) -> Field:
    """Nodule-like, but low, in the midclavicular line, mostly in pairs, with a thin dark halo."""
    mask, halo = chest.canvas.blank(), chest.canvas.blank()
    x, y, radius = rng.normal(0.47, 0.05), rng.normal(0.66, 0.035), rng.uniform(0.032, 0.05)
    for side in (RIGHT, LEFT) if rng.random() < 0.7 else (LEFT,):
        centre = (side * (x + rng.normal(0, 0.02)), y + rng.normal(0, 0.012))
        shape = wobbly(rng, centre, radius, 1.15, 0.04)
        mask = np.maximum(mask, chest.canvas.fill(shape))
        halo = np.maximum(halo, chest.canvas.fill(np.array(centre) + 1.35 * (shape - np.array(centre))))
    bright = chest.canvas.soften(mask, 0.008) * np.float32(rng.uniform(0.15, 0.3))
    return bright - chest.canvas.soften(halo, 0.008) * np.float32(0.05)


def _end_on_vessels(chest: Chest, rng: np.random.Generator) -> Field:
    """Small dense dots where vessels run along the beam, near the hila."""
    mask = chest.canvas.blank()
    for _ in range(int(rng.integers(2, 7))):
        side = LEFT if rng.random() < 0.5 else RIGHT
        centre = chest.outlines.lung_point(side, rng.uniform(0.05, 0.45), rng.uniform(0.3, 0.75))
        mask = np.maximum(mask, chest.canvas.fill(wobbly(rng, centre, rng.uniform(0.018, 0.034), 1.2, 0.05)))
    return chest.canvas.soften(mask, 0.006) * np.float32(rng.uniform(0.2, 0.4)) * np.sqrt(chest.air)


def _fat_pad(chest: Chest, rng: np.random.Generator) -> Field:
    """A soft triangle in the angle of heart and diaphragm, like a small effusion or consolidation."""
    side = LEFT if rng.random() < 0.6 else RIGHT
    out = chest.outlines
    high = rng.uniform(0.05, 0.12)
    inner = out.inner_x(side, 0.72)
    reach = inner + rng.uniform(0.08, 0.22)
    floor = out.diaphragm_y(side, reach)
    pad = through([(inner - 0.08, floor - high), (inner + 0.04, floor - 0.5 * high), (reach, floor)])
    polygon = np.concatenate([pad, [[reach, floor + 0.05], [inner - 0.1, floor + 0.05]]]) * np.array([side, 1.0])
    return chest.canvas.soften(chest.canvas.fill(polygon), 0.016) * chest.air * np.float32(rng.uniform(0.2, 0.4))


def _skin_fold(chest: Chest, rng: np.random.Generator) -> Field:
    """An edge along the outer lung like a pleural line, with vessels beyond it and one-sided shading."""
    side = LEFT if rng.random() < 0.5 else RIGHT
    x, top = rng.uniform(0.40, 0.62), rng.uniform(0.08, 0.35)
    lean = rng.normal(0, 0.10)
    line = through([(x - 0.5 * lean, top), (x + 0.03, top + 0.2), (x + lean, top + rng.uniform(0.35, 0.6))])
    band = np.concatenate([line, line[::-1] - np.array([rng.uniform(0.08, 0.18), 0.0])]) * np.array([side, 1.0])
    sharp = chest.canvas.soften(chest.canvas.fill(band), 0.005)
    edge = chest.canvas.soften(chest.canvas.stroke(chest.canvas.blank(), [line * [side, 1.0]], 0.03), 0.03)
    return sharp * edge * np.float32(rng.uniform(0.10, 0.2)) + edge * np.float32(0.02)


def _big_hila(chest: Chest, rng: np.random.Generator) -> Field:
    """Hila as full as a hilar mass."""
    return hila(chest.canvas, chest.outlines, rng, prominence=rng.uniform(1.3, 1.9)) * chest.air * np.float32(1.2)


def _callus(chest: Chest, rng: np.random.Generator) -> Field:
    """Healed ribs: dense knots, nodule-like but hard-edged and on the line of the outer ribs."""
    mask = chest.canvas.blank()
    side = LEFT if rng.random() < 0.5 else RIGHT
    y, gap = rng.uniform(0.25, 0.55), chest.outlines.anatomy.rib_gap
    for i in range(int(rng.integers(1, 4))):
        x = side * (chest.outlines.wall_x(side, y + gap * i) - rng.uniform(0.04, 0.12))
        mask = np.maximum(mask, chest.canvas.fill(wobbly(rng, (x, y + gap * i), rng.uniform(0.03, 0.045), 1.7, 0.1)))
    return chest.canvas.soften(mask, 0.006) * np.float32(rng.uniform(0.12, 0.24))


def _apical_cap(chest: Chest, rng: np.random.Generator) -> Field:
    """Thickened pleura over an apex: bright where a pneumothorax is dark."""
    side = LEFT if rng.random() < 0.5 else RIGHT
    wall = chest.outlines.walls[side][8:28]
    root = np.array([side * 0.25, 0.45])
    depth = rng.uniform(0.04, 0.12) * np.sin(np.linspace(0, np.pi, len(wall)))[:, None]
    cap = np.concatenate([wall, (wall + (root - wall) * depth)[::-1]])
    return chest.canvas.soften(chest.canvas.fill(cap), 0.012) * np.float32(rng.uniform(0.1, 0.25))


_MIMICS: tuple[Callable[[Chest, np.random.Generator], Field], ...] = (
    _nipples,
    _end_on_vessels,
    _fat_pad,
    _skin_fold,
    _big_hila,
    _callus,
    _apical_cap,
)
