from __future__ import annotations

import pytest

from ingest.reports.spelling import Speller, edit_distance


@pytest.mark.parametrize(
    ("one", "other", "most", "expected"),
    [
        ("effusion", "effusion", 2, 0),
        ("efusion", "effusion", 2, 1),
        ("effusino", "effusion", 2, 1),  # neighbours swapped: one mistake
        ("efussion", "effusion", 2, 2),
        ("pneumotorax", "pneumothorax", 2, 1),
        ("masse", "passe", 2, 1),
        ("kitten", "sitting", 3, 3),
        ("kitten", "sitting", 2, 3),  # bounded: anything above is most + 1
        ("", "ab", 1, 2),
        ("ca", "abc", 3, 3),  # each letter edited once, as Damerau's optimal alignment has it
    ],
)
def test_edit_distance(one: str, other: str, most: int, expected: int) -> None:
    assert edit_distance(one, other, most) == expected
    assert edit_distance(other, one, most) == expected


def test_long_words_may_hold_two_mistakes_and_short_ones_one() -> None:
    speller = Speller({"pneumothorax", "effusion", "fracture", "masse"}, {"facteur"})
    assert speller.mend("pnuemothrax") == "pneumothorax"
    assert speller.mend("efussion") == "effusion"
    assert speller.mend("facture") == "fracture"
    assert speller.mend("facteur") == "facteur"  # a word of its own
    assert speller.mend("passe") == "passe"  # too short to be sure
    assert speller.mend("effusion") == "effusion"
    assert speller.mend("xyzxyzxyz") == "xyzxyzxyz"
    assert speller.mend("factur3") == "factur3"


def test_the_nearest_word_wins_and_the_alphabet_breaks_ties() -> None:
    speller = Speller({"opacity", "opacite"}, ())
    assert speller.mend("opacit") == "opacite"
    assert speller.mend("opacty") == "opacity"
