"""From attenuation to grey values: scatter, exposure, film curve, blur, noise, grid, markers, collimation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ingest.phantom.canvas import Field
from ingest.phantom.difficulty import Difficulty
from ingest.phantom.regions import Box

_WORDS = ("PORTABLE", "AP", "SUPINE", "ERECT", "PA", "AP ERECT", "ICU")


@dataclass(frozen=True)
class Exposure:
    """How one film was taken and developed."""

    black: float  # attenuation that comes out black
    white: float  # attenuation that comes out white
    gamma: float
    toe: float  # 0 = straight film curve, 1 = strongly S-shaped
    scatter: float  # share of the beam that arrives as haze
    tilt_xy: tuple[float, float]  # uneven field
    blur_px: float
    noise: float
    noise_grain: float  # share of the noise that is correlated between neighbours
    grid: float  # contrast of the grid's lines, 0 = none
    field: Box  # the collimated field
    inverted: bool


def draw_exposure(size_hw: tuple[int, int], rng: np.random.Generator, level: Difficulty) -> Exposure:
    """A random exposure of a film of that size."""
    height, width = size_hw
    spread = level.exposure_spread
    inset = np.zeros(4, int)
    if rng.random() < level.collimation_rate:
        inset = (rng.uniform(0, 0.055, 4) * (rng.random(4) < 0.6) * [width, height, width, height]).astype(int)
    return Exposure(
        black=float(0.08 + spread * rng.uniform(-0.05, 0.17)),
        white=float(1.60 + spread * rng.normal(0, 0.14)),
        gamma=float(np.exp(spread * rng.normal(0, 0.20))),
        toe=float(np.clip(0.4 + spread * rng.normal(0, 0.3), 0, 1)),
        scatter=float(rng.uniform(0.05, 0.05 + 0.25 * spread)),
        tilt_xy=(float(spread * rng.normal(0, 0.05)), float(spread * rng.normal(0, 0.05))),
        blur_px=float(rng.uniform(*level.blur_px)) * min(size_hw) / 224,
        noise=float(level.quantum_noise * rng.uniform(0.5, 1.5)),
        noise_grain=float(rng.uniform(0.0, 0.7)),
        grid=float(rng.uniform(0.008, 0.03)) if rng.random() < level.grid_rate else 0.0,
        field=(int(inset[0]), int(inset[1]), width - int(inset[2]), height - int(inset[3])),
        inverted=bool(rng.random() < level.inverted_rate),
    )


def markers(size_hw: tuple[int, int], rng: np.random.Generator, level: Difficulty) -> Field:
    """Attenuation of lead letters and words, `(h, w)`; they lie in the corners and along the edges."""
    height, width = size_hw
    mask = np.zeros(size_hw, np.uint8)
    scale = min(size_hw) / 224
    if rng.random() < level.marker_rate:
        left_side = rng.random() < 0.4
        letter, x = ("R", rng.uniform(0.03, 0.12)) if left_side else ("L", rng.uniform(0.85, 0.94))
        at = (int(x * width), int(rng.uniform(0.06, 0.35) * height))
        size = scale * rng.uniform(0.35, 0.6)
        if rng.random() < 0.3:
            cv2.circle(mask, (at[0] + int(5 * scale), at[1] - int(5 * scale)), int(9 * scale), 255, 1, cv2.LINE_AA)
        cv2.putText(mask, letter, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1 + int(scale > 0.9), cv2.LINE_AA)
    if rng.random() < level.marker_rate * 0.4:
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        at = (int(rng.uniform(0.02, 0.8) * width), int(rng.choice([0.06, 0.94, 0.97]) * height))
        cv2.putText(mask, word, at, cv2.FONT_HERSHEY_SIMPLEX, scale * 0.28, 230, 1, cv2.LINE_AA)
    return mask.astype(np.float32) * np.float32(2.0 / 255)


def develop(attenuation: Field, lead: Field, exposure: Exposure, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Grey values `(h, w)` of a film: dark where the beam comes through.

    Args:
        attenuation: `(h, w)`, 0 in free air to about 1.8 in the abdomen.
        lead: `(h, w)`, attenuation of markers.
        exposure: how the film was taken.
        rng: source of the noise.
    """
    height, width = attenuation.shape
    e = exposure
    small = cv2.resize(attenuation, (max(width // 8, 2), max(height // 8, 2)), interpolation=cv2.INTER_AREA)
    haze = cv2.resize(cv2.GaussianBlur(small, (0, 0), 3.0), (width, height), interpolation=cv2.INTER_LINEAR)
    beam = attenuation + np.float32(e.scatter) * (haze - attenuation) + lead
    beam += np.linspace(-e.tilt_xy[0], e.tilt_xy[0], width, dtype=np.float32)
    beam += np.linspace(-e.tilt_xy[1], e.tilt_xy[1], height, dtype=np.float32)[:, None]
    beam = cv2.GaussianBlur(beam, (0, 0), max(e.blur_px, 0.2))

    grey = np.clip((beam - e.black) * np.float32(1 / (e.white - e.black)), 0, 1)
    grey = cv2.pow(grey, e.gamma)
    grey += np.float32(e.toe * 0.5) * (grey * grey * (3 - 2 * grey) - grey)
    grain = rng.standard_normal((height, width), dtype=np.float32)
    if e.noise_grain > 0.1:
        grain += np.float32(2.5 * e.noise_grain) * cv2.GaussianBlur(grain, (0, 0), 0.9)
        grain *= np.float32(1 / (1 + 0.9 * e.noise_grain))
    grey = grey * 250 + 2 + grain * (0.35 + 0.65 * grey) * np.float32(e.noise)
    if e.grid:
        grey *= 1 + np.float32(e.grid) * np.cos(np.arange(width, dtype=np.float32) * np.float32(2.1))
    image = np.clip(grey, 0, 255).astype(np.uint8)
    if e.inverted:
        image = np.asarray(255 - image)
    x0, y0, x1, y1 = e.field
    image[:y0], image[y1:], image[:, :x0], image[:, x1:] = 0, 0, 0, 0
    return np.asarray(image, np.uint8)
