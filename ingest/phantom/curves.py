"""Curves through control points, and wobbly closed outlines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ingest.phantom.canvas import Points

_STEPS = 6


@cache
def _catmull_rom() -> Points:
    t = np.arange(_STEPS)[:, None] / _STEPS
    return 0.5 * np.concatenate(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )  # (steps, 4)


def through(points: Sequence[tuple[float, float]] | Points) -> Points:
    """A smooth open curve through the points (Catmull-Rom), both ends included."""
    knots = np.asarray(points, np.float64)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    windows = np.stack([padded[i : len(knots) - 1 + i] for i in range(4)], axis=1)  # (segments, 4, 2)
    return np.concatenate([(_catmull_rom() @ windows).reshape(-1, 2), knots[-1:]])


def around(points: Sequence[tuple[float, float]] | Points) -> Points:
    """A smooth closed curve through the points."""
    knots = np.asarray(points, np.float64)
    windows = np.stack([np.roll(knots, 1 - i, axis=0) for i in range(4)], axis=1)
    return (_catmull_rom() @ windows).reshape(-1, 2)


def wobbly(
    rng: np.random.Generator, centre: tuple[float, float], radius: float, flatness: float, wobble: float, lobes: int = 5
) -> Points:
    """A closed outline around `centre`: an ellipse of area-equivalent `radius` (units of x), dented at random.

    Args:
        rng: source of the dents and of the ellipse's direction.
        centre: thorax coordinates.
        radius: units of x.
        flatness: long axis over short axis, >= 1.
        wobble: relative depth of the dents, 0 for a plain ellipse.
        lobes: the highest number of dents around.
    """
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    order = np.arange(2, lobes + 2)
    phase = rng.uniform(0, 2 * np.pi, lobes)
    weight = rng.normal(0, wobble, lobes) / np.sqrt(order)
    r = radius * np.clip(1 + np.cos(angle[:, None] * order + phase) @ weight, 0.45, 1.7)
    x, y = r * np.cos(angle) * np.sqrt(flatness), r * np.sin(angle) / np.sqrt(flatness)
    turn = rng.uniform(0, np.pi)
    sin, cos = np.sin(turn), np.cos(turn)
    return np.stack([centre[0] + x * cos - y * sin, centre[1] + (x * sin + y * cos) / 2], axis=1)
