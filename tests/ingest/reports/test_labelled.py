"""The labelled texts: as they were committed before the first rule, and of the kinds that were asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ingest.reports.findings import consistent
from ingest.reports.labeller import read_report
from ingest.reports.lexicon import LANGUAGES, Language
from ingest.reports.scores import Agreement, agreement
from ingest.reports.words import language_of
from weakray.files import sha256_file

FOLDER = Path(__file__).parent / "labelled"
HELD_OUT_SHA256 = {
    "fr": "50666433c47a6f0a6086c1aa0c006fab70bfac025115edc9669ecb5eb55fe22d",
    "en": "86e036205a63d2178cf2573977e6e94e4da9de13ea1d85fe8b591d739757979f",
}
QUOTAS = {
    "plain": 40,
    "negation": 30,
    "conjunction": 25,
    "uncertainty": 30,
    "history": 15,
    "comparison": 25,
    "section": 20,
    "family": 10,
    "misspelling": 20,
    "double": 15,
    "facts11": 20,
    "nothing": 15,
    "scope": 25,
    "report": 10,
}


@pytest.mark.parametrize("language", ["fr", "en"])
def test_the_held_out_half_is_the_one_written_before_the_rules(language: str) -> None:
    assert sha256_file(FOLDER / f"{language}.held_out.jsonl") == HELD_OUT_SHA256[language]


@pytest.mark.parametrize("language", ["fr", "en"])
def test_quotas_of_both_halves_together(language: str) -> None:
    lines = [
        json.loads(line)
        for half in ("development", "held_out")
        for line in (FOLDER / f"{language}.{half}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kinds = Counter(line["phenomenon"] for line in lines)
    assert len({line["text"] for line in lines}) == len(lines) >= 300
    assert set(kinds) == set(QUOTAS)
    assert {kind: kinds[kind] for kind in QUOTAS if kinds[kind] < QUOTAS[kind]} == {}
    assert {value for line in lines for value in line["labels"].values()} == {0, 1, -1}


def scored(language: Language, half: str, phenomenon: str | None = None) -> Agreement:
    lines = (FOLDER / f"{language}.{half}.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if phenomenon in (None, entry["phenomenon"])]
    given = [consistent(entry["labels"]) for entry in entries]
    return agreement(given, [read_report(entry["text"], language).labels for entry in entries])


@pytest.mark.parametrize("language", LANGUAGES)
def test_macro_f1_of_the_held_out_half(language: Language) -> None:
    score = scored(language, "held_out")
    assert score.macro_f1 >= 0.93, f"{language}: macro F1 {score.macro_f1:.3f}"
    assert min(score.value_f1.values()) >= 0.9, score.value_f1


@pytest.mark.parametrize("half", ["development", "held_out"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_patterns_of_the_source_hospital(language: Language, half: str) -> None:
    assert scored(language, half, "facts11").macro_f1 >= 0.93


def test_the_language_is_told_by_the_text() -> None:
    texts = [
        (language, json.loads(line)["text"])
        for language in LANGUAGES
        for line in (FOLDER / f"{language}.development.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    wrong = [text for language, text in texts if language_of(text) != language]
    assert len(wrong) / len(texts) <= 0.02, wrong
