"""Optional tracking by Weights & Biases; off unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from weakray.errors import ConfigError

Tracking = Literal["disabled", "offline", "online"]
TRACKING_HELP = (
    "Weights & Biases: disabled, offline (needs no key, writes into the run folder alone; send it later by "
    "`wandb sync OUT/wandb/offline-run-*`) or online (log in by `wandb login` first)"
)


@contextmanager
def tracked(
    mode: Tracking, folder: Path, run_id: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that takes an epoch's figures.

    An interrupted training that goes on continues the same tracked run.

    Args:
        mode: `offline` writes into `folder` alone, `online` also sends.
        folder: the run folder, whose name names the run.
        run_id: the same for each attempt at the same training.
        settings: the config, for the run's page.

    Raises:
        ConfigError: if tracking is asked for and the package is not installed, or it refuses (no key, no network).
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
    try:
        run = wandb.init(
            project="weakray",
            name=folder.name,
            id=run_id,
            resume="allow" if mode == "online" else None,
            dir=str(folder),
            mode=mode,
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise ConfigError(f"wandb: could not start ({error}); run `wandb login`, or set wandb to offline") from None
    try:
        yield lambda row: run.log(dict(row), step=row["epoch"])
    finally:
        run.finish()


def _forget(row: Mapping[str, Any]) -> None:
    """Takes an epoch's figures where nobody asked for them."""
