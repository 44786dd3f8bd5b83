"""One patient's thorax as outlines in thorax coordinates: body, lungs, diaphragm, mediastinum, heart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ingest.phantom.canvas import Points
from ingest.phantom.curves import around, through

RIGHT, LEFT = -1, 1  # the patient's sides; the right one is drawn at negative x


@dataclass(frozen=True)
class Anatomy:
    """What makes one patient's thorax differ from another's. Lengths are thorax units."""

    breadth: float  # scales every x
    apex_y: float
    dome_y: tuple[float, float]  # top of the right and of the left hemidiaphragm
    sulcus: float  # how far the costophrenic angle lies below the dome
    flare: float  # > 0: barrel chest, < 0: bell shape
    heart_ratio: float  # heart width over chest width
    heart_tilt: float  # > 0: lying heart, < 0: upright heart
    heart_split: float  # share of the heart's width right of the midline
    mediastinum_half: float
    widening: tuple[float, float]  # what a finding adds to the right and to the left border
    knob: float  # how far the aortic knob stands out
    rib_gap: float
    rib_slope: float
    rib_width: float
    rib_contrast: float
    bone_contrast: float
    clavicle_drop: float
    fat: float  # 0..1
    breasts: float  # 0 = none
    scoliosis: float
    vascularity: float
    gastric_gas: float  # 0 = none


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random patient without findings of heart or mediastinum."""
    right_dome = rng.normal(0.735, 0.022)
    return Anatomy(
        breadth=float(rng.normal(1.0, 0.045)),
        apex_y=float(rng.normal(0.10, 0.016)),
        dome_y=(float(right_dome), float(right_dome + rng.normal(0.022, 0.014))),
        sulcus=float(np.clip(rng.normal(0.105, 0.022), 0.05, 0.16)),
        flare=float(rng.normal(0, 0.035)),
        heart_ratio=float(np.clip(rng.normal(0.43, 0.027), 0.36, 0.475)),
        heart_tilt=float(rng.normal(0, 0.025)),
        heart_split=float(rng.normal(0.35, 0.035)),
        mediastinum_half=float(np.clip(rng.normal(0.135, 0.014), 0.105, 0.165)),
        widening=(0.0, 0.0),
        knob=float(np.clip(rng.normal(0.045, 0.02), 0.0, 0.085)),
        rib_gap=float(rng.normal(0.077, 0.006)),
        rib_slope=float(rng.normal(0.10, 0.03)),
        rib_width=float(rng.normal(0.046, 0.007)),
        rib_contrast=float(rng.uniform(0.12, 0.27)),
        bone_contrast=float(rng.uniform(0.16, 0.32)),
        clavicle_drop=float(rng.normal(0.0, 0.022)),
        fat=float(rng.beta(2, 2.6)),
        breasts=float(rng.uniform(0.35, 1.0) if rng.random() < 0.45 else 0.0),
        scoliosis=float(rng.normal(0, 0.025)),
        vascularity=float(rng.uniform(0.55, 1.4)),
        gastric_gas=float(rng.uniform(0.3, 1.0) if rng.random() < 0.55 else 0.0),
    )


