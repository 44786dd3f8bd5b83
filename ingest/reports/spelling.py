"""Misspelt words of the rules, mended within a bounded edit distance."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_SHORTEST = 6  # letters: shorter words have too many neighbours that mean something else
_LONG = 9  # from this length on, two mistakes are forgiven


class Speller:
    """Replaces a word by the word of a vocabulary that it is most likely meant for.

    A word of 6 to 8 letters may differ by one insertion, deletion, replacement or swap of neighbours, a longer one by
    two; the first letters must agree where two mistakes are made. Known words are never touched.

    Args:
        vocabulary: words to mend towards.
        correct: words to leave alone.
    """

    def __init__(self, vocabulary: Iterable[str], correct: Iterable[str]) -> None:
        self._known = frozenset({*vocabulary, *correct})
        self._by_length: dict[int, list[tuple[str, int]]] = {}
        for word in sorted(set(vocabulary)):
            if len(word) >= _SHORTEST - 1 and word.isalpha():
                self._by_length.setdefault(len(word), []).append((word, _letters(word)))
        self.mend = lru_cache(maxsize=100_000)(self._mend)

    def _mend(self, word: str) -> str:
        """The word that is meant: itself where it is known, short, or near none."""
        length = len(word)
        if length < _SHORTEST or word in self._known or not word.isalpha():
            return word
        most = 2 if length >= _LONG - 1 else 1
        letters, best = _letters(word), (most + 1, word)
        for other_length in range(length - most, length + most + 1):
            for other, other_letters in self._by_length.get(other_length, ()):
                if (letters ^ other_letters).bit_count() > 2 * most:
                    continue
                allowed = 2 if min(length, other_length) >= _LONG - 1 and word[0] == other[0] else 1
                distance = edit_distance(word, other, allowed)
                if distance <= allowed and (distance, other) < best:
                    best = (distance, other)
        return best[1]


def _letters(word: str) -> int:
    """Which letters a word holds, as bits: words within d edits differ in at most 2d of them."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) % 64)
    return bits


def edit_distance(one: str, other: str, most: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn one word into another.

    Optimal string alignment (Damerau 1964, each letter edited once). Anything above `most` is returned as `most` + 1.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, mate in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != mate))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == mate:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)
