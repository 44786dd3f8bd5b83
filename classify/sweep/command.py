"""`weakray classify sweep`: tries settings of `classify train` and keeps a record of how each did on val.

A sweep's YAML:

    data: data/nih
    out: runs/sweep
    trials: 40
    train: {epochs: 10, model: {backbone: densenet121}, early_stop: {metric: val_macro_auroc}}
    space:
      optimizer.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
      batch_size: {low: 16, high: 64, step: 16}
      model.output_stride: {choices: [16, 32, null]}
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field
from tqdm import tqdm

from classify.settings import TrainConfig
from classify.sweep.record import Direction, opened, sampler
from classify.sweep.report import Row, importances, ranked, row_of, write_plot, write_tables
from classify.sweep.space import Dimension, Parameter, applied, parameters
from classify.sweep.trial import Ended, attempt
from classify.sweep.wandb_file import write_wandb_sweep
from weakray.config import StrictModel, to_plain, validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, RunError
from weakray.files import sha256_file, sha256_json, write_text, write_yaml
from weakray.runs import RunFolder, open_run


class PruneConfig(StrictModel):
    """When a trial is given up half-way: below the median of the others' figures at the same epoch."""

    startup_trials: int = Field(5, ge=1, description="trials that must have ended well before any is given up")
    warmup_epochs: int = Field(0, ge=0, description="epochs in which no trial is given up")


