"""Augmentation: random changes of prepared images, drawn by albumentations, shape changed in one warp.

Each step has a probability of its own and a stream of random numbers of its own, drawn from (seed, epoch, row, step)
alone: what a step does to an image depends neither on the other steps nor on workers or interruptions. (Left to
itself, albumentations seeds every step alike: the flip then comes with exactly those films that are made narrower and
paler.)

Steps work on prepared images, after CLAHE or equalisation have made their planes, and change all planes alike. Before
them, the black corners that a rotation leaves would count in the planes' histograms, as padding never does in a served
film; CLAHE would undo much of a change of contrast; and no image could be prepared once and kept.
"""

from __future__ import annotations

import math
import random
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from weakray.config import StrictModel
from weakray.imaging import Image
from weakray.stack import silence

Step = Literal["horizontal_flip", "affine", "grid", "elastic", "tone", "gamma", "noise"]
STEPS: tuple[Step, ...] = get_args(Step)  # in the order in which they are applied
_STREAM = 1  # of random numbers, apart from that of the order of images

_WARPS: frozenset[Step] = frozenset({"affine", "grid", "elastic"})


class AugmentConfig(StrictModel):
    """Random changes of the train images, drawn anew for each image and epoch; 0 turns a step or a part of it off."""

    horizontal_flip: float = Field(
        0.0, ge=0, le=1, description="probability of a mirror image (true: 0.5); wrong where side matters"
    )
    affine_probability: float = Field(1.0, ge=0, le=1, description="of a shift, rotation and change of size in one")
    translate: float = Field(0.05, ge=0, le=0.5, description="largest shift, as a fraction of the side")
    rotate_deg: float = Field(10.0, ge=0, le=180, description="largest rotation either way, degrees")
    scale: float = Field(0.1, ge=0, lt=1, description="largest relative change of size")
    grid_probability: float = Field(0.0, ge=0, le=1, description="of a grid distortion")
    grid_steps: int = Field(5, ge=1, le=10, description="cells a side of the grid")
    grid_limit: float = Field(0.2, ge=0, lt=1, description="largest relative change of a cell's width or height")
    elastic_probability: float = Field(0.0, ge=0, le=1, description="of an elastic distortion")
    elastic_shift: float = Field(
        0.01, ge=0, le=0.2, description="standard deviation of its shifts, as a fraction of the side"
    )
    elastic_smooth: float = Field(
        0.06, ge=0.02, le=0.5, description="deviation of the Gaussian that smooths them, as a fraction of the side"
    )
    tone_probability: float = Field(1.0, ge=0, le=1, description="of a change of brightness and contrast")
    brightness_contrast: float = Field(0.1, ge=0, le=1, description="largest relative change of either")
    gamma_probability: float = Field(0.0, ge=0, le=1, description="of a power law over the grey values")
    gamma: float = Field(0.2, ge=0, lt=1, description="largest change of its exponent from 1")
    noise_probability: float = Field(0.0, ge=0, le=1, description="of Gaussian noise, the same in every channel")
    noise: float = Field(0.02, ge=0, le=1, description="its largest standard deviation, as a fraction of the range")

    @field_validator("horizontal_flip", mode="before")
    @classmethod
    def _true_is_half(cls, value: Any) -> Any:
        return 0.5 * value if isinstance(value, bool) else value

    def probability(self, step: Step) -> float:
        """Of a step; 0 where nothing of it is left."""
        match step:
            case "horizontal_flip":
                return self.horizontal_flip
            case "affine":
                return self.affine_probability if self.translate or self.rotate_deg or self.scale else 0.0
            case "grid":
                return self.grid_probability if self.grid_limit else 0.0
            case "elastic":
                return self.elastic_probability if self.elastic_shift else 0.0
            case "tone":
                return self.tone_probability if self.brightness_contrast else 0.0
            case "gamma":
                return self.gamma_probability if self.gamma else 0.0
            case "noise":
                return self.noise_probability if self.noise else 0.0

    @property
    def steps(self) -> list[Step]:
        """Those that can happen, in the order in which they are applied."""
        return [step for step in STEPS if self.probability(step) > 0]

    def alone(self, step: Step) -> AugmentConfig:
        """The same with one step that always happens and no other."""
        field_of = {each: each if each == "horizontal_flip" else f"{each}_probability" for each in STEPS}
        return self.model_copy(update={name: float(each == step) for each, name in field_of.items()})


