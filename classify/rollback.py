"""What happens when a loss or gradient is not finite: back to the last good state, and past what spoiled it.

A batch that does so is left out. Where it happens again before training came further than to the same good state, or in
the validation, no single batch is to blame: the learning rate is lowered for the rest of the training too.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from classify.checkpoint import Checkpoint, Progress
from weakray.config import StrictModel


class RollbackConfig(StrictModel):
    """What happens when a loss or gradient is not finite."""

    every_steps: int = Field(100, ge=1, description="steps between the states that training can be sent back to")
    limit: int = Field(3, ge=0, description="how often it is sent back; one more ends the run with an error")
    rate_factor: float = Field(
        0.5, gt=0, lt=1, description="what the learning rate is multiplied by when it happens again, or in validation"
    )


def due(config: RollbackConfig, now: Progress, last: Progress) -> bool:
    """Whether a good state is to be kept here: at the start of each epoch, and every so many batches."""
    if now.place[:2] != last.place[:2]:
        return True
    return now.batch // config.every_steps > last.batch // config.every_steps


def after_rollback(config: RollbackConfig, failed: Progress, good: Checkpoint, batch: int | None) -> dict[str, Any]:
    """The counts with which training goes on from a good state, over those of the state.

    Args:
        config: the rule.
        failed: the counts when it happened.
        good: where training is sent back to.
        batch: which batch of the epoch was to blame; None: the validation.
    """
    again = failed.returned_to == good.progress.place or batch is None
    return {
        "rollbacks": failed.rollbacks + 1,
        "returned_to": good.progress.place,
        "left_out": failed.left_out if batch is None else [*failed.left_out, [failed.epoch, batch]],
        "rate_factor": failed.rate_factor * (config.rate_factor if again else 1.0),
        "rows": failed.rows,
        "unusable": failed.unusable,
    }
