"""Things in or on the patient that are no finding: tubes, lines, pacemakers, electrodes, buttons."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ingest.phantom.anatomy import Outlines
from ingest.phantom.canvas import Canvas, Field, Mask, Points
from ingest.phantom.curves import through
from ingest.phantom.difficulty import Difficulty

_Draw = Callable[[Canvas, Outlines, np.random.Generator], Field]


def devices(canvas: Canvas, out: Outlines, shown: frozenset[str], rng: np.random.Generator, level: Difficulty) -> Field:
    """Attenuation of all devices of a film, `(h, w)`, >= 0.

    A device that treats a finding comes more often with it (by `level.confounding`), as in hospital archives.
    """
    added = np.zeros(canvas.size_hw, np.float32)
    for draw, share, treated in _DEVICES:
        rate = level.device_rate * share * (level.confounding if treated & shown else 1.0)
        chance = rng.random()
        own = rng.spawn(1)[0]
        if chance < rate:
            added += draw(canvas, out, own)
    return added


def _breathing_tube(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    tip = rng.uniform(0.22, 0.34)
    tube = through([(rng.normal(0, 0.02), -0.1), (0.005, 0.1), (0.015, tip)])
    return _tube(canvas, [tube], 0.03, 0.16)


def _feeding_tube(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    wander = rng.normal(0, 0.012, 4)
    tube = through([(wander[0], -0.1), (wander[1], 0.2), (0.02 + wander[2], 0.5), (0.06, 0.78), (0.3, 0.93)])
    return _tube(canvas, [tube], 0.022, 0.17)


def _central_line(canvas: Canvas, out: Outlines, rng: np.random.Generator) -> Field:
    x = -0.11 * out.anatomy.breadth
    start = (-0.72, 0.20) if rng.random() < 0.5 else (-0.16, -0.05)
    bend = rng.normal(0, 0.02)
    line = through([start, (-0.4 if start[0] < -0.5 else -0.14, 0.17 + bend), (x, 0.26), (x, rng.uniform(0.38, 0.52))])
    return _tube(canvas, [line], 0.012, 0.26)


def _pacemaker(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    side = -1 if rng.random() < 0.2 else 1
    x, y = side * rng.uniform(0.45, 0.66), rng.uniform(0.12, 0.26)
    angle = np.linspace(0, 2 * np.pi, 28)
    shape = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.6, np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.6
    radius = rng.uniform(0.085, 0.12)
    can = np.stack([x + radius * shape[0], y + radius * 0.52 * shape[1]], axis=1)
    leads = [
        through([(x, y), (side * 0.3, 0.13), (-0.10, 0.28), (-0.13, 0.52), (0.05, 0.70), (0.28, 0.745)]),
        through([(x, y), (side * 0.32, 0.15), (-0.09, 0.28), (-0.15, 0.50), (-0.20, 0.58), (-0.13, 0.60)]),
    ]
    added = canvas.soften(canvas.fill(can), 0.004) * np.float32(0.75)
    return added + _tube(canvas, leads[: int(rng.integers(1, 3))], 0.011, 0.3)


def _electrodes(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    mask, dots = canvas.blank(), canvas.blank()
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.8, 0.8), rng.uniform(0.15, 0.8)
        edge = (float(np.sign(x)) * 1.1, y + rng.normal(0.1, 0.2))
        mid = ((x + edge[0]) / 2 + rng.normal(0, 0.1), (y + edge[1]) / 2 + rng.normal(0, 0.08))
        canvas.stroke(mask, [through([(x, y), mid, edge])], 0.011)
        _disc(canvas, dots, (x, y), rng.uniform(0.022, 0.05), int(rng.integers(110, 255)))
        if rng.random() < 0.5:
            _disc(canvas, dots, (x, y), 0.014, 60)
    return canvas.soften(mask, 0.004) * np.float32(0.20) + canvas.soften(dots, 0.006) * np.float32(0.42)


def _chest_drain(canvas: Canvas, out: Outlines, rng: np.random.Generator) -> Field:
    side = 1 if rng.random() < 0.5 else -1
    enter = rng.uniform(0.48, 0.75)
    drain = through(
        [
            (side * 1.1, enter + 0.08),
            (side * (out.wall_x(side, enter) + 0.02), enter),
            (side * 0.5, enter - rng.uniform(0.05, 0.2)),
            (side * rng.uniform(0.25, 0.5), rng.uniform(0.18, 0.36)),
        ]
    )
    return _tube(canvas, [drain], 0.034, 0.2)


def _clothing(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    """Buttons in a row, coins, or a necklace."""
    mask = canvas.blank()
    kind = rng.random()
    if kind < 0.5:
        x, gap = rng.normal(0, 0.25), rng.uniform(0.09, 0.16)
        for i in range(int(rng.integers(2, 5))):
            _disc(canvas, mask, (x + rng.normal(0, 0.012), 0.2 + gap * i), 0.032, 200)
    elif kind < 0.75:
        for _ in range(int(rng.integers(1, 3))):
            _disc(canvas, mask, (rng.uniform(-0.7, 0.7), rng.uniform(0.2, 0.8)), rng.uniform(0.035, 0.055), 240)
    else:
        depth = rng.uniform(0.10, 0.28)
        chain = through([(-0.3, -0.05), (-0.22, depth * 0.6), (0, depth), (0.22, depth * 0.6), (0.3, -0.05)])
        canvas.stroke(mask, [chain], 0.013)
    return canvas.soften(mask, 0.005) * np.float32(0.4)


def _clips(canvas: Canvas, _out: Outlines, rng: np.random.Generator) -> Field:
    """Wires and clips of an earlier operation."""
    mask = canvas.blank()
    for y in np.arange(0.22, 0.62, rng.uniform(0.07, 0.1)):
        loop = np.array([[-0.03, y], [0.0, y + 0.012], [0.03, y], [0.0, y - 0.01], [-0.03, y]])
        canvas.stroke(mask, [loop], 0.01)
    return canvas.soften(mask, 0.004) * np.float32(0.33)


def _disc(canvas: Canvas, mask: Mask, centre: tuple[float, float], radius: float, value: int) -> None:
    at = np.rint(canvas.to_px(np.array([centre]))[0] * 16).astype(int)
    cv2.circle(mask, (int(at[0]), int(at[1])), round(radius * canvas.px_x * 16), value, -1, cv2.LINE_AA, 4)


def _tube(canvas: Canvas, curves: list[Points], width: float, weight: float) -> Field:
    """A hollow tube: two bright walls when it is wide enough to show them."""
    mask = canvas.stroke(canvas.blank(), curves, width, 200)
    if width * canvas.px_x > 3:
        canvas.stroke(mask, curves, width * 0.4, 90)
    return canvas.soften(mask, 0.004) * np.float32(weight)


# How a device is drawn, how common it is against `device_rate`, and the findings that bring it.
_DEVICES: tuple[tuple[_Draw, float, frozenset[str]], ...] = (
    (_breathing_tube, 0.9, frozenset({"Pneumonia", "Consolidation"})),
    (_feeding_tube, 0.9, frozenset({"Atelectasis"})),
    (_central_line, 1.0, frozenset({"Pneumonia", "Pleural Effusion"})),
    (_pacemaker, 0.5, frozenset({"Cardiomegaly"})),
    (_electrodes, 1.6, frozenset({"Cardiomegaly", "Atelectasis"})),
    (_chest_drain, 0.7, frozenset({"Pneumothorax"})),
    (_clothing, 1.0, frozenset()),
    (_clips, 0.6, frozenset({"Cardiomegaly"})),
)
