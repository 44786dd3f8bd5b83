"""One of several processes that train: started by a launcher with a file of jobs, which it does in turn.

A job is `{"config": …, "disturb": null | [what, call]}`: at that call of the loss (from 0; a validation is a call too)
`nan` spoils the loss of process 1, `kill` ends process 0. `mean_of_means` (at no call) forgets what others count. Each
process leaves the weights that it ends with in `OUT-RANK.pt`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import classify.train
from classify.checkpoint import Progress, Tensors
from classify.distributed import _Several
from classify.loop import Trainer
from classify.loss import Loss, LossTerms, criterion
from classify.settings import TrainConfig
from weakray.config import validate


def disturbed(what: str, at: int, rank: int) -> Any:
    """In the place of `criterion`: one that disturbs one of its calls."""
    calls = count()

    def made(*given: Any) -> Loss:
        whole = criterion(*given)

        def terms(logits: Tensor, values: Tensor, mask: Tensor, uncertain: Tensor | None) -> LossTerms:
            found = whole.terms(logits, values, mask, uncertain)
            if next(calls) != at:
                return found
            if what == "kill" and rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return LossTerms(found.total * float("nan"), found.counted) if what == "nan" and rank == 1 else found

        return Loss(terms)

    return made


def do(job: dict[str, Any], rank: int) -> None:
    config, fit = validate(TrainConfig, job["config"]), Trainer.fit

    def kept(trainer: Trainer) -> tuple[Progress, Tensors]:
        progress, best = fit(trainer)
        torch.save(best, f"{config.out}-{rank}.pt")
        return progress, best

    what, at = job["disturb"] or ("nothing", -1)
    with (
        mock.patch.object(Trainer, "fit", kept),
        mock.patch.object(classify.train, "criterion", disturbed(what, at, rank)),
        mock.patch.object(_Several, "criterion", lambda _, whole: whole)
        if what == "mean_of_means"
        else mock.patch.object(os, "name", os.name),
    ):
        classify.train.run(config)


if __name__ == "__main__":
    for each in json.loads(Path(sys.argv[1]).read_text()):
        do(each, int(os.environ.get("RANK", "1")))
