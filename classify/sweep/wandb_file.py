"""The same search as a file for Weights & Biases' own sweeps; nothing is sent, and the package is not needed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from classify.settings import TrainConfig
from classify.sweep.record import Direction
from classify.sweep.space import Parameter
from weakray.config import flag_fields
from weakray.errors import ConfigError
from weakray.files import write_text, write_yaml

_MOST_VALUES = 1000


def write_wandb_sweep(
    folder: Path, parameters: Sequence[Parameter], base: dict[str, Any], metric: str, direction: Direction
) -> None:
    """Writes `wandb_sweep.yaml` and the `wandb_base.yaml` that its command starts from.

    Raises:
        ConfigError: if the space varies a whole section, which no flag can say.
    """
    command = (
        f"exec weakray classify train {shlex.quote(str(folder / 'wandb_base.yaml'))} --wandb online "
        f'--out {shlex.quote(str(folder / "wandb_runs"))}/"$WANDB_RUN_ID" "$@"'
    )
    content = {
        "method": "bayes",
        "metric": {"name": metric, "goal": direction},
        "parameters": {one.path.replace("_", "-"): _values(one) for one in parameters},
        # A shell, since each run needs a folder of its own and its id is known to its environment alone.
        "command": ["/usr/bin/env", "sh", "-c", command, "weakray", "${args}"],
    }
    head = f"# wandb sweep {folder / 'wandb_sweep.yaml'}\n# wandb agent ID, from the same folder as the line above\n"
    write_yaml(folder / "wandb_base.yaml", base)
    write_text(folder / "wandb_sweep.yaml", head + yaml.safe_dump(content, sort_keys=False, width=120))


def _values(parameter: Parameter) -> dict[str, Any]:
    if parameter.path not in flag_fields(TrainConfig):
        raise ConfigError(
            f"wandb_sweep: {parameter.path} is no single setting; vary those inside it, or set it to false"
        )
    dimension = parameter.dimension
    if dimension.choices is not None:
        # A list or null reaches the command as text, so it is written as the YAML that a flag reads.
        plain = (str, int, float, bool)
        return {"values": [one if isinstance(one, plain) else json.dumps(one) for one in dimension.choices]}
    low, high = dimension.ends
    step = dimension.step or (1 if parameter.whole else None)
    if step is not None and not (parameter.whole and step == 1):
        count = round((high - low) / step) + 1
        if count > _MOST_VALUES:
            raise ConfigError(f"wandb_sweep: {parameter.path} has {count} values; take a larger step, or none")
        return {"values": [low + i * step for i in range(count)]}
    ends = {"min": int(low), "max": int(high)} if parameter.whole else {"min": float(low), "max": float(high)}
    if parameter.whole:
        return (
            {"distribution": "q_log_uniform_values", "q": 1, **ends}
            if dimension.log
            else {"distribution": "int_uniform", **ends}
        )
    return {"distribution": "log_uniform_values" if dimension.log else "uniform", **ends}
