"""What may vary: dotted paths of `classify train` settings, each with its choices or its range."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from classify.settings import TrainConfig
from weakray.config import StrictModel, flag_fields
from weakray.errors import ConfigError


class Dimension(StrictModel):
    """Values that one setting may take: `choices`, or a range from `low` to `high`, both included."""

    choices: tuple[Any, ...] | None = Field(None, min_length=1, description="values, or whole sections")
    low: int | float | None = Field(None, description="smallest value")
    high: int | float | None = Field(None, description="largest value")
    log: bool = Field(False, description="as likely between 1 and 10 as between 10 and 100")
    step: int | float | None = Field(None, gt=0, description="low, low + step, …, high; null: any value")

    @model_validator(mode="after")
    def _consistent(self) -> Dimension:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("expected choices, or low and high; got both")
            if len({label(value) for value in self.choices}) < len(self.choices):
                raise ValueError("expected unlike choices; one stands twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected choices: [...], or low and high")
        if not self.low < self.high:
            raise ValueError("expected low < high")
        if self.log and self.low <= 0:
            raise ValueError("expected low > 0 where log is true")
        if self.log and self.step is not None:
            raise ValueError("expected log or step; they do not go together")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
                raise ValueError(f"expected high = low + a whole number of steps; {steps:g} lie between")
        return self

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """Smallest and largest value of a range."""
        if self.low is None or self.high is None:
            raise ValueError("choices have no ends")
        return self.low, self.high


def label(value: Any) -> str:
    """A choice as the record and the table name it."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Parameter:
    """A setting that varies.

    Attributes:
        path: dotted, inside `classify train`'s settings.
        dimension: its values.
        whole: a range of whole numbers.
    """

    path: str
    dimension: Dimension
    whole: bool

    @property
    def by_label(self) -> dict[str, Any]:
        """Choices by the names that the record has for them; empty for a range."""
        return {label(value): value for value in self.dimension.choices or ()}

    def draw(self, trial: Any) -> Any:
        """The value that an optuna trial proposes."""
        if self.dimension.choices is not None:
            return self.by_label[trial.suggest_categorical(self.path, list(self.by_label))]
        (low, high), log, step = self.dimension.ends, self.dimension.log, self.dimension.step
        if self.whole:
            return trial.suggest_int(self.path, int(low), int(high), log=log, step=int(step or 1))
        return trial.suggest_float(self.path, float(low), float(high), log=log, step=step)


def parameters(space: Mapping[str, Dimension]) -> list[Parameter]:
    """The space, held against the settings of `classify train`.

    Raises:
        ConfigError: if a path names no setting, or one that must stay, or lies inside another; or a range is given
            for what is no number.
    """
    fields = flag_fields(TrainConfig)
    for path in space:
        outer = [other for other in space if path.startswith(f"{other}.")]
        if outer:
            raise ConfigError(f"space: {path} lies inside {outer[0]}; vary one of them")
        if path.split(".")[0] in ("data", "out"):
            raise ConfigError(f"space.{path}: is the same for all trials; remove it")
    return [Parameter(path, dimension, _whole(path, dimension, fields)) for path, dimension in space.items()]


def _whole(path: str, dimension: Dimension, fields: Mapping[str, FieldInfo]) -> bool:
    """Whether a range is one of whole numbers: by the setting's type, and where it takes both kinds, by the ends."""
    kinds = _kinds(path, fields)
    if dimension.choices is not None:
        return False
    if not kinds & {int, float}:
        raise ConfigError(f"space.{path}: is no number; expected choices: [...] in place of low and high")
    given = [*dimension.ends, *([] if dimension.step is None else [dimension.step])]
    if float in kinds:
        return int in kinds and all(isinstance(value, int) for value in given)
    if not all(float(value).is_integer() for value in given):
        raise ConfigError(f"space.{path}: takes whole numbers; got {', '.join(f'{value:g}' for value in given)}")
    return True


def _kinds(path: str, fields: Mapping[str, FieldInfo]) -> set[Any]:
    """Types that a setting takes; none for a section, every number for a place inside a free one."""
    if path in fields:
        return _types(fields[path].annotation)
    if any(name.startswith(f"{path}.") for name in fields):
        return set()
    around = [_types(info.annotation) for name, info in fields.items() if path.startswith(f"{name}.")]
    if any(kind is dict or (isinstance(kind, type) and issubclass(kind, StrictModel)) for kind in set().union(*around)):
        return {int, float}
    near = get_close_matches(path, fields, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(fields)}"
    raise ConfigError(f"space.{path}: `classify train` has no such setting{hint}")


def _types(annotation: Any) -> set[Any]:
    return {annotation, get_origin(annotation)}.union(*map(_types, get_args(annotation)))


def applied(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the values of dotted paths put in; `base` stays as it is.

    Raises:
        ConfigError: if a path leads through something that is no section.
    """
    settings = copy.deepcopy(dict(base))
    for path, value in values.items():
        *sections, last = path.split(".")
        at = settings
        for name in sections:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise ConfigError(f"space.{path}: train.{name} is {at!r}, no section; remove one of them")
        at[last] = copy.deepcopy(value)
    return settings
