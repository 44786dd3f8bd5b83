"""The rules of one language, read from its YAML file: phrases, and what each stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from ingest.reports.findings import COLUMNS
from weakray.errors import DataError

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = ("fr", "en")

_STANCES = {"present": 1, "uncertain": -1, "absent": 0}
_INNERMOST = re.compile(r"\(([^()]*)\)")
_SECTIONS = {"indication", "past", "technique", "comparison", "recommendation", "findings", "conclusion"}
_CUES = {
    *("absent_before", "absent_after", "uncertain_before", "uncertain_after", "uncertain_either", "versus"),
    *("absent_large", "order_before", "past_before", "past_after", "family", "now", "neutral", "certainty", "other"),
    *("break", "and", "or", "with", "opener", "list"),
}


@dataclass(frozen=True, order=True)
class Sense:
    """What a phrase stands for.

    Attributes:
        kind: `finding`, `other` (holds a finding's words but is none), `anatomy`, `state`, `cue`, `side`, `title`.
        name: the finding; the pair's name of an anatomy or state; the kind of cue, side or section.
        value: 1, 0 or -1 of a finding or state.
    """

    kind: str
    name: str
    value: int = 1


@dataclass(frozen=True)
class Lexicon:
    """Everything a language's file says.

    Attributes:
        language: its name.
        phrases: sense → phrases, alternatives written out.
        pair_finding: name of a pair of anatomy and state → the finding it speaks of.
        function_words: small words that tell the language.
        correct: words that are spelt as they should be, although they stand near a word of the phrases.
    """

    language: Language
    phrases: dict[Sense, tuple[str, ...]]
    pair_finding: dict[str, str]
    function_words: frozenset[str]
    correct: frozenset[str]


@cache
def lexicon(language: Language) -> Lexicon:
    """The rules shipped for a language.

    Raises:
        DataError: if the file names an unknown finding, cue or section, or holds something else than text.
    """
    name = f"{language}.yaml"
    return parse_lexicon(language, yaml.safe_load((files("ingest.reports") / name).read_text(encoding="utf-8")), name)


def parse_lexicon(language: Language, content: Any, origin: str) -> Lexicon:
    """Checks the content of a rules file and writes its alternatives out.

    Raises:
        DataError: as `lexicon`.
    """
    _known(content["findings"], set(COLUMNS), f"{origin}: findings")
    _known(content["cues"], _CUES, f"{origin}: cues")
    _known(content["sections"], _SECTIONS, f"{origin}: sections")
    found: dict[Sense, list[str]] = {}

    def add(sense: Sense, templates: Any, where: str) -> None:
        if not isinstance(templates, list) or not all(isinstance(text, str) for text in templates):
            raise DataError(f"{origin}: {where}: expected a list of texts, got {templates!r}; quote yes, no and on")
        found.setdefault(sense, []).extend(phrase for text in templates for phrase in expand(text))

    for finding, stances in content["findings"].items():
        for stance, templates in stances.items():
            add(Sense("finding", finding, _STANCES[stance]), templates, finding)
    add(Sense("other", ""), content["not_findings"], "not_findings")
    for pair, entry in content["pairs"].items():
        add(Sense("anatomy", pair), entry["anatomy"], pair)
        for stance, value in _STANCES.items():
            add(Sense("state", pair, value), entry.get(stance, []), pair)
        if entry["normal"]:
            add(Sense("state", pair, 1 if pair == "film" else 0), content["normal"], "normal")
    for kind, key in (("cue", "cues"), ("side", "sides"), ("title", "sections")):
        for name, templates in content[key].items():
            add(Sense(kind, name), templates, name)
    return Lexicon(
        language=language,
        phrases={sense: tuple(dict.fromkeys(phrases)) for sense, phrases in found.items()},
        pair_finding={pair: entry["finding"] for pair, entry in content["pairs"].items()},
        function_words=frozenset(content["function_words"]),
        correct=frozenset(content["correct"]),
    )


def _known(given: dict[str, Any], known: set[str], where: str) -> None:
    odd = sorted(set(given) - known)
    if odd:
        raise DataError(f"{where}: unknown {odd[0]!r}; expected {', '.join(sorted(known))}")


def expand(template: str) -> Iterator[str]:
    """All phrases of a template: `(a|b|)` are alternatives, the empty one too; `a~b` is `ab` or `a b`.

    Example:
        >>> sorted(expand("costo~phrenic (angle|)"))
        ['costo phrenic', 'costo phrenic angle', 'costophrenic', 'costophrenic angle']
    """
    if "~" in template:
        yield from expand(template.replace("~", "(| )", 1))
        return
    inner = _INNERMOST.search(template)
    if inner is None:
        yield " ".join(template.split()).replace("' ", "'")  # as texts spell it: d'un, not d' un
        return
    for choice in inner.group(1).split("|"):
        yield from expand(template[: inner.start()] + choice + template[inner.end() :])
