"""`weakray detect choose`: which way to teach the detector, decided by cross-validation on tune.

A detector has learnt tune's boxes, so its figure there means nothing unless those patients were held out. Here each
candidate is trained once a fold with a third (1 / folds) of tune's patients held out, and the boxes that the folds'
detectors find on their held-out images are pooled: each tune image is scored once, by a detector that did not see its
patient. Test is not looked at.

Two choices are made. How many rounds a candidate goes: as many as its pooled AP50 rises, one after the other; where
they are one training (`course.continued`), all. And which candidate: the simplest (the first named) whose AP50 is not
below the best one's by more than chance (paired bootstrap over patients); a difference inside the interval is a tie,
and ties go to the simpler.

What still leaks: the recipe that made the pseudo-boxes was fitted on all of tune, so that candidates which learn from
them are flattered a little against few-shot ones; and the winner's figure is the highest of several, so it is no figure
to report. Scores of several detectors are pooled as if they meant the same; where they do not, AP is a little low.

    OUT/NAME/fold_K     an ordinary run folder of `detect train`, less the images it learnt from; found again if done
    OUT/choice          choice.json (all figures), choice.md (to read), chosen.yaml (settings for `detect train`)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from detect.candidates import Candidate, as_markdown, choose
from detect.holding_out import HeldOutConfig, patient_folds
from detect.rounds import held_out_boxes
from detect.train import DetectTrainConfig, check, inputs_of, wants_boxes
from detect.train import run as train
from eval.average_precision import match
from eval.intervals import PatientDraws
from weakray.coco import Predictions, load_results
from weakray.config import StrictModel, to_plain, validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.files import sha256_json, write_json, write_text, write_yaml
from weakray.runs import open_run

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
_ONE_TRAINING = {"rounds": 4, "continued": True, "first_share": 0.33, "tune_mixed": 0.4}
_CANDIDATES: dict[Name, dict[str, Any]] = {
    "tune": {"source": "tune"},
    "pseudo_then_tune": {"source": "pseudo_then_tune"},
    "mixed": {"source": "pseudo_then_tune", "course": {"tune_mixed": 0.3}},
    "rounds": {"source": "pseudo_then_tune", "course": {"rounds": 2}},
    "tune_continued": {"source": "tune", "course": _ONE_TRAINING},
    "continued": {"source": "pseudo_then_tune", "course": _ONE_TRAINING},
}
_GIVEN = ("data", "out", "boxes", "held_out", "choice")
_OWN_FOLDER = "choice"


class ChooseConfig(StrictModel):
    """Settings of `weakray detect choose`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "boxes"})

    data: Path = Field(..., description="dataset folder with annotated tune images")
    out: Path = Field(..., description="folder of the trainings, OUT/NAME/fold_K, and of OUT/choice")
    boxes: Path | None = Field(
        None, description="boxes.json of `camgen generate`; for candidates that learn from pseudo-boxes"
    )
    train: dict[str, Any] = Field({}, description="settings of `detect train` that all candidates share")
    candidates: dict[Name, dict[str, Any]] = Field(
        _CANDIDATES,
        min_length=1,
        description="name: what it changes in `train`; from simple to elaborate, for ties go to the first",
    )
    folds: int = Field(3, ge=2, description="parts of tune's patients; each candidate is trained once a part")
    fold_seed: int = Field(0, ge=0, description="of the dealing of patients")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="of the bootstrap")


class ChooseResult(StrictModel):
    """What was chosen; `choice.md` tells why."""

    chosen: str
    rounds: int  # after the first
    steps: int
    best: str  # the candidate of highest AP50
    ap50: dict[str, float]  # on held-out tune images, of each candidate at its number of rounds


def run(config: ChooseConfig) -> ChooseResult:
    """Trains what is not trained yet, and chooses.

    Raises:
        ConfigError: if a candidate's settings are wrong, before any training.
        DataError: if tune has no box, or fewer patients than folds.
    """
    trained = settings_of(config)
    for own in trained.values():
        check(own)
    dataset = Dataset.load(config.data)
    patient_folds(dataset, config.folds, config.fold_seed)  # refuses before any training
    folder = open_run(folder_of(config), config, _inputs(trained, dataset))
    chosen_yaml = folder.root / "chosen.yaml"
    if (done := folder.finished()) is not None and chosen_yaml.is_file():
        return ChooseResult.model_validate(done)
    candidates = [_pooled(name, own, config, dataset) for name, own in trained.items()]
    drawn = PatientDraws.of(candidates[0].rounds[0].image_ids, dataset.patients, config.draws, config.seed)
    choice = choose(candidates, drawn)
    chosen = choice.chosen
    rounds = _rounds(trained[chosen.name], chosen.kept)
    settings = _chosen(config, chosen.name, rounds, trained[chosen.name])
    about = {"folds": config.folds, "images": len(drawn.patient), "patients": drawn.n_patients}
    write_json(folder.root / "choice.json", {"metric": "ap50", **about, **choice.to_dict(), "settings": settings})
    write_text(folder.root / "choice.md", as_markdown(choice, **about))
    write_yaml(chosen_yaml, settings)
    result = ChooseResult(
        chosen=chosen.name,
        rounds=rounds,
        steps=chosen.steps[chosen.kept],
        best=choice.best.name,
        ap50={row.name: round(row.ap50[row.kept].value, 6) for row in choice.rows},
    )
    folder.finish(result.model_dump(mode="json"))
    return result


