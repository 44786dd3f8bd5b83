"""Names → class ids: synonyms, refusals, a choice of findings, the class tree."""

from __future__ import annotations

from math import isnan

import pytest

from ingest.findings import Vocabulary, label_row, lift, resolve_all, stronger
from ingest.taxonomies import load_taxonomy
from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy

TREE = Taxonomy(
    (
        Finding("Opacity"),
        Finding("Lesion", "Opacity"),
        Finding("Nodule", "Lesion", ("Knot",)),
        Finding("Effusion"),
    ),
    ignored=("No Finding",),
)


def test_nih_spellings_of_both_tables_meet() -> None:
    taxonomy = load_taxonomy("nih")
    assert len(taxonomy) == 14
    assert taxonomy.resolve("Effusion") == taxonomy.resolve("Pleural_Effusion") == taxonomy.index["Pleural Effusion"]
    assert taxonomy.resolve("Infiltrate") == taxonomy.resolve("Infiltration")
    assert taxonomy.resolve("Pleural_Thickening") == taxonomy.index["Pleural Thickening"]
    assert taxonomy.resolve("No Finding") is None


def test_all_unknown_findings_are_named_at_once() -> None:
    with pytest.raises(
        DataError, match=r"^set\.csv: unknown findings 'Gout', 'Ulcer'; known are Opacity, Lesion.*taxon"
    ):
        resolve_all(["Ulcer", "Knot", "Gout", "Ulcer"], TREE, "set.csv")


def test_chosen_findings_keep_order_and_hang_below_their_nearest_chosen_ancestor() -> None:
    vocabulary = Vocabulary.of(TREE, ["knot", "Opacity"])
    assert vocabulary.chosen.names == ["Opacity", "Nodule"]
    assert vocabulary.chosen.parents == [None, 0]
    assert vocabulary.ids(["Knot", "Effusion", "No Finding"], "") == {"Knot": 1, "Effusion": None, "No Finding": None}
    assert vocabulary.understood(["Nodule", "Gout", "Effusion"]) == {1}
    with pytest.raises(DataError, match=r"findings: unknown findings 'Gout'"):
        Vocabulary.of(TREE, ["Gout"])
    with pytest.raises(DataError, match=r"findings: expected at least one of Opacity"):
        Vocabulary.of(TREE, [])


@pytest.mark.parametrize(
    ("values", "lifted"),
    [
        ({2: 1.0}, {2: 1.0, 1: 1.0, 0: 1.0}),
        ({2: -1.0, 0: 0.0}, {2: -1.0, 1: -1.0, 0: -1.0}),
        ({2: -1.0, 0: 1.0}, {2: -1.0, 1: -1.0, 0: 1.0}),
        ({2: 0.0}, {2: 0.0}),  # an absent child says nothing of its parent
        ({1: 1.0, 2: 0.0, 3: 1.0}, {1: 1.0, 2: 0.0, 3: 1.0, 0: 1.0}),
    ],
)
def test_an_ancestor_is_at_least_its_child(values: dict[int, float], lifted: dict[int, float]) -> None:
    assert lift(values, TREE) == lifted


def test_label_rows_and_the_stronger_label() -> None:
    row = label_row({1: -1.0, 2: 0.0}, 3)
    assert row[1:] == [-1.0, 0.0]
    assert isnan(row[0])
    assert (stronger(0.0, -1.0), stronger(-1.0, 1.0), stronger(0.0, 0.0)) == (-1.0, 1.0, 0.0)
