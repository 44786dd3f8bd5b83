from __future__ import annotations

from pathlib import Path

import pytest

from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy

TREE = Taxonomy(
    (
        Finding("Pneumonia", "Consolidation"),
        Finding("Consolidation", "Lung Opacity"),
        Finding("Lung Opacity"),
        Finding("Pleural Effusion", None, ("Effusion",)),
    ),
    ignored=("No Finding",),
)


def test_paths_run_from_the_root() -> None:
    assert TREE.path(0) == [2, 1, 0]
    assert TREE.path(3) == [3]
    assert TREE.parents == [1, 2, None, None]
    assert TREE.top_down == [2, 3, 1, 0]


def test_names_and_synonyms_resolve_without_case_and_underscores() -> None:
    assert TREE.resolve("effusion") == TREE.resolve("Pleural_Effusion") == 3
    assert TREE.resolve("No Finding") is None
    with pytest.raises(DataError, match="unknown finding 'Hernia'; expected one of Pneumonia, Consolidation"):
        TREE.resolve("Hernia")


def test_yaml_round_trip(tmp_path: Path) -> None:
    TREE.save(tmp_path / "taxonomy.yaml")
    assert Taxonomy.load(tmp_path / "taxonomy.yaml") == TREE


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ((Finding("A"), Finding("a")), "the name 'a' stands for two findings"),
        ((Finding("A", None, ("B",)), Finding("B")), "the name 'B' stands for two findings"),
        ((Finding("A", "Z"),), "'A' has the unknown ancestor 'Z'"),
        ((Finding("A", "B"), Finding("B", "A")), "'A' is its own ancestor"),
    ],
)
def test_refuses_trees_that_are_none(findings: tuple[Finding, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy(findings)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"findings": [{"name": "A", "color": "red"}]}, "unknown keys"),
        ({"findings": []}, "at least one finding"),
        ({"findings": [{"name": "A", "synonyms": "B"}]}, "synonyms 'B': expected a list"),
        ({"findings": [{"name": "A", "synonyms": {"nih": "B"}}]}, "expected a list"),
        ({}, "expected `findings:`"),
        (None, "expected `findings:`"),
    ],
)
def test_refuses_other_yaml(value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy.from_dict(value)


def test_findings_are_shared_by_name_or_synonym() -> None:
    ours = Taxonomy((Finding("Effusion", synonyms=("Pleural Effusion",)), Finding("Mass"), Finding("Edema")))
    theirs = Taxonomy((Finding("edema"), Finding("Pleural_Effusion"), Finding("Nodule", synonyms=("Lump",))))
    assert ours.shared_with(theirs) == {0: 1, 2: 0}
    assert theirs.shared_with(ours) == {0: 2, 1: 0}
    assert ours.shared_with(Taxonomy.flat(["Fracture"])) == {}
    # An equal name goes before a synonym.
    assert Taxonomy.flat(["Lump"]).shared_with(Taxonomy((Finding("Lump"), Finding("Mass", synonyms=("Bump",))))) == {
        0: 0
    }


def test_an_equal_name_takes_a_finding_from_those_who_match_by_synonym() -> None:
    ours = Taxonomy((Finding("Pleural Effusion"), Finding("Effusion")))
    theirs = Taxonomy((Finding("Effusion", synonyms=("Pleural Effusion",)),))
    assert ours.shared_with(theirs) == {1: 0}
    assert theirs.shared_with(ours) == {0: 1}


def test_an_ambiguous_synonym_is_refused() -> None:
    wide = Taxonomy((Finding("Lesion", synonyms=("Mass", "Nodule")),))
    narrow = Taxonomy.flat(["Mass", "Nodule"])
    text = "'Lesion' of one matches both 'Mass' and 'Nodule' of the other; remove the synonym that is wrong"
    for one, two in ((wide, narrow), (narrow, wide)):
        with pytest.raises(DataError, match=text):
            one.shared_with(two)


def test_a_synonym_may_hold_in_one_data_set_alone() -> None:
    tree = Taxonomy(
        (
            Finding("Opacity", None, (), (("nih", ("Infiltration",)),)),
            Finding("Infiltrates", None, ("Infiltrat",), (("padchest", ("Infiltration",)),)),
        )
    )
    assert tree.sources == ["nih", "padchest"]
    assert tree.spoken_in("nih").resolve("infiltration") == 0
    assert tree.spoken_in("padchest").resolve("infiltration") == 1
    with pytest.raises(DataError, match="unknown finding 'infiltration'"):
        tree.resolve("infiltration")
    assert Taxonomy.from_dict(tree.to_dict()) == tree
    with pytest.raises(DataError, match="the name 'Opacity' stands for two findings in nih; keep it at one"):
        Taxonomy((Finding("Opacity"), Finding("Mass", None, (), (("nih", ("Opacity",)),))))


def test_names_are_compared_without_accents() -> None:
    tree = Taxonomy((Finding("Œdème"), Finding("Épanchement pleural")))
    assert (tree.resolve("oedeme"), tree.resolve("EPANCHEMENT_pleural")) == (0, 1)