def folder_of(config: ChooseConfig) -> Path:
    """The run folder of the choice: not that of the trainings, which stay when another candidate is added."""
    return config.out / _OWN_FOLDER


def settings_of(
    config: ChooseConfig, shared: str = "train", candidates: str = "candidates"
) -> dict[str, DetectTrainConfig]:
    """Each candidate's training, its first fold held out; the settings are checked, the files are not looked for.

    Args:
        config: of the choice.
        shared: dotted path of the shared settings, for messages.
        candidates: that of the candidates.

    Raises:
        ConfigError: naming the dotted path of a wrong setting.
    """
    trained = {}
    for name, own in config.candidates.items():
        path = f"{candidates}.{name}"
        if config.out / name == folder_of(config):
            raise ConfigError(f"{path}: is the folder of the choice itself; give it another name")
        given = {"data": config.data, "out": config.out / name, "held_out": _fold(config, 0).model_dump()}
        for section, settings in ((shared, config.train), (path, own)):
            clash = sorted(set(settings) & set(_GIVEN))
            if clash:
                raise ConfigError(f"{section}.{clash[0]}: is set by `detect choose`; remove it")
        validate(DetectTrainConfig, {**config.train, **given}, shared)
        checked = validate(DetectTrainConfig, {**_merged(config.train, own), **given}, path)
        if checked.source == "ceiling":
            raise ConfigError(
                f"{path}.source: the ceiling learns from true boxes of train images; it is a rival, not a choice"
            )
        trained[name] = checked.model_copy(update={"boxes": config.boxes if wants_boxes(checked) else None})
    return trained


def _fold(config: ChooseConfig, fold: int) -> HeldOutConfig:
    return HeldOutConfig(folds=config.folds, fold=fold, seed=config.fold_seed)


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both; where both have a section, setting by setting."""
    inner = {
        name: _merged(shared[name], value)
        for name, value in own.items()
        if isinstance(value, Mapping) and isinstance(shared.get(name), Mapping)
    }
    return {**shared, **own, **inner}


def _inputs(trained: Mapping[str, DetectTrainConfig], dataset: Dataset) -> dict[str, str]:
    """What the choice rests on; also the candidates' order, which a config's hash does not hold."""
    inputs = {"order": sha256_json(list(trained))}
    for name, own in trained.items():
        inputs |= {f"{name}/{what}": sha256 for what, sha256 in inputs_of(own, dataset).items()}
    return inputs


def _pooled(name: str, first: DetectTrainConfig, config: ChooseConfig, dataset: Dataset) -> Candidate:
    """A candidate trained on every fold; after each round, the boxes of all folds' held-out images together."""
    rounds: dict[int, Predictions] = {}
    steps: tuple[int, ...] = ()
    for fold in range(config.folds):
        out = config.out / name / f"fold_{fold}"
        print(f"     {name}, fold {fold + 1} of {config.folds}", flush=True)
        result = train(first.model_copy(update={"out": out, "held_out": _fold(config, fold)}))
        # a copy of every training image a fold, a round and a candidate; nothing reads them once the run is done
        shutil.rmtree(out / "training_set", ignore_errors=True)
        measured = result.rounds[-1:] if first.course.continued else result.rounds
        steps = tuple(row.steps for row in measured)
        for row in measured:
            rounds.setdefault(row.round, {}).update(load_results(held_out_boxes(out, row.round)))
    truth, classes = dataset.truth_of("tune"), len(dataset.taxonomy)
    return Candidate(name, steps, tuple(match(found, truth, classes) for found in rounds.values()))


def _rounds(trained: DetectTrainConfig, kept: int) -> int:
    """Rounds that are kept: of rounds that are one training all, for its learning rate falls to the end."""
    return trained.course.rounds if trained.course.continued else kept


def _chosen(config: ChooseConfig, name: str, kept: int, trained: DetectTrainConfig) -> dict[str, Any]:
    """Settings of `detect train` for the chosen candidate, of the rounds that are kept and their steps alone."""
    plain = to_plain(config)  # as JSON has it: no paths
    settings = _merged(plain["train"], plain["candidates"][name])
    rounds = trained.course.rounds
    if kept == rounds:
        return settings
    shorter = {"course": {"rounds": kept}, "steps": trained.steps * (kept + 1) // (rounds + 1)}
    return _merged(settings, shorter)
