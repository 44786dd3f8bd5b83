"""`weakray run CONFIG`: the stages in order or side by side, finished ones skipped, interrupted ones gone on with.

The pipeline holds no science. Each section of its config is the config of a stage's verb, paths and seeds filled in
here; each stage decides by its own run folder whether there is anything left to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from pydantic import Field

from weakray.config import Config, StrictModel, to_plain, validate
from weakray.errors import ConfigError
from weakray.files import read_json, sha256_file, sha256_json, write_json, write_yaml
from weakray.runs import open_run
from weakray.stages import Stage, run_stages

Rival = Literal["random_map", "centre_box", "mean_box", "gradcam_single", "few_shot", "supervised_detector"]
Section = dict[str, Any]


class ClassifySection(StrictModel):
    """The classifiers: settings they share, what each member has of its own, and how they become an ensemble."""

    train: Section = Field({}, description="settings of `classify train` for all members")
    members: tuple[Section, ...] = Field(({"seed": 0}, {"seed": 1}), description="what each member changes in `train`")
    ensemble: Section = Field({}, description="settings of `classify ensemble`")


class CamgenSection(StrictModel):
    """Maps and boxes."""

    search: Section = Field({}, description="settings of `camgen search`")
    generate: Section = Field({}, description="settings of `camgen generate`")


class DetectSection(StrictModel):
    """The detectors: settings they share, and how the weak one is taught."""

    train: Section = Field({}, description="settings of `detect train` for the weak detector and its rivals")
    weak: Section = Field({"source": "pseudo"}, description="what the weak detector changes in `train`")
    choose: Section | None = Field(
        None,
        description="settings of `detect choose`, less `train`: the weak detector is taught in the way that it chooses "
        "on tune, instead of `weak`; null: as `weak` says",
    )
    predict: Section = Field({}, description="settings of `detect predict`")
    export: Section = Field({}, description="settings of `detect export`")


class PipelineConfig(StrictModel):
    """A whole run. Sections hold the settings of the stages' verbs, less their paths."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"out", "at_once"})

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the run")
    out: Path | None = Field(None, description="folder of the run; null: runs/NAME")
    ingest: Section = Field(description="`source: phantom | nih | chexpert | …`, and that verb's settings")
    reports: Section | None = Field(
        None, description="settings of `ingest reports`: train labels are read out of reports; null: the dataset's own"
    )
    classify: ClassifySection = ClassifySection()
    camgen: CamgenSection = CamgenSection()
    detect: DetectSection = DetectSection()
    rivals: tuple[Rival, ...] = Field(
        ("random_map", "centre_box", "mean_box", "gradcam_single"), description="what the detector is compared with"
    )
    summary: Section = Field({}, description="settings of `eval summary`")
    report: Section = Field({}, description="settings of `eval report`")
    at_once: int = Field(
        1,
        ge=1,
        description="stages that may run at the same time, each on its share of the cores; 1: one after the other, on "
        "all. Another number of threads rounds differently, so that figures may differ a little",
    )

    @property
    def root(self) -> Path:
        """Folder of the run."""
        return self.out if self.out is not None else Path("runs") / self.name


class PipelineResult(StrictModel):
    """Where the figures and the report stand, and the headline."""

    summary: Path
    report: Path
    bundle: Path
    ap50: dict[str, float]
    recovered_fraction: float | None


def run(config: PipelineConfig) -> PipelineResult:
    """Runs every stage that is not done, writes `summary.json` before the last, which is the report.

    Raises:
        ConfigError: naming the dotted path of a wrong setting, before any stage starts.
        RunError: if a stage's process dies, where several run at once.
    """
    *stages, report = plan(config)
    root = config.root
    write_yaml(root / "config.yaml", to_plain(config))
    results = run_stages(stages, config.at_once)
    scores = results["eval.summary"]
    _write_summary(config, scores.scores, {stage.name: stage.seconds for stage in stages})
    return PipelineResult(
        summary=root / "summary.json",
        report=report.run(len(stages) + 1).report,
        bundle=results["detect.export"].bundle,
        ap50=scores.ap50,
        recovered_fraction=scores.recovered_fraction,
    )


def _write_summary(config: PipelineConfig, scores: Path, seconds: dict[str, float]) -> None:
    settings = {name: value for name, value in to_plain(config).items() if name not in config.unhashed}
    write_json(
        config.root / "summary.json",
        {"config_sha256": sha256_json(settings), **read_json(scores), "seconds": seconds},
    )


