"""Typed settings: frozen pydantic models filled from a YAML file, then from flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from weakray.errors import ConfigError
from weakray.files import read_yaml


class StrictModel(BaseModel):
    """Base of every config: frozen, unknown keys refused, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


Config = TypeVar("Config", bound=StrictModel)


def validate(model: type[Config], values: Any, where: str = "") -> Config:
    """Builds `model` from plain values.

    Args:
        model: the config class.
        values: nested dicts, as YAML gives them.
        where: dotted path that stands before every path in a message.

    Raises:
        ConfigError: one line naming the dotted path of each setting that is unknown or wrong, and the value given.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'config'}: expected settings (key: value), got {type(values).__name__}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_message(model, e, where) for e in error.errors())) from None


def _message(model: type[StrictModel], error: Any, where: str) -> str:
    path = ".".join(part for part in (where, *(str(p) for p in error["loc"])) if part) or "config"
    if error["type"] == "extra_forbidden":
        known = ", ".join(known_keys(model, error["loc"][:-1]))
        return f"{path}: unknown setting; expected one of: {known}"
    if error["type"] == "missing":
        return f"{path}: required, but not given"
    return f"{path}: {error['msg'][0].lower()}{error['msg'][1:]} (got {error['input']!r})"


def known_keys(model: type[StrictModel], loc: tuple[Any, ...]) -> list[str]:
    """Names of the settings at a place inside `model`."""
    at: Any = model
    for part in loc:
        if isinstance(part, str) and part in getattr(at, "model_fields", {}):
            models = _models_in(at.model_fields[part].annotation)
            at = models[0] if models else at
    return list(getattr(at, "model_fields", {}))


def _models_in(annotation: Any) -> list[type[StrictModel]]:
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def load(model: type[Config], path: Path | None, flags: Mapping[str, str] | None = None) -> Config:
    """YAML file first, then flags (dotted path → YAML text), then validation.

    Raises:
        ConfigError: if the file is no mapping, or a setting is unknown or wrong.
    """
    values = {} if path is None else read_yaml(path)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings (key: value), got {type(values).__name__}")
    for dotted, text in (flags or {}).items():
        at = values
        *parents, last = dotted.split(".")
        for part in parents:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigError(f"{dotted}: {part} holds a value, not settings")
        at[last] = yaml.safe_load(text)
    return validate(model, values)


def flag_fields(model: type[StrictModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting that a flag can reach: dotted path → field."""
    found: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, StrictModel):
            found |= flag_fields(info.annotation, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = info
    return found


def to_plain(config: StrictModel) -> dict[str, Any]:
    """The config as JSON-able values, for `config.yaml` and hashing."""
    return dict(config.model_dump(mode="json"))
