"""The command line: one table of commands. It parses, calls and prints; all else lives in the verbs.

A verb is a module with `run(config: XConfig) -> XResult`; its config class comes from that annotation, its flags
and their help from the class's fields.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from weakray import __version__
from weakray.config import StrictModel, flag_fields, load, to_plain
from weakray.errors import WeakrayError
from weakray.stack import silence

# stage, verb → module, one line of help. A stage with a single verb has the empty verb.
COMMANDS: dict[tuple[str, str], tuple[str, str]] = {
    ("ingest", "phantom"): ("ingest.phantom.command", "simulate chest films: true boxes, noisy labels"),
    ("ingest", "nih"): ("ingest.nih", "read NIH ChestX-ray14 from its own CSV files"),
    ("ingest", "chexpert"): ("ingest.chexpert", "read CheXpert, with CheXlocalize's contours or boxes of your own"),
    ("ingest", "mimic"): ("ingest.mimic", "read MIMIC-CXR-JPG, with boxes of your own"),
    ("ingest", "vindr"): ("ingest.vindr", "read VinDr-CXR; its readers' boxes become one, their agreement is reported"),
    ("ingest", "padchest"): ("ingest.padchest", "read PadChest, with boxes of your own"),
    ("ingest", "rsna"): ("ingest.rsna", "read the RSNA pneumonia detection challenge"),
    ("ingest", "coco"): ("ingest.coco", "read a COCO detection set; its train boxes become image-level labels"),
    ("ingest", "dicom"): (
        "ingest.dicom",
        "read a folder of DICOM files, labels from a table; leaves names behind",
    ),
    ("ingest", "yolo"): ("ingest.yolo", "read a YOLO detection set from its data.yaml"),
    ("ingest", "voc"): ("ingest.voc", "read a Pascal VOC detection set"),
    ("ingest", "csv"): ("ingest.plain_csv", "read a table of your own: say what its columns are; boxes may be few"),
    ("ingest", "report"): ("ingest.report.command", "the HTML page of a dataset folder: look at it before training"),
    ("ingest", "examples"): ("ingest.examples", "a few films with their true boxes, for the page of `weakray serve`"),
    ("ingest", "reports"): ("ingest.reports.command", "read labels out of French or English radiology reports"),
    ("ingest", "relabel"): ("ingest.relabel", "a dataset with other labels, such as those of its reports"),
    ("classify", "labels"): (
        "classify.label_statistics",
        "count a dataset's labels, and warn of what troubles training",
    ),
    ("classify", "train"): ("classify.train", "train one multi-label classifier"),
    ("classify", "sweep"): ("classify.sweep.command", "try settings of train, and table which do best on val"),
    ("classify", "ensemble"): ("classify.ensemble", "calibrate trained classifiers on val and combine them"),
    ("classify", "calibrate"): (
        "classify.calibrate",
        "reliability before and after each calibration, cross-fitted on val",
    ),
    ("classify", "evaluate"): (
        "classify.evaluate",
        "figures, intervals and plots of an ensemble, its members and all rules",
    ),
    ("classify", "predict"): ("classify.predict", "probabilities of an ensemble for every image of a dataset"),
    ("classify", "preview"): ("classify.preview", "a contact sheet of what a model sees after each step, with ranges"),
    ("classify", "export"): ("classify.export", "an ensemble as one ONNX file with thresholds; parity checked"),
    ("camgen", "search"): ("camgen.search", "fit the recipe that turns maps into boxes, on tune images"),
    ("camgen", "generate"): ("camgen.generate", "pseudo-boxes of a dataset's images from a recipe"),
    ("camgen", "explain"): ("camgen.explain", "one picture of an image: film, maps, boxes, probabilities"),
    ("eval", "boxes"): ("eval.boxes", "average precision of a boxes file on annotated images, with intervals"),
    ("eval", "localisation"): (
        "eval.localisation",
        "pointing game, localisation accuracy, FROC: diagnostics of boxes and maps",
    ),
    ("eval", "summary"): ("eval.summary", "score every source of boxes on test, on the same bootstrap draws"),
    ("eval", "report"): ("eval.report.command", "the HTML page of a finished run"),
    ("detect", "train"): ("detect.train", "train a detector on pseudo-boxes, tune boxes or true boxes"),
    ("detect", "choose"): ("detect.choose", "choose how to teach the detector, by cross-validation on tune"),
    ("detect", "evaluate"): ("detect.evaluate", "a detector's average precision on tune or test, with intervals"),
    ("detect", "predict"): ("detect.predict", "a detector's boxes for a dataset or a folder of films"),
    ("detect", "benchmark"): ("detect.benchmark", "latency, throughput and memory of detectors and their exports"),
    ("detect", "export"): ("detect.export", "write the bundle: detector, classifiers, recipe, hashes; parity checked"),
    ("serve", ""): ("serve.command", "a bundle behind HTTP, with a page: weakray serve BUNDLE"),
    ("report", ""): ("serve.report_command", "what a bundle finds on a DICOM film, as DICOM: weakray report BUNDLE"),
    ("run", ""): ("weakray.pipeline", "run the stages of a pipeline config in order, skipping what is done"),
    ("demo", ""): ("weakray.demo", "run configs/demo.yaml: made data, no network, CPU"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0 when it ended well, 2 with one line on stderr for an error that the user can mend.

    130, as shells have it, after Ctrl-C, which is no error to show a traceback of.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    silence()
    try:
        return _dispatch(words)
    except WeakrayError as error:
        print(f"weakray: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _dispatch(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"weakray {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    stage = words[0]
    verbs = [verb for name, verb in COMMANDS if name == stage]
    if not verbs:
        raise _usage(f"unknown command {stage!r}; expected one of: {', '.join(sorted({s for s, _ in COMMANDS}))}")
    if verbs == [""]:
        verb, rest = "", words[1:]
    elif len(words) > 1 and words[1] in verbs:
        verb, rest = words[1], words[2:]
    elif len(words) > 1 and words[1] not in ("--help", "-h"):
        raise _usage(f"unknown verb {words[1]!r}; expected: weakray {stage} {' | '.join(verbs)}")
    else:
        print(overview(stage))
        return 0
    module, help_line = COMMANDS[stage, verb]
    call: Callable[[Any], Any] = import_module(module).run
    config_class: type[StrictModel] = get_type_hints(call)["config"]
    config = load(config_class, *_parse(f"weakray {stage} {verb}".strip(), help_line, config_class, rest))
    result = call(config)
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0":  # of several processes, the first
        _show(result)
    return 0


def overview(stage: str | None = None) -> str:
    """The table of commands as text."""
    rows = [(f"weakray {s} {v}".strip(), line) for (s, v), (_, line) in COMMANDS.items() if stage in (None, s)]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {line}" for name, line in rows]
    return "\n".join(["usage: weakray STAGE VERB [CONFIG.yaml] [--setting VALUE ...]", "", *lines])


def _parse(
    name: str, help_line: str, config_class: type[StrictModel], words: list[str]
) -> tuple[Path | None, dict[str, str]]:
    parser = _Parser(prog=name, description=help_line, allow_abbrev=False)
    folder = getattr(config_class, "positional_folder", None)  # the setting that the first word may stand for
    told = "YAML file of settings; flags go over it" + (f"; a folder is the {folder}" if folder else "")
    parser.add_argument("config", nargs="?", type=Path, help=told)
    fields = flag_fields(config_class)
    for dotted, info in sorted(
        fields.items(), key=lambda field: not field[1].is_required()
    ):  # what must be given first
        default = "required" if info.is_required() else f"default: {info.get_default(call_default_factory=True)}"
        text = f"{info.description}; {default}" if info.description else default
        flag = "--" + dotted.replace("_", "-")
        parser.add_argument(flag, dest=dotted, metavar="VALUE", help=text.replace("%", "%%"))
    words, inner = _into_sections(words, {name for name, info in fields.items() if get_origin(info.annotation) is dict})
    given = vars(parser.parse_args(words))
    path, flags = given.pop("config"), {dotted: text for dotted, text in given.items() if text is not None}
    if folder is not None and path is not None and path.is_dir():
        path, flags = None, {folder: str(path)} | flags
    return path, flags | inner


def _into_sections(words: Sequence[str], sections: set[str]) -> tuple[list[str], dict[str, str]]:
    """Splits off the flags that reach into a free section, such as `--ingest.seed 11`: other words, path → text."""
    left, inner, coming = list[str](), dict[str, str](), iter(words)
    for word in coming:
        flag, _, text = word.partition("=")
        dotted = flag[2:].replace("-", "_")
        if flag.startswith("--") and any(dotted.startswith(f"{section}.") for section in sections):
            value = text if "=" in word else next(coming, None)
            if value is None:
                raise _usage(f"{flag}: expected a value, found none")
            inner[dotted] = value
        else:
            left.append(word)
    return left, inner


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise _usage(f"{message}; see {self.prog} --help")


def _usage(message: str) -> WeakrayError:
    return WeakrayError(message)


def _show(result: Any) -> None:
    values = to_plain(result) if isinstance(result, StrictModel) else {"result": result}
    for name, value in values.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