def plan(config: PipelineConfig) -> list[Stage]:
    """All stages in the order that data flows, their settings checked: a typing error must not show after an hour.

    Raises:
        ConfigError: naming the dotted path of a wrong setting.
    """
    from camgen import generate, search
    from classify import ensemble, evaluate, predict, settings, train
    from classify import export as classify_export
    from detect import export as detect_export
    from detect import predict as detect_predict
    from detect import train as detect_train
    from eval import summary
    from eval.report import command as report

    root, data = config.root, config.root / "dataset"
    at = _Settings(root)
    taken = [_ingest(config.ingest, root)]
    if config.reports is not None:
        taken += _labels_of_reports(config.reports, at, data)
        data = taken[-1].config.out
    shared = config.classify.train
    members = [
        at.config(settings.TrainConfig, f"classify/member_{i}", f"classify.members.{i}", {**shared, **own}, data=data)
        for i, own in enumerate(config.classify.members)
    ]
    joined = at.config(
        ensemble.EnsembleConfig,
        "classify/ensemble",
        "classify.ensemble",
        config.classify.ensemble,
        data=data,
        members=[member.out for member in members],
    )
    known = {"data": data, "ensemble": joined.out}
    probabilities = at.config(predict.PredictConfig, "classify/probabilities", "", {}, **known)
    figures = at.config(evaluate.EvaluateConfig, "classify/figures", "", {}, **known)
    searched = at.config(search.SearchConfig, "camgen/search", "camgen.search", config.camgen.search, **known)
    generated = {
        name: at.config(
            generate.GenerateConfig,
            f"camgen/{name}",
            "camgen.generate",
            {**_GALLERY, **config.camgen.generate},
            **known,
            recipe=searched.out / f"{name}.yaml",
            splits=splits,
        )
        for name, splits in _BOXED.items()
        if name == "recipe" or name in config.rivals
    }
    pseudo = generated["recipe"].out / "boxes.json"
    chosen = None if config.detect.choose is None else _choice(config.detect, at, data, pseudo)
    taught: dict[str, Section] = {"weak_detector": {**config.detect.train, **config.detect.weak}}
    if chosen is not None:
        taught["weak_detector"] = {"choice": chosen.folder / "chosen.yaml"}
    taught |= {
        name: {**config.detect.train, "source": source} for name, source in _TAUGHT.items() if name in config.rivals
    }
    trained = {
        name: at.config(detect_train.DetectTrainConfig, f"detect/{name}", "detect.train", own, data=data, boxes=None)
        for name, own in taught.items()
    }
    weak = trained["weak_detector"]
    if chosen is not None or detect_train.wants_boxes(weak):
        trained["weak_detector"] = weak.model_copy(update={"boxes": pseudo})
    detected = {
        name: at.config(
            detect_predict.DetectPredictConfig,
            f"detect/{name}_boxes",
            "detect.predict",
            config.detect.predict,
            data=data,
            detector=trained[name].out,
            splits=("tune", "test"),
        )
        for name in taught
    }
    graph = at.config(classify_export.ExportConfig, "export/classifiers", "", {}, **known)
    bundled = at.config(
        detect_export.ExportConfig,
        "export/bundle",
        "detect.export",
        config.detect.export,
        data=data,
        detector=trained["weak_detector"].out,
        detector_boxes=detected["weak_detector"].out / "boxes.json",
        classifiers=graph.out,
        recipe=searched.out / "recipe.yaml",
    )
    boxes = {name: made.out / "boxes.json" for name, made in generated.items()}
    boxes |= {name: made.out / "boxes.json" for name, made in detected.items()}
    scored = at.config(
        summary.SummaryConfig,
        "eval/summary",
        "summary",
        config.summary,
        data=data,
        boxes=boxes,
        probabilities=probabilities.out / "probabilities.parquet",
        fixed=tuple(rival for rival in ("centre_box", "mean_box") if rival in config.rivals),
    )
    curves = {f"classifier {i}": member.out for i, member in enumerate(members)}
    curves |= {name.replace("_", " "): detector.out for name, detector in trained.items()}
    shown = at.config(
        report.ReportConfig,
        "eval/report",
        "report",
        config.report,
        data=data,
        summary=root / "summary.json",
        recipe=generated["recipe"].out,
        recipe_yaml=searched.out / "recipe.yaml",
        detector=detected["weak_detector"].out,
        figures=figures.out,
        bundle=bundled.out,
        curves=curves,
    )

    def stage(name: str, verb: Callable[[Any], Any], settings: Any) -> Stage:
        return Stage(name, verb, settings, settings.out)

    return [
        *taken,
        *(stage(f"classify.member_{i}", train.run, member) for i, member in enumerate(members)),
        stage("classify.ensemble", ensemble.run, joined),
        stage("classify.predict", predict.run, probabilities),
        stage("classify.evaluate", evaluate.run, figures),
        stage("camgen.search", search.run, searched),
        *(stage(f"camgen.{name}", generate.run, made) for name, made in generated.items()),
        *([] if chosen is None else [chosen]),
        *(stage(f"detect.{name}", detect_train.run, made) for name, made in trained.items()),
        *(stage(f"detect.{name}.predict", detect_predict.run, made) for name, made in detected.items()),
        stage("classify.export", classify_export.run, graph),
        stage("detect.export", detect_export.run, bundled),
        stage("eval.summary", summary.run, scored),
        stage("eval.report", report.run, shown),
    ]


