"""One report → its labels, and the words that gave them."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from ingest.reports.clauses import Mention, longest, mentions_of
from ingest.reports.lexicon import Language, lexicon
from ingest.reports.sections import SPOKEN, find_sections
from ingest.reports.verdict import labels_of
from ingest.reports.words import Hit, Tokens, language_of, reader

_MARKS = ("side",)
_MARK_CUES = ("opener", "list", "certainty")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_TEXT = 100_000  # characters; what is longer is no report, and is read up to here


@dataclass(frozen=True)
class Evidence:
    """A mention, by characters of the text.

    Attributes:
        finding: its name.
        value: 1, 0 or -1; None where it does not speak of this film.
        span: characters `[start, end)` of the words that name it.
        cues: characters `[start, end)` and kind of the words that made the value what it is.
        section: kind of the section it stands in.
        why: what is shown to a person: the cue's kind, or the section's.
    """

    finding: str
    value: int | None
    span: tuple[int, int]
    cues: tuple[tuple[int, int, str], ...]
    section: str
    why: str


@dataclass(frozen=True)
class ReadReport:
    """A report, read.

    Attributes:
        language: it was read in.
        labels: finding → 1, 0 or -1, along the tree; findings not mentioned are left out.
        evidence: every mention, in order.
        mended: characters `[start, end)` of misspelt words → what they were read as.
    """

    language: Language
    labels: dict[str, int]
    evidence: tuple[Evidence, ...]
    mended: dict[tuple[int, int], str]


def read_report(text: str, language: Language | None = None) -> ReadReport:
    """Reads a report; any text gives labels, if only none.

    Args:
        text: the report.
        language: `fr`, `en`, or None to tell it by the text.
    """
    text = _SURROGATE.sub("\ufffd", text[:_LONGEST_TEXT])  # half characters, which JSON can spell and UTF-8 cannot
    spoken: Language = language if language is not None else language_of(text)
    tokens = reader(spoken).read(text)
    pairs = lexicon(spoken).pair_finding
    marks = [hit for hit in tokens.hits if _is_mark(hit)]
    content = [hit for hit in tokens.hits if _is_content(hit)]
    body: list[Mention] = []
    conclusion: list[Mention] = []
    evidence: list[Evidence] = []
    for section in find_sections(tokens):
        for start, end in _sentences(tokens, section.start, section.end):
            hits = longest([hit for hit in _within(content, start, end) if hit.end <= end])
            for low, high in _clauses(hits, start, end):
                inside = [hit for hit in hits if low <= hit.start and hit.end <= high]
                near = _within(marks, low, high)
                for mention in mentions_of(tokens, inside, near, low, high, pairs):
                    if section.kind in SPOKEN:
                        (conclusion if section.kind == "conclusion" else body).append(mention)
                    evidence.append(_evidence(tokens, mention, section.kind))
    mended = {tokens.spans[at]: word for at, word in tokens.mended.items()}
    return ReadReport(spoken, labels_of(body, conclusion), tuple(evidence), mended)


def _within(hits: list[Hit], start: int, end: int) -> list[Hit]:
    """Those of sorted hits that start in `[start, end)`."""
    return hits[bisect_left(hits, start, key=_start) : bisect_left(hits, end, key=_start)]


def _start(hit: Hit) -> int:
    return hit.start


def _is_mark(hit: Hit) -> bool:
    return any(s.kind in _MARKS or (s.kind == "cue" and s.name in _MARK_CUES) for s in hit.senses)


def _is_content(hit: Hit) -> bool:
    kinds = ("finding", "other", "anatomy", "state")
    return any(s.kind in kinds or (s.kind == "cue" and s.name not in ("opener", "list")) for s in hit.senses)


def _sentences(tokens: Tokens, start: int, end: int) -> list[tuple[int, int]]:
    """The sentences of a section, cut to it."""
    first = max(bisect_left(tokens.sentences, (start, 0)) - 1, 0)
    last = bisect_left(tokens.sentences, (end + 3, 0))
    starts = [_before_query(tokens, low) for low, _ in tokens.sentences[first:last]]
    cuts = [start, *(at for at in starts if start < at < end), end]
    return [(low, high) for low, high in pairwise(cuts) if low < high]


def _before_query(tokens: Tokens, start: int) -> int:
    """Where a sentence starts; a question mark that stands before it on its own ("? pneumonia") is part of it."""
    at = start - 1
    while at > 0 and tokens.words[at] == " ":
        at -= 1
    alone = at >= 0 and tokens.words[at] == "?" and (at == 0 or tokens.words[at - 1] in (".", "\n", ":", " ", ","))
    return at if alone and not (at > 0 and tokens.words[at - 1] == " " and tokens.words[at - 2].isalnum()) else start


def _clauses(hits: list[Hit], start: int, end: int) -> list[tuple[int, int]]:
    """Cuts a sentence where a statement of its own begins."""
    cuts = [start, *(hit.start for hit in hits if any(s.kind == "cue" and s.name == "break" for s in hit.senses)), end]
    return [(low, high) for low, high in pairwise(cuts) if low < high]


def _evidence(tokens: Tokens, mention: Mention, section: str) -> Evidence:
    def span(start: int, end: int) -> tuple[int, int]:
        return tokens.spans[start][0], tokens.spans[end - 1][1]

    spoken = section in SPOKEN
    cues = tuple((*span(start, end), kind) for start, end, kind in mention.cues)
    return Evidence(
        finding=mention.finding,
        value=mention.value if spoken else None,
        span=span(mention.start, mention.end),
        cues=cues,
        section=section,
        why=next((kind for _, _, kind in cues if kind != "anatomy"), "stated") if spoken else f"section {section}",
    )
