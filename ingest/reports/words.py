"""From text to tokens and the phrases found among them: edsnlp's tokenizer, normalizer, sentences and matcher."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ingest.reports.lexicon import LANGUAGES, Language, Lexicon, Sense, lexicon
from ingest.reports.spelling import Speller

_YEAR = re.compile(r"(19|20)\d\d")
_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ß": "ss"})


@dataclass(frozen=True)
class Hit:
    """A phrase of the rules in a text: tokens `[start, end)`, and all that it stands for."""

    start: int
    end: int
    senses: tuple[Sense, ...]


@dataclass(frozen=True)
class Tokens:
    r"""A text cut up.

    Attributes:
        text: as given.
        words: normalized words, one a token; line ends are `\n`.
        spans: characters `[start, end)` of each token.
        sentences: tokens `[start, end)` of each sentence.
        hits: every phrase found, overlapping ones too.
        mended: token → what it was read as, where it was misspelt.
    """

    text: str
    words: list[str]
    spans: list[tuple[int, int]]
    sentences: list[tuple[int, int]]
    hits: list[Hit]
    mended: dict[int, str]


class Reader:
    """Cuts texts of one language up, and finds the phrases of its rules. Building one takes seconds; keep it."""

    def __init__(self, rules: Lexicon) -> None:
        import edsnlp
        from edsnlp.matchers.phrase import EDSPhraseMatcher

        self.language = rules.language
        self._nlp: Any = edsnlp.blank("eds")
        self._nlp.add_pipe("eds.normalizer", config={"pollution": False})
        self._nlp.add_pipe("eds.sentences", config={"use_bullet_start": True, "bullet_starters": ["-", "•", "*"]})
        self._matcher: Any = EDSPhraseMatcher(self._nlp.vocab, attr="NORM", ignore_space_tokens=True)
        self._stems: dict[str, str] = {}
        self._senses: dict[int, Sense] = {}
        self._speller: Speller | None = None
        vocabulary: set[str] = set()
        for number, (sense, phrases) in enumerate(rules.phrases.items()):
            docs = [self._doc(phrase)[0] for phrase in phrases]
            vocabulary |= {token.norm_ for doc in docs for token in doc}
            self._matcher.add(str(number), docs)
            self._senses[self._nlp.vocab.strings[str(number)]] = sense
        plain = {stem(_plain(word), self.language) for word in rules.correct | rules.function_words}
        self._speller = Speller(vocabulary, plain)

    def read(self, text: str) -> Tokens:
        """Tokens, sentences and phrases of a text."""
        doc, mended = self._doc(text)
        found: dict[tuple[int, int], list[Sense]] = {}
        for key, start, end in self._matcher(doc):
            found.setdefault((start, end), []).append(self._senses[key])
        hits = [Hit(start, end, tuple(sorted(set(senses)))) for (start, end), senses in sorted(found.items())]
        starts = [i for i, token in enumerate(doc) if i == 0 or token.is_sent_start]
        return Tokens(
            text=text,
            words=["\n" if "\n" in token.text or "\r" in token.text else token.norm_ for token in doc],
            spans=[(token.idx, token.idx + len(token)) for token in doc],
            sentences=list(zip(starts, [*starts[1:], *([len(doc)] if starts else [])], strict=True)),
            hits=hits,
            mended=mended,
        )

    def _doc(self, text: str) -> tuple[Any, dict[int, str]]:
        """The text as tokens whose NORM is what rules compare, and the tokens that were mended."""
        doc = self._nlp(text)
        mended: dict[int, str] = {}
        for i, token in enumerate(doc):
            word = token.norm_
            known = self._stems.get(word)
            if known is None:
                known = stem(_plain(word), self.language)
                if len(self._stems) < 200_000:  # texts of any kind may come
                    self._stems[word] = known
            if self._speller is not None:
                right = self._speller.mend(known)
                if right != known:
                    mended[i] = known = right
            token.norm_ = known
            if word in ("-", "‐", "‑") and _joins(doc, i):
                token.tag_ = "SPACE"  # costo-phrenic reads as costo phrenic
        return doc, mended


def _joins(doc: Any, i: int) -> bool:
    """Whether a hyphen stands inside a word."""
    return 0 < i < len(doc) - 1 and not doc[i - 1].whitespace_ and not doc[i].whitespace_ and doc[i - 1].is_alpha


def _plain(word: str) -> str:
    return "YEAR" if _YEAR.fullmatch(word) else word.translate(_LIGATURES)


def stem(word: str, language: Language) -> str:
    """A word less its plural, and in French less the ending of feminine participles."""
    if len(word) <= 4 or not word.isalpha():
        return word
    if language == "fr":
        if word.endswith("s") and not word.endswith("ss"):
            word = word[:-1]
        return word[:-1] if word.endswith("ee") else word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@cache
def reader(language: Language) -> Reader:
    """The reader of a language, built once a process."""
    return Reader(lexicon(language))


def language_of(text: str) -> Language:
    """French or English, by small words, which count double, and by the words of the rules; on a tie accents tell."""
    words = set(_small_words(text.casefold()))
    counts = {name: 2 * len(words & lexicon(name).function_words) + len(words & _terms(name)) for name in LANGUAGES}
    if counts["fr"] == counts["en"]:
        return "fr" if any(unicodedata.combining(letter) for letter in unicodedata.normalize("NFD", text)) else "en"
    return max(LANGUAGES, key=counts.__getitem__)


@cache
def _terms(language: Language) -> frozenset[str]:
    """All words of a language's phrases."""
    return frozenset(
        word for phrases in lexicon(language).phrases.values() for text in phrases for word in text.split()
    )


def _small_words(text: str) -> Iterator[str]:
    plain = text.translate(_LIGATURES).replace("’", "'")
    letters = unicodedata.normalize("NFD", plain)
    yield from re.findall(r"[^\W\d_]+'?", "".join(c for c in letters if not unicodedata.combining(c)))