# What each recipe's boxes are needed for: train is taught, tune chooses cut-offs, test is scored.
_BOXED = {"recipe": ("train", "tune", "test"), "gradcam_single": ("test",), "random_map": ("test",)}
_TAUGHT = {"few_shot": "tune", "supervised_detector": "ceiling"}
_GALLERY: Section = {"gallery_images": 2000}  # the report picks its cases among the test images that have maps


@dataclass(frozen=True)
class _Settings:
    """Builds the stages' configs: folder, section of the pipeline's config, and what the pipeline decides."""

    root: Path

    def config(self, model: type[Config], folder: str, section: str, values: Section, **given: Any) -> Config:
        """A stage's settings from its section; what is `given` may not be set there."""
        given["out"] = self.root / folder
        clash = sorted(set(values) & set(given))
        if clash:
            raise ConfigError(f"{section}.{clash[0]}: is set by the pipeline; remove it")
        return validate(model, {**values, **given}, section)


def _ingest(section: Section, root: Path) -> Stage:
    from ingest.result import IngestResult
    from weakray.cli import COMMANDS

    modules = {verb: module for (stage, verb), (module, _) in COMMANDS.items() if stage == "ingest"}
    source = section.get("source")
    if source not in modules or get_type_hints(import_module(modules[source]).run)["return"] is not IngestResult:
        known = ", ".join(modules)
        raise ConfigError(f"ingest.source: expected a data set that ingest reads, such as {known}; got {source!r}")
    settings = {name: value for name, value in section.items() if name != "source"} | {"out": root / "dataset"}
    verb: Callable[[Any], StrictModel] = import_module(modules[source]).run
    model: type[StrictModel] = get_type_hints(verb)["config"]
    config: Any = validate(model, settings, "ingest")
    return _dataset_stage("ingest", verb, config, root)


@dataclass(frozen=True)
class _DatasetVerb:
    """A verb that writes a dataset folder, which is no run folder: one beside it says what it was made from."""

    verb: Callable[[Any], StrictModel]
    folder: Path

    def __call__(self, config: Any) -> Any:
        folder = open_run(self.folder, config, _ingest_inputs(config))
        if folder.finished() is None or not (config.out / "dataset.json").is_file():
            folder.finish(to_plain(self.verb(config)))
        return folder.finished()


def _dataset_stage(name: str, verb: Callable[[Any], StrictModel], config: Any, root: Path) -> Stage:
    return Stage(name, _DatasetVerb(verb, root / name), config, root / name)


def _labels_of_reports(section: Section, at: _Settings, data: Path) -> list[Stage]:
    """Reads the reports, and writes the dataset again with the labels that they give its train images.

    The reports lie where `reports.reports` says, else where the phantom writes those of `reports.language`.
    """
    from ingest import relabel
    from ingest.reports import command

    given = {"reports": data / f"reports.{section.get('language', 'fr')}.jsonl", **section}
    read = at.config(command.ReportsConfig, "reports", "reports", given, taxonomy=str(data / "taxonomy.yaml"))
    labelled = at.config(
        relabel.RelabelConfig, "labelled", "reports", {}, data=data, labels=read.out / "labels.csv", splits=("train",)
    )
    return [
        Stage("reports", command.run, read, read.out),
        _dataset_stage("relabel", relabel.run, labelled, at.root),
    ]


def _choice(section: DetectSection, at: _Settings, data: Path, boxes: Path) -> Stage:
    """Chooses how the weak detector is taught; its run folder lies beside the trainings that it compares."""
    from detect import choose

    assert section.choose is not None  # noqa: S101 - the caller has looked
    if section.weak not in ({}, DetectSection().weak):
        raise ConfigError("detect.weak: of no use beside detect.choose; make it one of detect.choose.candidates")
    config = at.config(
        choose.ChooseConfig,
        "detect/choose",
        "detect.choose",
        section.choose,
        data=data,
        boxes=boxes,
        train=section.train,
    )
    choose.settings_of(config, "detect.train", "detect.choose.candidates")
    return Stage("detect.choose", choose.run, config, choose.folder_of(config))


def _ingest_inputs(config: StrictModel) -> dict[str, str]:
    """Hashes of the files an ingest reads; of images in a folder, names and sizes: reading them all is its work."""
    from ingest.taxonomies import taxonomy_file

    inputs: dict[str, str] = {}
    for name, value in config:
        if name == "out":
            continue
        if name == "taxonomy" and value is not None:
            inputs[name] = sha256_file(taxonomy_file(str(value)))
        elif isinstance(value, Path) and value.is_dir():
            files = sorted(path for path in value.rglob("*") if path.is_file())
            inputs[name] = sha256_json([[str(path.relative_to(value)), _state(path)] for path in files])
        else:
            paths = [path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)]
            if any(path.is_file() for path in paths):
                inputs[name] = sha256_json([sha256_file(path) for path in paths if path.is_file()])
    return inputs


# Labels may lie among the images, and change without growing.
_TABLES = (".txt", ".xml", ".csv", ".json", ".yaml", ".parquet")


def _state(path: Path) -> str | int:
    return sha256_file(path) if path.suffix.lower() in _TABLES else path.stat().st_size
