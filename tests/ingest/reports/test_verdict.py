from __future__ import annotations

import pytest

from ingest.reports.clauses import Mention
from ingest.reports.sections import find_sections
from ingest.reports.verdict import labels_of
from ingest.reports.words import reader

Said = tuple[int | None, str | None]


def mentions(*said: Said) -> list[Mention]:
    return [Mention("Pleural Effusion", value, i, i + 1, side) for i, (value, side) in enumerate(said)]


@pytest.mark.parametrize(
    ("body", "conclusion", "label"),
    [
        ([(0, "left"), (1, "right")], [], 1),  # two sides do not contradict one another
        ([(1, "right"), (0, "left")], [], 1),
        ([(1, None), (0, None)], [], 0),  # the later stands
        ([(0, None), (1, None)], [], 1),
        ([(1, "left"), (0, None)], [], 1),  # an absence of no side undoes no presence on a side
        ([(-1, "left"), (0, None)], [], 0),
        ([(1, None), (-1, None)], [], 1),  # a doubt undoes no presence
        ([(-1, None)], [(0, None)], 0),  # the conclusion stands
        ([(1, "left")], [(-1, "left")], -1),
        ([(1, "left")], [(0, "right")], 1),
        ([(1, None)], [(None, None)], 1),
        ([(None, None)], [], None),
    ],
)
def test_two_statements(body: list[Said], conclusion: list[Said], label: int | None) -> None:
    assert labels_of(mentions(*body), mentions(*conclusion)).get("Pleural Effusion") == label


def test_that_there_is_no_large_one_undoes_nothing() -> None:
    slight = Mention("Pleural Effusion", 0, 5, 6, slight=True)
    assert labels_of([*mentions((-1, None)), slight], []) == {"Pleural Effusion": -1}
    assert labels_of([slight], []) == {"Pleural Effusion": 0}
    assert labels_of(mentions((1, None)), [slight]) == {"Pleural Effusion": 1}


def test_no_finding_gives_way_to_what_is_found_but_devices() -> None:
    normal = Mention("No Finding", 1, 0, 1)
    assert labels_of([normal, Mention("Support Devices", 1, 1, 2)], []) == {"Support Devices": 1, "No Finding": 1}
    assert labels_of([normal, Mention("Nodule", -1, 1, 2)], []) == {
        "Lung Opacity": -1,
        "Lung Lesion": -1,
        "Nodule": -1,
    }


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("No effusion.", ["findings"]),
        ("INDICATION: cough.\nFINDINGS: clear.\nIMPRESSION: normal.", ["indication", "findings", "conclusion"]),
        ("Indication: cough, fever\nand dyspnea\nFINDINGS:\nclear", ["indication", "findings"]),
        ("Indication: cough.\nThe lungs are clear.", ["indication", "findings"]),  # no title opens the findings
        ("History: cough\n\nThe lungs are clear.", ["past", "findings"]),
        ("**Findings:** clear", ["findings", "findings"]),
        ("The conclusion is open", ["findings"]),  # no title
    ],
)
def test_sections(text: str, kinds: list[str]) -> None:
    assert [section.kind for section in find_sections(reader("en").read(text))] == kinds
