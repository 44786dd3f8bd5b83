"""One trial: an ordinary run of `classify train`, and how it ended."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from classify.settings import TrainConfig
from classify.train import train
from weakray.config import validate
from weakray.errors import ConfigError, DivergedError, RunError
from weakray.runs import RunFolder

Outcome = Literal["done", "pruned", "oom", "diverged", "refused"]
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True)
class Ended:
    """How a trial ended.

    Attributes:
        outcome: `done`; `pruned`, worse than the others half-way; `oom`, out of memory; `diverged`, a loss that is not
            finite; `refused`, settings that do not go together.
        score: of the epoch that training kept; None unless done.
        best_epoch: that epoch.
        message: what an unsuccessful trial said.
    """

    outcome: Outcome
    score: float | None = None
    best_epoch: int | None = None
    message: str = ""


def attempt(trial: Any, settings: Mapping[str, Any], metric: str, prune: bool) -> Ended:
    """Trains under a trial's settings, from where its run folder stands.

    Args:
        trial: optuna's; gets the metric of each epoch.
        settings: of `classify train`.
        metric: which figure of an epoch is the score.
        prune: whether the trial's study may end it half-way.

    Raises:
        RunError: if training writes no such metric, or the metric is undefined on val.
    """
    from optuna import TrialPruned

    seen = set[int]()

    def watch(row: Mapping[str, Any]) -> None:
        if "epoch" not in row or row["epoch"] in seen:
            return  # an event, or done again after an interruption
        seen.add(row["epoch"])
        trial.report(score_of(row, metric), row["epoch"])
        if prune and trial.should_prune():
            raise TrialPruned

    folder = Path(settings["out"])
    try:
        config = validate(TrainConfig, settings)
        for row in RunFolder(folder, "").metrics():
            watch(row)
        result = train(config, watch)
    except TrialPruned:
        ended = Ended("pruned", message=f"in epoch {max(seen)}")
    except ConfigError as error:
        ended = Ended("refused", message=str(error))
    except DivergedError as error:
        ended = Ended("diverged", message=str(error))
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        ended = Ended("oom", message=str(error))
    else:
        kept = next(row for row in RunFolder(folder, "").metrics() if row.get("epoch") == result.best_epoch)
        return Ended("done", score_of(kept, metric), result.best_epoch)
    if ended.outcome == "oom":
        _free_memory()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # nobody will go on from them
    return ended


def score_of(row: Mapping[str, Any], metric: str) -> float:
    """The metric of an epoch.

    Raises:
        RunError: if the epoch has none.
    """
    if metric not in row:
        known = ", ".join(name for name in row if name.startswith("val_"))
        raise RunError(f"metric: training writes no {metric}; expected one of {known}")
    if row[metric] is None:
        raise RunError(f"metric: {metric} is undefined on val; name another, or make a larger val split")
    return float(row[metric])


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error).lower() for text in _NO_MEMORY)


def _free_memory() -> None:
    """Gives back what the trial held; called where its exception, which holds the frames, is gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