def breathe(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """The same patient at another exposure: depth of breath, magnification of the heart."""
    lift = float(rng.normal(0, 0.02))
    right, left = anatomy.dome_y
    return replace(
        anatomy,
        dome_y=(right + lift, left + lift + float(rng.normal(0, 0.008))),
        sulcus=anatomy.sulcus * float(rng.uniform(0.85, 1.15)),
        heart_ratio=anatomy.heart_ratio * float(np.exp(rng.normal(0, 0.012))),
        vascularity=anatomy.vascularity * float(rng.uniform(0.8, 1.25)),
    )


@dataclass(frozen=True)
class Outlines:
    """The curves of one exposure; `side` is RIGHT or LEFT."""

    anatomy: Anatomy
    walls: dict[int, Points]  # chest wall, from the inner apex over the top to the costophrenic angle
    diaphragms: dict[int, Points]  # from the costophrenic angle to the midline
    heart: Points
    mediastinum: Points
    body: Points

    def lung(self, side: int) -> Points:
        """The closed outline of a lung; the heart covers part of it."""
        return np.concatenate([self.walls[side], self.diaphragms[side]])

    def wall_x(self, side: int, y: float) -> float:
        """Distance of the chest wall from the midline at height `y`, >= 0."""
        wall = self.walls[side]
        return float(np.interp(y, wall[12:, 1], np.abs(wall[12:, 0])))

    def inner_x(self, side: int, y: float) -> float:
        """Distance from the midline at which the lung comes out from behind heart and mediastinum, >= 0."""
        reach = 0.08
        for outline in (self.heart, self.mediastinum):
            near = np.abs(outline[:, 1] - y) < 0.035
            if near.any():
                reach = max(reach, float((outline[near, 0] * side).max()))
        return reach

    def diaphragm_y(self, side: int, x: float) -> float:
        """Height of the diaphragm at distance `x` from the midline."""
        curve = self.diaphragms[side]
        return float(np.interp(-abs(x), -np.abs(curve[:, 0]), curve[:, 1]))

    def lung_point(self, side: int, across: float, down: float) -> tuple[float, float]:
        """A place in a lung: `across` 0 at the hilum to 1 at the chest wall, `down` 0 at the apex to 1 at the base."""
        top = self.anatomy.apex_y
        base = self.anatomy.dome_y[0 if side == RIGHT else 1]
        y = top + down * (base - top)
        inner, outer = self.inner_x(side, y), self.wall_x(side, y)
        x = inner + across * max(outer - inner, 0.02)
        return side * x, min(y, self.diaphragm_y(side, x))


def outline(anatomy: Anatomy) -> Outlines:
    """All curves of one anatomy."""
    a = anatomy
    walls, diaphragms = {}, {}
    for side, dome in ((RIGHT, a.dome_y[0]), (LEFT, a.dome_y[1])):
        top, low, flare = a.apex_y, dome + a.sulcus, a.flare
        wall = through(
            [
                (0.09, top + 0.30),
                (0.13, top + 0.07),
                (0.29, top),
                (0.46, top + 0.045),
                (0.60 + flare, top + 0.16),
                (0.70 + flare, top + 0.34),
                (0.755 + flare / 2, 0.6 * low + 0.4 * (top + 0.34)),
                (0.775, low - 0.03),
                (0.77, low),
            ]
        )
        dia = through([(0.77, low), (0.69, dome + 0.042), (0.47, dome), (0.26, dome + 0.012), (0.09, dome + 0.05)])
        scale = np.array([side * a.breadth, 1.0])
        walls[side], diaphragms[side] = wall * scale, dia * scale
    return Outlines(a, walls, diaphragms, _heart(a), _mediastinum(a), _body(a))


def _heart(a: Anatomy) -> Points:
    width = a.heart_ratio * 2 * 0.765 * a.breadth
    right, left = width * a.heart_split, width * (1 - a.heart_split)
    base = a.dome_y[1] - 0.755 + a.heart_tilt / 3
    tilt = a.heart_tilt
    return around(
        [
            (-0.10, 0.42 + base),
            (-right * 0.86, 0.53 + base),
            (-right, 0.64 + base),
            (-right * 0.86, 0.745 + base),
            (-right * 0.3, 0.81 + base),
            (left * 0.5, 0.825 + base),
            (left * 0.93, 0.79 + base - tilt),
            (left, 0.72 + base - tilt),
            (left * 0.86, 0.61 + base - tilt),
            (left * 0.58, 0.51 + base),
            (0.13, 0.425 + base),
        ]
    )


def _mediastinum(a: Anatomy) -> Points:
    half = a.mediastinum_half
    wide_right, wide_left = a.widening
    right = [
        (-0.15, -0.08),
        (-0.13 - 0.3 * wide_right, 0.08),
        (-half - 0.85 * wide_right, 0.20),
        (-half - wide_right, 0.31),
        (-half - 0.02 - 0.5 * wide_right, 0.43),
        (-half - 0.02, 0.56),
        (-0.12, 0.80),
    ]
    left = [
        (0.12, 0.80),
        (half + 0.04, 0.56),
        (half + 0.03 + 0.5 * wide_left, 0.44),
        (half + 0.005 + 0.85 * wide_left, 0.375),
        (half + a.knob + wide_left, 0.29),
        (half - 0.01 + a.knob * 0.4 + 0.7 * wide_left, 0.225),
        (0.115 + 0.3 * wide_left, 0.12),
        (0.15, -0.08),
    ]
    curve = np.concatenate([through(right), through(left)])
    curve[:, 0] += a.scoliosis * np.sin(np.pi * curve[:, 1])
    return curve


def _body(a: Anatomy) -> Points:
    waist = 0.87 + 0.13 * a.fat
    half = [
        (0.20 + 0.1 * a.fat, -0.12),
        (0.24 + 0.1 * a.fat, -0.03),
        (0.48, 0.02),
        (0.82, 0.055),
        (1.04, 0.14),
        (1.13, 0.30),
        (1.16, 0.52),
        (1.04, 0.53),
        (waist + 0.06, 0.40),
        (waist + 0.02, 0.55),
        (waist, 0.75),
        (waist + 0.05 * a.fat, 1.25),
    ]
    right = through(half) * np.array([a.breadth, 1.0])
    return np.concatenate([right, right[::-1] * np.array([-1.0, 1.0])])
