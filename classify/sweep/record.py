"""The ended trials, in SQLite.

A trial is written when it has ended, in one transaction. What is being tried stands nowhere: its settings follow from
the seed and the trials before it, so a sweep that was killed proposes them again and finds the half-done run folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weakray.errors import RunError

Direction = Literal["maximize", "minimize"]


@contextmanager
def opened(path: Path, direction: Direction) -> Iterator[Any]:
    """The optuna study in an SQLite file, made where missing.

    Raises:
        RunError: if the file is no record of trials.
    """
    import optuna
    from sqlalchemy import URL
    from sqlalchemy.exc import DatabaseError

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it tells of each study and trial
    storage = None
    try:
        url = URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)
        try:
            storage = optuna.storages.RDBStorage(url)
            study = optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)
        except (DatabaseError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"{path}: expected a record of trials, got something else ({reason}); remove it") from None
        yield study
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(level)


def sampler(seed: int, number: int, startup_trials: int) -> Any:
    """A tree-structured Parzen estimator (Bergstra et al. 2011) for one trial.

    Seeded by the trial's number, so that its proposal depends on the trials before it and not on how often the sweep
    was interrupted.
    """
    import optuna

    drawn = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    return optuna.samplers.TPESampler(seed=int(drawn), n_startup_trials=startup_trials)
