"""The page that shows, for each report, which words gave which label. One file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2

from ingest.reports.lexicon import LANGUAGES
from weakray.files import write_text

_CLASSES = {1: "present", 0: "absent", -1: "uncertain", None: "silent"}
_RANK = {"present": 3, "uncertain": 2, "absent": 1, "silent": 0}
_WHY = {
    "stated": "stated",
    "anatomy": "what it is said of",
    "absent_before": "denied by what stands before",
    "absent_after": "denied by what stands after",
    "absent_large": "only a large one is denied",
    "uncertain_before": "doubted by what stands before",
    "uncertain_after": "doubted by what stands after",
    "past_before": "of the past",
    "past_after": "of the past",
    "order_before": "a question or an order",
    "family": "of the family",
    "other": "only others are denied",
}


@dataclass(frozen=True)
class Piece:
    """A stretch of a report's text.

    Attributes:
        text: the characters.
        kind: `plain`, `cue`, or what is said of the finding: `present`, `absent`, `uncertain`, `silent`.
        note: what to say about it; "" of plain text.
    """

    text: str
    kind: str = "plain"
    note: str = ""


@dataclass(frozen=True)
class ShownReport:
    """A report as the page shows it: its text in pieces, and its labels as (column, kind)."""

    report_id: str
    language: str
    pieces: tuple[Piece, ...]
    labels: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str, entry: Mapping[str, Any], row: Mapping[str, int]) -> ShownReport:
        """From a report's text, its line of evidence, and its row of labels."""
        return cls(
            report_id=entry["id"],
            language=entry["language"],
            pieces=tuple(_pieces(text, entry)),
            labels=tuple((name, _CLASSES[value]) for name, value in row.items()),
        )


def _pieces(text: str, entry: Mapping[str, Any]) -> list[Piece]:
    """Cuts the text at every start and end of evidence; where pieces of evidence overlap, findings go before cues."""
    notes: dict[tuple[int, int], dict[str, str]] = {}  # span → its kinds → what to say
    for evidence in entry["evidence"]:
        kind = _CLASSES[evidence["value"]]
        why = _WHY.get(evidence["why"], evidence["why"])
        said = f"{evidence['finding']}: {'not counted' if kind == 'silent' else kind} ({why})"
        at = notes.setdefault((evidence["span"][0], evidence["span"][1]), {})
        at[kind] = "; ".join(dict.fromkeys([*filter(None, [at.get(kind)]), said]))
        for start, end, cue in evidence["cues"]:
            notes.setdefault((start, end), {}).setdefault("cue", _WHY.get(cue, cue.replace("_", " ")))
    for start, end, word in entry["mended"]:
        for (low, high), kinds in notes.items():
            if low <= start and end <= high:
                for kind in kinds:
                    kinds[kind] += f"; {text[start:end]!r} read as {word!r}"
    cuts = sorted({0, len(text), *(edge for span in notes for edge in span)})
    pieces: list[Piece] = []
    for start, end in pairwise(cuts):
        over = [
            (kind, note) for (a, b), kinds in notes.items() if a <= start and end <= b for kind, note in kinds.items()
        ]
        if not over:
            pieces.append(Piece(text[start:end]))
            continue
        kind = max((kind for kind, _ in over), key=lambda kind: _RANK.get(kind, -1))
        pieces.append(Piece(text[start:end], kind, "; ".join(dict.fromkeys(note for _, note in over))))
    return pieces


def write_page(path: Path, shown: Sequence[ShownReport], counts: Mapping[str, Any], key: str) -> None:
    """Writes the page, atomically; same content, same bytes.

    Args:
        path: file to write.
        shown: the reports on it.
        counts: as in `counts.json`.
        key: what the ids are ids of.
    """
    folder = files("ingest.reports") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    labels = counts["labels"]
    said = {name: values for name, values in labels.items() if values["blank"] < counts["reports"]}
    most = max((sum(values.values()) - values["blank"] for values in said.values()), default=1)
    page = environment.get_template("reports.html.j2").render(
        reports=shown,
        counts=counts,
        key=key,
        said=said,
        most=max(most, 1),
        never=[name for name in labels if name not in said],
        filters=list(enumerate(said)),
        number={name: i for i, name in enumerate(said)},
        words={"present": "present", "uncertain": "uncertain", "absent": "absent"},
        languages={name: {"fr": "French", "en": "English"}[name] for name in LANGUAGES},
        agreement=counts.get("agreement"),
    )
    write_text(path, page.encode("utf-8", "backslashreplace").decode("utf-8"))
