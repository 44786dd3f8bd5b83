"""Optional tracking by Weights & Biases; off unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from weakray.errors import ConfigError

Tracking = Literal["disabled", "offline", "online"]


@contextmanager
def tracked(mode: Tracking, folder: Path, settings: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that takes an epoch's figures.

    Args:
        mode: `offline` writes into `folder` alone, `online` also sends.
        folder: the run folder, whose name names the run.
        settings: the config, for the run's page.

    Raises:
        ConfigError: if tracking is asked for and the package is not installed.
    """
    if mode == "disabled":
        yield _forget
        return
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):  # else it writes into the home folder
        os.environ.setdefault(name, str(folder.resolve() / "wandb"))
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"wandb: {mode} needs the package wandb; install it, or set wandb to disabled") from None
    run = wandb.init(project="weakray", name=folder.name, dir=str(folder), mode=mode, config=dict(settings))
    try:
        yield run.log
    finally:
        run.finish()


def _forget(row: Mapping[str, Any]) -> None:
    """Takes an epoch's figures where nobody asked for them."""
