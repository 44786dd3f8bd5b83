"""Single statements: what each rule makes of them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.reports.findings import COLUMNS, TREE, consistent
from ingest.reports.labeller import read_report
from ingest.reports.lexicon import LANGUAGES, Language, lexicon

PE, PTX, CM, ECM, LO = "Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Enlarged Cardiomediastinum", "Lung Opacity"
CO, PN, AT, SD, NO = "Consolidation", "Pneumonia", "Atelectasis", "Support Devices", "Nodule"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Pas d'épanchement ni de pneumothorax.", {PE: 0, PTX: 0}),
        ("Absence d'épanchement, de condensation ou de nodule.", {PE: 0, CO: 0, NO: 0}),
        ("Pas de pneumothorax, petit épanchement gauche.", {PTX: 0, PE: 1}),
        ("Pas d'évolution de l'épanchement.", {PE: 1}),
        ("Épanchement pleural non exclu.", {PE: -1}),
        ("On ne peut exclure : épanchement pleural.", {PE: -1}),
        ("Pas de condensation certaine.", {CO: -1}),
        ("Pas de pneumothorax définitif.", {PTX: 0}),
        ("Antécédent de pneumothorax.", {}),
        ("Pneumopathie chez le père.", {}),
        ("Fièvre, éliminer une pneumopathie.", {}),
        ("Épanchement péricardique.", {}),
        ("Emphysème sous-cutané.", {}),
        ("Le drain a été retiré.", {SD: 0}),
        ("Quasi-disparition du pneumothorax.", {PTX: 1}),
        ("Cœur et médiastin sans particularité.", {CM: 0, ECM: 0}),
        ("Poumon droit clair.", {}),
        ("Sans particularité, notamment sans épanchement.", {"No Finding": 1, PE: 0}),
        ("Opacité possible, cœur normal.", {LO: -1, CM: 0}),
    ],
)
def test_french(text: str, labels: dict[str, int]) -> None:
    assert read_report(text, "fr").labels == consistent(labels)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("No focal consolidation, pleural effusion, or pneumothorax.", {CO: 0, PE: 0, PTX: 0}),
        ("No pneumothorax, small effusion.", {PTX: 0, PE: 1}),
        ("No change in the effusion.", {PE: 1}),
        ("Possible trace effusion, but no large effusion.", {PE: -1}),
        ("No large effusion.", {PE: 0}),
        ("Edema or pneumonia could be considered.", {"Edema": -1, PN: -1}),
        ("Atelectasis versus pneumonia.", {AT: -1, PN: -1}),
        ("Opacity may represent pneumonia.", {LO: 1, PN: -1}),
        ("Cannot rule out pneumonia.", {PN: -1}),
        ("Pneumonia has been ruled out.", {PN: 0}),
        ("Rule out pneumonia.", {}),
        ("Fever, cough. ? pneumonia.", {PN: -1}),
        ("History of pneumothorax. No pneumothorax today.", {PTX: 0}),
        ("Her mother had pneumonia; lungs are clear.", {LO: 0}),
        ("Pericardial effusion.", {}),
        ("Heart size and pulmonary vascularity are normal.", {CM: 0, "Edema": 0}),
        ("The heart is partially obscured by a large effusion.", {PE: 1}),
        ("The left lung is clear.", {}),
        ("Known cardiomegaly, unchanged.", {CM: 1}),
        ("Interval removal of the chest tube.", {SD: 0}),
        ("Normal chest radiograph except for a nodule.", {NO: 1}),
    ],
)
def test_english(text: str, labels: dict[str, int]) -> None:
    assert read_report(text, "en").labels == consistent(labels)


def test_evidence_names_the_words() -> None:
    text = "Pas d'épanchment pleural.\nIndication : pneumothorax ?"
    read = read_report(text, "fr")
    first, second = read.evidence
    assert text[slice(*first.span)] == "épanchment pleural"
    assert [(text[start:end], kind) for start, end, kind in first.cues] == [("Pas d'", "absent_before")]
    assert (second.finding, second.value, second.why) == (PTX, None, "section indication")
    assert [(text[slice(*span)], word) for span, word in read.mended.items()] == [("épanchment", "epanchement")]


WORDS = st.sampled_from(
    sorted({phrase for name in LANGUAGES for phrases in lexicon(name).phrases.values() for phrase in phrases[:40]})
)
SPACES = st.sampled_from([" ", ", ", ". ", "\n", " ? ", ": ", ";", "-", "\n\n", "/", " et ", " or "])
MADE = st.lists(st.tuples(WORDS, SPACES), max_size=25).map(lambda parts: "".join(a + b for a, b in parts))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=st.one_of(st.text(max_size=200), MADE), language=st.sampled_from([*LANGUAGES, None]))
def test_any_text_gives_consistent_labels_and_no_crash(text: str, language: Language | None) -> None:
    read = read_report(text, language)
    assert set(read.labels) <= set(COLUMNS)
    assert set(read.labels.values()) <= {1, 0, -1}
    assert consistent(read.labels) == read.labels
    rank = {0: 0, -1: 1, 1: 2}
    for finding in TREE.findings:
        if finding.parent is not None and read.labels.get(finding.name):
            assert rank[read.labels[finding.parent]] >= rank[read.labels[finding.name]]
    for evidence in read.evidence:
        for start, end in (evidence.span, *((cue[0], cue[1]) for cue in evidence.cues)):
            assert 0 <= start < end <= len(text)


def test_half_characters_are_read_over() -> None:
    assert read_report("\ud800 No effusion \udfff", "en").labels == {PE: 0}


def test_an_endless_text_is_read_up_to_a_bound() -> None:
    assert read_report("No effusion. " * 20_000, "en").labels == {PE: 0}
