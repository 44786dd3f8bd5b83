"""The sections of a report: which of them speak of the film, and which of the patient, the question or technique."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.reports.words import Tokens

SPOKEN = ("findings", "conclusion")  # sections whose statements count; text before any title counts too
_BULLETS = frozenset(("-", "•", "*", "#", " ", ".", ")", "(", "=", "_", ">"))
_ENDS = frozenset((".", "?", "!", ";", "\n"))


@dataclass(frozen=True)
class Section:
    """Tokens `[start, end)` under a title.

    Attributes:
        start: of the text after the title.
        end: of the text.
        kind: `findings`, `conclusion`, or one that says nothing of the film.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class _Title:
    start: int
    end: int  # after its colon
    kind: str
    anatomy: bool  # such as "Heart:": its words are part of what is said


def find_sections(tokens: Tokens) -> list[Section]:
    """Cuts a report at its titles.

    A title stands at the start of a line or sentence and ends in a colon or a line of its own. A section that says
    nothing of the film reaches to the next title where that opens the findings; else no further than its paragraph,
    or its line where that ends in a full stop: many reports name no findings section.
    """
    titles = _titles(tokens)
    sections: list[Section] = []
    first = titles[0].start if titles else len(tokens.words)
    if first > 0:
        sections.append(Section(0, first, "findings"))
    for number, title in enumerate(titles):
        after = titles[number + 1] if number + 1 < len(titles) else None
        start = title.start if title.anatomy else title.end
        end = after.start if after else len(tokens.words)
        if title.kind not in SPOKEN and (after is None or after.kind != "findings"):
            silent = _paragraph_end(tokens, title.end, end)
            sections.append(Section(start, silent, title.kind))
            if silent < end:
                sections.append(Section(silent, end, "findings"))
        else:
            sections.append(Section(start, end, title.kind))
    return sections


def _titles(tokens: Tokens) -> list[_Title]:
    words = tokens.words
    best: dict[int, _Title] = {}
    for hit in tokens.hits:
        kinds = [sense.name for sense in hit.senses if sense.kind == "title"]
        if not kinds or not _opens(words, hit.start):
            continue
        end = _closed(words, hit.end, kinds[0], alone=_line_start(words, hit.start))
        if end is None:
            continue
        anatomy = any(sense.kind == "anatomy" for sense in hit.senses)
        known = best.get(hit.start)
        if known is None or end > known.end:
            best[hit.start] = _Title(hit.start, end, kinds[0], anatomy)
    found: list[_Title] = []
    for start in sorted(best):
        if not found or start >= found[-1].end:
            found.append(best[start])
    return found


def _line_start(words: list[str], at: int) -> bool:
    """Whether nothing but bullets or a number stands between a line's start and a token."""
    while at > 0 and (words[at - 1] in _BULLETS or words[at - 1].isdigit()) and words[at - 1] != "\n":
        at -= 1
    return at == 0 or words[at - 1] == "\n"


def _opens(words: list[str], at: int) -> bool:
    return _line_start(words, at) or words[at - 1] in _ENDS


def _closed(words: list[str], at: int, kind: str, *, alone: bool) -> int | None:
    """Where a title's text starts, None where what looks like a title is none."""
    while at < len(words) and words[at] in (" ", "*", "_"):
        at += 1
    if at < len(words) and words[at] == ":":
        return at + 1
    if at < len(words) and words[at] == "," and kind == "conclusion":
        return at + 1
    if at == len(words) or words[at] == "\n":
        return at if alone and at < len(words) else None
    if words[at] in ("-", "–", "—") and alone and kind in ("conclusion", "indication"):
        return at + 1
    return None


def _paragraph_end(tokens: Tokens, start: int, end: int) -> int:
    """End of the first line of a section that ends in a full stop, or of its first paragraph."""
    words, seen = tokens.words, False
    for at in range(start, end):
        if words[at] != "\n":
            seen = seen or words[at].isalnum()
            continue
        if not seen:
            continue
        last = next((w for w in reversed(words[start:at]) if w != " "), "")
        blank = at + 1 < end and words[at + 1] == "\n"
        if blank or last in (".", "?", "!"):
            return at
    return end
