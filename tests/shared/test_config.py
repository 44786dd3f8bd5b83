from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from weakray.config import StrictModel, flag_fields, load, validate
from weakray.errors import ConfigError


class Inner(StrictModel):
    rate: float = Field(0.1, gt=0, description="step size")


class Outer(StrictModel):
    out: Path
    inner: Inner = Inner()
    members: tuple[Inner, ...] = ()


def test_yaml_first_then_flags(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("out: a\ninner: {rate: 0.5}\n")
    config = load(Outer, path, {"inner.rate": "0.25"})
    assert (config.out, config.inner.rate) == (Path("a"), 0.25)
    assert set(flag_fields(Outer)) == {"out", "inner.rate", "members"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": "a", "inner": {"ratio": 1}}, r"^inner.ratio: unknown setting; expected one of: rate$"),
        ({"out": "a", "members": [{}, {"x": 1}]}, r"^members.1.x: unknown setting; expected one of: rate$"),
        ({"out": "a", "inner": {"rate": -1}}, r"^inner.rate: input should be greater than 0 \(got -1\)$"),
        ({}, r"^out: required, but not given$"),
        ([1], r"^config: expected settings \(key: value\), got list$"),
    ],
)
def test_errors_name_the_dotted_path(values: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Outer, values)


def test_errors_carry_the_path_of_the_section() -> None:
    with pytest.raises(ConfigError, match=r"^classify.inner.ratio: unknown"):
        validate(Outer, {"out": "a", "inner": {"ratio": 1}}, "classify")


def test_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().rate = 2  # type: ignore[misc]