class Augmenter:
    """Applies an `AugmentConfig`. One instance serves one thread at a time."""

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        steps = config.steps
        self._transforms = {step: own for step, own in _transforms(config).items() if step in steps} if steps else {}

    def __call__(self, image: Image, epoch: int, row: int, turn: int = 0) -> Image:
        """A changed copy of `image` `(s, s)` or `(s, s, 3)`; the same for the same seed, epoch, row and turn.

        The image itself comes back where chance left it as it is. A point p of the result shows the point
        A⁻¹(p + grid(p) + elastic(p)) of the image: what several steps move is interpolated once.
        """
        happened = self._happened(epoch, row, turn)
        if "horizontal_flip" in happened:
            image = cv2.flip(image, 1)
        if not _WARPS.isdisjoint(happened):
            image = self._warped(image, happened)
        for step in ("tone", "gamma", "noise"):
            if step in happened:
                image = self._transforms[step](image=image)["image"]
        return image

    def _happened(self, epoch: int, row: int, turn: int = 0) -> dict[Step, np.random.Generator]:
        """The steps that chance has taken, with what draws their parameters."""
        happened: dict[Step, np.random.Generator] = {}
        for step, transform in self._transforms.items():
            place = [self._seed, _STREAM, epoch, row, STEPS.index(step), *([turn] if turn else [])]
            generator = np.random.default_rng(np.random.SeedSequence(place))
            if generator.random() < self._config.probability(step):
                happened[step] = generator
                if transform is not None:
                    transform.set_random_state(generator, random.Random(int(generator.integers(2**63))))  # noqa: S311
        return happened

    def _warped(self, image: Image, happened: dict[Step, np.random.Generator]) -> Image:
        size = image.shape[0]
        affine, moved = None, None
        if "affine" in happened:
            drawn = self._transforms["affine"].get_params_dependent_on_data({"shape": image.shape}, {"image": image})
            affine = np.asarray(drawn["matrix"], np.float64)[:2]
        if "grid" in happened:
            drawn = self._transforms["grid"].get_params_dependent_on_data({"shape": image.shape}, {"image": image})
            moved = np.stack([drawn["map_x"], drawn["map_y"]], axis=2)
        if "elastic" in happened:
            shifts = elastic_shifts(happened["elastic"], size, self._config.elastic_shift, self._config.elastic_smooth)
            moved = (_own_places(size) if moved is None else moved) + shifts
        if moved is None:
            return np.asarray(cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR), np.uint8)
        if affine is not None:
            moved = cv2.transform(moved, cv2.invertAffineTransform(affine))
        return np.asarray(cv2.remap(image, moved, None, cv2.INTER_LINEAR), np.uint8)


def elastic_shifts(
    generator: np.random.Generator, size_px: int, shift: float, smooth: float
) -> npt.NDArray[np.float32]:
    """Smooth random shifts (Simard et al. 2003).

    White noise of deviation 1 under a Gaussian of deviation σ cells has deviation 1/(2σ√π). It is drawn and smoothed on
    a grid of σ = 2 cells and then enlarged: at the size of the image the smoothing is a hundred times the work.

    Args:
        generator: draws them.
        size_px: side of the image.
        shift: standard deviation of the shifts, as a fraction of the side.
        smooth: deviation of the Gaussian, as a fraction of the side.

    Returns:
        `(size, size, 2)`: to the right and down, px.
    """
    sigma, reach = 2.0, 8  # cells; the Gaussian is cut at 4 σ, and what it reads past the border is noise too
    cells = math.ceil(sigma / smooth)
    noise = generator.standard_normal((cells + 2 * reach, cells + 2 * reach, 2), np.float32)
    smoothed = cv2.GaussianBlur(noise, (2 * reach + 1, 2 * reach + 1), sigma)[reach:-reach, reach:-reach]
    enlarged = cv2.resize(smoothed, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged * np.float32(shift * size_px * 2 * sigma * math.sqrt(math.pi)), np.float32)


def _own_places(size_px: int) -> npt.NDArray[np.float32]:
    """`(size, size, 2)`: each pixel's own column and row."""
    line = np.arange(size_px, dtype=np.float32)
    return np.stack(np.meshgrid(line, line), axis=2)


def _transforms(config: AugmentConfig) -> dict[Step, Any]:
    """Albumentations' form of each step; elastic shifts are drawn here."""
    silence()
    import albumentations

    tone, gamma = (-config.brightness_contrast, config.brightness_contrast), 100 * config.gamma
    return {
        "horizontal_flip": None,
        "affine": albumentations.Affine(
            translate_percent=(-config.translate, config.translate),
            rotate=(-config.rotate_deg, config.rotate_deg),
            scale=(1 - config.scale, 1 + config.scale),
            p=1.0,
        ),
        "grid": albumentations.GridDistortion(config.grid_steps, (-config.grid_limit, config.grid_limit), p=1.0),
        "elastic": None,
        "tone": albumentations.RandomBrightnessContrast(brightness_limit=tone, contrast_limit=tone, p=1.0),
        "gamma": albumentations.RandomGamma((100 - gamma, 100 + gamma), p=1.0),
        "noise": albumentations.GaussNoise((0.0, config.noise), per_channel=False, p=1.0),
    }
