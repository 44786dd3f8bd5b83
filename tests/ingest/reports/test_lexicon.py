from __future__ import annotations

from typing import Any

import pytest

from ingest.reports.findings import COLUMNS
from ingest.reports.lexicon import LANGUAGES, Language, Sense, expand, lexicon, parse_lexicon
from weakray.errors import DataError


def content(**changes: Any) -> dict[str, Any]:
    return {
        "function_words": ["the"],
        "sections": {"findings": ["findings"]},
        "findings": {"Nodule": {"present": ["nodule"], "uncertain": ["nodular shadow"]}},
        "not_findings": [],
        "pairs": {"heart": {"finding": "Cardiomegaly", "anatomy": ["heart"], "present": ["big"], "normal": True}},
        "normal": ["normal"],
        "cues": {"absent_before": ["no"]},
        "sides": {"left": ["left"]},
        "correct": [],
        **changes,
    }


def test_templates_are_written_out() -> None:
    assert sorted(expand("(a|b|) c")) == ["a c", "b c", "c"]
    assert sorted(expand("costo~phrenic (angle|)")) == [
        "costo phrenic",
        "costo phrenic angle",
        "costophrenic",
        "costophrenic angle",
    ]
    assert list(expand("pas (d'|de) (image|)")) == ["pas d'image", "pas d'", "pas de image", "pas de"]
    assert list(expand("a (b (c|d)|e)")) == ["a b c", "a e", "a b d", "a e"]


def test_senses_of_findings_states_and_cues() -> None:
    phrases = parse_lexicon("en", content(), "x.yaml").phrases
    assert phrases[Sense("finding", "Nodule", -1)] == ("nodular shadow",)
    assert phrases[Sense("state", "heart", 1)] == ("big",)
    assert phrases[Sense("state", "heart", 0)] == ("normal",)
    assert phrases[Sense("cue", "absent_before")] == ("no",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"findings": {"Broken Heart": {}}}, "x.yaml: findings: unknown 'Broken Heart'; expected Atelectasis, "),
        ({"cues": {"nay": ["no"]}}, "x.yaml: cues: unknown 'nay'; expected absent_after, "),
        ({"sections": {"end": ["end"]}}, "x.yaml: sections: unknown 'end'; expected comparison, "),
        ({"cues": {"or": [True]}}, "x.yaml: or: expected a list of texts, got \\[True\\]; quote yes, no and on"),
    ],
)
def test_what_rules_may_not_say(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_lexicon("en", content(**changes), "x.yaml")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_has_words_in_every_language(language: Language) -> None:
    named = {sense.name for sense, phrases in lexicon(language).phrases.items() if sense.kind == "finding" and phrases}
    assert named == set(COLUMNS)
