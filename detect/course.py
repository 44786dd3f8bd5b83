"""The course of a training: what a detector learns from, in which order, and which examples it sees how often."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from detect.yolo_folder import Example
from weakray.config import StrictModel

Source = Literal["pseudo", "tune", "ceiling", "pseudo_then_tune"]
_OWN = "own_"


class CourseConfig(StrictModel):
    """Rounds, and the examples of each."""

    rounds: int = Field(
        0,
        ge=0,
        description="rounds after the first: the detector makes boxes anew, learns from them, then, where the source "
        "has them, from tune's true boxes again; all rounds share the steps evenly",
    )
    continued: bool = Field(
        False,
        description="the rounds after the first are one training: its learning rate falls once, optimizer and weights "
        "are kept while the averaged weights make boxes anew; none of its steps is spent on tune boxes alone, and "
        "the averaging warms up once",
    )
    first_share: float | None = Field(
        None, gt=0, lt=1, description="share of the steps in the first round, for continued; null: all alike"
    )
    tune_share: float = Field(
        0.4, ge=0, lt=1, description="share of a round's steps spent on tune boxes alone, where it has others too"
    )
    tune_lr_factor: float = Field(0.5, gt=0, le=1, description="factor on the learning rate in those steps")
    tune_mixed: float = Field(
        0.0, ge=0, lt=1, description="share of tune images among those shown with boxes that are not true ones"
    )
    repeat_below: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a finding on a smaller share f of the images than this t is shown √(t/f) times as often; 0: off",
    )


class Stretch(NamedTuple):
    """A stretch of steps on one training set: `pseudo`, `tune`, `ceiling`, or `own_1`, `own_2` … of the rounds.

    Attributes:
        name: of the training set.
        steps: of the optimizer.
        lr_factor: factor on the learning rate.
        before: steps of the stretches that it goes on from, with their optimizer; 0: it begins anew.
        after: steps of the stretches that go on from it.
        averaged: steps before it in which the averaging of weights has been warming up; 0: it warms up anew.
    """

    name: str
    steps: int
    lr_factor: float
    before: int = 0
    after: int = 0
    averaged: int = 0

    @property
    def own(self) -> bool:
        """Whether its boxes are those that the detector finds when the stretch begins."""
        return self.name.startswith(_OWN)

    @property
    def true(self) -> bool:
        """Whether annotators drew its boxes."""
        return self.name in {"tune", "ceiling"}


def course(source: Source, steps: int, config: CourseConfig) -> list[Stretch]:
    """The stretches of a training; their steps add up to `steps`.

    Args:
        source: boxes of the first round; `ceiling` has no other, `pseudo` never those of tune.
        steps: in all.
        config: rounds, and the shares of tune's boxes.
    """
    if source == "ceiling":
        return [Stretch(source, steps, 1.0)]
    stretches = []
    ends = [0, *round_ends(steps, config)]
    for number, (start, end) in enumerate(pairwise(ends)):
        of_round = end - start
        if number == 0 and source == "tune":
            stretches.append(Stretch("tune", of_round, 1.0))
            continue
        if number and config.continued:
            stretches.append(Stretch(f"{_OWN}{number}", of_round, 1.0, start - ends[1], steps - end))
            continue
        tune = 0 if source == "pseudo" else round(of_round * config.tune_share)
        stretches.append(Stretch(f"{_OWN}{number}" if number else "pseudo", of_round - tune, 1.0))
        if source != "pseudo":  # a stretch of no step is kept: its images may be wanted for `tune_mixed`
            stretches.append(Stretch("tune", tune, config.tune_lr_factor))
    if not config.continued:
        return stretches
    begun = accumulate((stretch.steps for stretch in stretches), initial=0)
    return [stretch._replace(averaged=steps) for stretch, steps in zip(stretches, begun, strict=False)]


def round_ends(steps: int, config: CourseConfig) -> list[int]:
    """How many of so many steps are over at the end of each round."""
    if config.first_share is None:
        return [steps * (number + 1) // (config.rounds + 1) for number in range(config.rounds + 1)]
    first = max(1, round(steps * config.first_share))
    return [first + (steps - first) * number // config.rounds for number in range(config.rounds + 1)]


def mixed(examples: Sequence[Example], tune: Sequence[Example], share: float) -> list[Example]:
    """The examples, with those of tune repeated until they are a share of all."""
    wanted = round(len(examples) * share / (1 - share))
    return [*examples, *(tune[i % len(tune)] for i in range(wanted))]


def repeated(examples: Sequence[Example], below: float, seed: int) -> list[Example]:
    """The examples, those with rare findings several times (repeat-factor sampling, Gupta et al., LVIS, CVPR 2019).

    An example comes max √(t / f) times over its findings, f being the share of examples with the finding; what is past
    the whole number comes by chance.

    Args:
        examples: each once.
        below: t; a finding more frequent than that repeats nothing.
        seed: of that chance.
    """
    classes = len(examples[0].elsewhere)
    has = np.array([np.bincount(example.class_id, minlength=classes) > 0 for example in examples])
    factor = np.sqrt(below / np.maximum(has.mean(0), 1e-9))
    times = np.maximum(1.0, np.where(has, factor, 0.0).max(1))
    whole = np.floor(times).astype(np.int64)
    more = np.random.default_rng(seed).random(len(times)) < times - whole
    return [examples[i] for i in np.repeat(np.arange(len(times)), whole + more).tolist()]