class SweepConfig(StrictModel):
    """Settings of `weakray classify sweep`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "train", "trials", "wandb_sweep"})

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder; trial N is the training run OUT/trials/N")
    train: dict[str, Any] = Field({}, description="settings of `classify train` that all trials share")
    space: dict[str, Dimension] = Field(
        min_length=1, description="dotted path of a setting to {choices: [...]} or {low, high, log, step}"
    )
    trials: int = Field(20, ge=1, description="trials in all; more than were done goes on with the same sweep")
    metric: str | None = Field(
        None, pattern="^val_", description="figure of the kept epoch that is the score; null: early_stop.metric"
    )
    seed: int = Field(0, ge=0, description="of the proposals; training has its own in `train`")
    startup_trials: int = Field(10, ge=1, description="trials drawn at random before the others are learnt from")
    prune: PruneConfig | None = Field(None, description="giving up trials half-way; null: each runs to its end")
    wandb_sweep: bool = Field(False, description="also write wandb_sweep.yaml, for Weights & Biases' own sweeps")


class SweepResult(StrictModel):
    """What the trials reached."""

    trials: int
    outcomes: dict[str, int]
    metric: str
    best_trial: int
    best_score: float
    best: dict[str, Any]  # dotted path → value


def run(config: SweepConfig) -> SweepResult:
    """Runs the trials that are left, and writes `trials.csv`, `table.md`, `sweep.png` and `best.yaml`.

    `sweep.sqlite` is the record, readable by optuna's tools. Out of memory, a loss that is not finite and settings
    that do not go together are results of a trial; anything else ends the sweep, which goes on when run again.

    Raises:
        ConfigError: naming the dotted path of a wrong setting, before any trial.
        RunError: if no trial has a score, or training does not write the metric.
    """
    varied = parameters(config.space)
    base = _base(config)
    metric = config.metric or base.early_stop.metric
    direction: Direction = "minimize" if metric.endswith("_loss") else "maximize"
    _check_comparable(metric, varied)
    folder = open_run(config.out, config, _inputs(config, base))
    if config.wandb_sweep:
        write_wandb_sweep(folder.root, varied, to_plain(base), metric, direction)
    done = folder.finished()
    if done is not None and done["trials"] >= config.trials:
        return SweepResult(**done)
    write_yaml(folder.root / "config.yaml", to_plain(config))  # of more trials than it was opened for
    rows, importance = _trials(config, folder, varied, metric, direction)
    best = ranked(rows, direction)
    write_tables(folder.root, best, metric, importance)
    if best[0].score is None:
        raise RunError(
            f"{folder.root}: none of {len(rows)} trials has a score; the first was {rows[0].outcome} "
            f"({rows[0].message}); change `train` or `space`"
        )
    write_plot(folder.root / "sweep.png", rows, varied, metric, direction)
    _write_best(folder.root / "best.yaml", config, _drawn(varied, best[0].values), f"{metric} {best[0].score:.4f}")
    result = SweepResult(
        trials=len(rows),
        outcomes=dict(sorted(Counter(row.outcome for row in rows).items())),
        metric=metric,
        best_trial=best[0].number,
        best_score=best[0].score,
        best=_drawn(varied, best[0].values),
    )
    folder.finish(to_plain(result))
    return result


def _base(config: SweepConfig) -> TrainConfig:
    clash = sorted({"data", "out"} & set(config.train))
    if clash:
        raise ConfigError(f"train.{clash[0]}: is set by the sweep; remove it")
    return validate(TrainConfig, {**config.train, "data": config.data, "out": config.out}, "train")


def _check_comparable(metric: str, varied: list[Parameter]) -> None:
    changing = [one.path for one in varied if one.path.split(".")[0] in ("loss", "hierarchy", "blanks")]
    if metric == "val_loss" and changing:
        raise ConfigError(f"metric: val_loss means something else under each {changing[0]}; name val_macro_auroc")


def _inputs(config: SweepConfig, base: TrainConfig) -> dict[str, str]:
    """Hashes of what the trials read, and of the settings that they share, less those that change no result."""
    inputs = {"dataset": Dataset.load(config.data).sha256}
    shared = {name: value for name, value in to_plain(base).items() if name not in TrainConfig.unhashed}
    inputs["train"] = sha256_json(shared)
    sources = [base.init, *(config.space["init"].choices or () if "init" in config.space else ())]
    for i, source in enumerate(sources):
        if source is not None and (Path(source) / "model.json").is_file():
            inputs[f"init_{i}"] = sha256_file(Path(source) / "model.json")
    return inputs


def _trials(
    config: SweepConfig, folder: RunFolder, varied: list[Parameter], metric: str, direction: Direction
) -> tuple[list[Row], dict[str, float]]:
    """Runs what is left; returns all trials by number, and the parameters' importance."""
    import optuna

    prune = config.prune
    pruner = (
        optuna.pruners.NopPruner()
        if prune is None
        else optuna.pruners.MedianPruner(prune.startup_trials, prune.warmup_epochs + 1)  # epochs count from 1
    )
    with (
        opened(folder.root / "sweep.sqlite", direction) as record,
        tqdm(total=config.trials, desc="sweep", unit="trial", disable=None) as bar,
    ):
        study = optuna.create_study(direction=direction, pruner=pruner)  # in memory: proposes, and holds what is tried
        study.add_trials(record.trials)
        bar.update(len(study.trials))
        for number in range(len(study.trials), config.trials):
            study.sampler = sampler(config.seed, number, config.startup_trials)
            trial = study.ask()
            values = {one.path: one.draw(trial) for one in varied}
            ended = _twin(study.trials[:number], trial) or _try(config, values, number, trial, metric)
            for name in ("outcome", "best_epoch", "message"):
                trial.set_user_attr(name, getattr(ended, name))
            # What failed counts as given up: the sampler then keeps away from it, while it forgets failed trials.
            state = optuna.trial.TrialState.COMPLETE if ended.outcome == "done" else optuna.trial.TrialState.PRUNED
            record.add_trial(study.tell(trial, ended.score, state))
            bar.update()
        return [row_of(one) for one in study.trials], importances(study)


def _twin(earlier: list[Any], trial: Any) -> Ended | None:
    """How a trial of the same settings ended: training again would end alike."""
    for one in earlier:
        if one.params == trial.params:
            told = one.user_attrs
            score = one.value if told["outcome"] == "done" else None
            return Ended(told["outcome"], score, told["best_epoch"], f"same settings as trial {one.number}")
    return None


def _try(config: SweepConfig, values: dict[str, Any], number: int, trial: Any, metric: str) -> Ended:
    try:
        settings = applied(config.train, values)
    except ConfigError as error:
        return Ended("refused", message=str(error))
    place = {"data": config.data, "out": config.out / "trials" / str(number)}
    return attempt(trial, {**settings, **place}, metric, config.prune is not None)


def _drawn(varied: list[Parameter], values: dict[str, Any]) -> dict[str, Any]:
    """Values as the record names them → as the settings take them."""
    return {one.path: one.by_label[values[one.path]] if one.by_label else values[one.path] for one in varied}


def _write_best(path: Path, config: SweepConfig, values: dict[str, Any], score: str) -> None:
    settings = {**applied(config.train, values), "data": config.data, "out": config.out / "best"}
    plain = to_plain(validate(TrainConfig, settings))
    head = f"# weakray classify train {path}\n# {score} on val, the best of the sweep\n"
    write_text(path, head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120))
