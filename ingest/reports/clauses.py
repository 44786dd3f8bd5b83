"""One clause of a report: what it mentions, and what its cues make of each mention."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingest.reports.lexicon import Sense
from ingest.reports.words import Hit, Tokens

_SEPARATORS = {",": "comma", ":": "colon", "/": "and"}
_SILENCING = ("past_before", "order_before", "past_after", "family", "other")
_FORWARD = ("absent_before", "absent_large", "uncertain_before", "past_before", "order_before", "other", "neutral")
_SHORT_CHUNK = 4  # words: a longer chunk after a comma is a statement of its own
_REACH = 12  # words between an anatomy and the state that follows it
_NEAR = 4  # words between a state and the anatomy that follows it


@dataclass(frozen=True)
class Mention:
    """A finding named in a report, and what is said of it.

    Attributes:
        finding: its name.
        value: 1, 0 or -1; None where it is named without being said of this film.
        start: first token.
        end: token after the last.
        side: `right`, `left`, `both`, or None where none is named.
        slight: an absence of large ones alone, which undoes nothing said elsewhere.
        cues: tokens `[start, end)` of the words that made the value what it is, and their kinds.
    """

    finding: str
    value: int | None
    start: int
    end: int
    side: str | None = None
    slight: bool = False
    cues: tuple[tuple[int, int, str], ...] = ()


@dataclass
class _Chunk:
    """What stands between two separators of a clause."""

    start: int
    end: int
    before: str  # the separator: start, comma, colon, and, or, with
    lists: bool = False  # opens with a word that goes on with a list, such as French `de`
    opens: bool = False  # opens with a word that begins a statement of its own


@dataclass
class _Candidate:
    finding: str
    value: int
    start: int
    end: int
    chunk: int
    place: tuple[int, int] | None  # of the anatomy whose state it is
    applied: list[tuple[int, Hit, str]] = field(default_factory=list)  # chunks away, cue, what kind of cue


def longest(hits: list[Hit]) -> list[Hit]:
    """Of hits that overlap the longest, of equally long ones the first, in order."""
    taken: set[int] = set()
    kept = []
    for hit in sorted(hits, key=lambda hit: (hit.start - hit.end, hit.start)):
        if taken.isdisjoint(range(hit.start, hit.end)):
            taken.update(range(hit.start, hit.end))
            kept.append(hit)
    return sorted(kept, key=lambda hit: hit.start)


def _cues(hit: Hit) -> set[str]:
    return {sense.name for sense in hit.senses if sense.kind == "cue"}


def mentions_of(
    tokens: Tokens, hits: list[Hit], marks: list[Hit], start: int, end: int, pair_finding: dict[str, str]
) -> list[Mention]:
    """All mentions of the clause `[start, end)`.

    Args:
        tokens: the report.
        hits: phrases of the clause, none overlapping.
        marks: sides and words that open statements or lists, wherever they stand.
        start: first token.
        end: token after the last.
        pair_finding: pair of anatomy and state → finding.
    """
    chunks = _chunks(tokens, hits, marks, start, end)
    found = _candidates(tokens, hits, chunks, marks, pair_finding, start)
    _apply_before(hits, chunks, found)
    _apply_after(hits, chunks, found)
    _apply_all_over(hits, found)
    return [mention for one in found if (mention := _decide(one, marks, chunks)) is not None]


def _chunks(tokens: Tokens, hits: list[Hit], marks: list[Hit], start: int, end: int) -> list[_Chunk]:
    inside = {at for hit in hits for at in range(hit.start, hit.end)}
    cuts: dict[int, tuple[int, str]] = {}
    for hit in hits:
        kinds = _cues(hit) & {"and", "or", "with"}
        if kinds:
            cuts[hit.start] = (hit.end, min(kinds, key=("or", "and", "with").index))
    for at in range(start, end):
        if at not in inside and tokens.words[at] in _SEPARATORS:
            cuts[at] = (at + 1, _SEPARATORS[tokens.words[at]])
    chunks = [_Chunk(start, end, "start")]
    for at in sorted(cuts):
        after, kind = cuts[at]
        last = chunks[-1]
        if not any(tokens.words[i].isalnum() for i in range(last.start, at)) and len(chunks) > 1:
            if last.before == "comma" or kind == "or":  # ", or" is an or
                last.before = kind
            last.start = after
            continue
        last.end = at
        chunks.append(_Chunk(after, end, kind))
    lists = {hit.start for hit in marks if "list" in _cues(hit)}
    opener = {hit.start for hit in marks if "opener" in _cues(hit)}
    for chunk in chunks:
        first = next((i for i in range(chunk.start, chunk.end) if tokens.words[i].isalnum() or i in lists), chunk.start)
        chunk.lists, chunk.opens = first in lists, first in opener or _long(tokens, chunk)
    return chunks


def _long(tokens: Tokens, chunk: _Chunk) -> bool:
    return sum(tokens.words[i].isalnum() for i in range(chunk.start, chunk.end)) > _SHORT_CHUNK + 2


def _chunk_at(chunks: list[_Chunk], at: int) -> int:
    return max(i for i, chunk in enumerate(chunks) if i == 0 or chunk.start <= at)


def _candidates(
    tokens: Tokens, hits: list[Hit], chunks: list[_Chunk], marks: list[Hit], pair_finding: dict[str, str], start: int
) -> list[_Candidate]:
    found: list[_Candidate] = []
    anatomies = [hit for hit in hits if any(sense.kind == "anatomy" for sense in hit.senses)]
    last_state = start
    for hit in hits:
        chunk = _chunk_at(chunks, hit.start)
        found.extend(
            _Candidate(sense.name, sense.value, hit.start, hit.end, chunk, None)
            for sense in hit.senses
            if sense.kind == "finding"
        )
        states = {sense.name: sense for sense in hit.senses if sense.kind == "state"}
        if not states or any(_touches(hit, other) for other in hits):
            continue
        left = [a for a in anatomies if last_state <= a.start < hit.start and hit.start - a.end <= _REACH]
        following = next(
            (h.start for h in hits if h.start >= hit.end and any(s.kind == "state" for s in h.senses)), None
        )
        right = [
            a for a in anatomies if hit.end <= a.start <= hit.end + _NEAR and (following is None or a.start < following)
        ]
        places = [p for p in (left, right) if any(_named(p, states))]
        names = list(_named(places[0], states)) if places else []
        if not names and "film" in states and _alone(tokens, chunks[chunk], hit) and not left:
            names = [(hit, "film")]
        if len({name for _, name in names}) > 1:
            names = [(place, name) for place, name in names if name != "film"]
        for place, name in dict.fromkeys(names):
            value = states[name].value
            if value == 0 and _one_sided(marks, place, hit):
                continue
            finding = _Candidate(pair_finding[name], value, hit.start, hit.end, chunk, (place.start, place.end))
            found.append(finding)
        last_state = hit.end
    return sorted(found, key=lambda one: one.start)


def _touches(state: Hit, other: Hit) -> bool:
    """Whether a state is an adjective of a finding: "obscured by a large effusion" does not enlarge the heart."""
    finding = any(sense.kind == "finding" for sense in other.senses)
    return finding and (other.start == state.end or other.end == state.start)


def _named(places: list[Hit], states: dict[str, Sense]) -> list[tuple[Hit, str]]:
    return [(a, s.name) for a in places for s in a.senses if s.kind == "anatomy" and s.name in states]


def _alone(tokens: Tokens, chunk: _Chunk, hit: Hit) -> bool:
    """Whether a state is all that its chunk says: "Unremarkable, in particular no effusion"."""
    return not any(
        tokens.words[i].isalnum() for i in range(chunk.start, chunk.end) if not hit.start <= i < hit.end
    ) and chunk.before in ("start", "comma")


def _one_sided(marks: list[Hit], place: Hit, state: Hit) -> bool:
    """Whether an anatomy is only the right or the left one: that it is normal says nothing of the other."""
    low, high = min(place.start, state.start) - 2, max(place.end, state.end) + 1
    sides = {s.name for hit in marks if low <= hit.start < high for s in hit.senses if s.kind == "side"}
    return len(sides) == 1 and "both" not in sides


def _apply_before(hits: list[Hit], chunks: list[_Chunk], found: list[_Candidate]) -> None:
    """Cues that speak of what follows: through their chunk, and on as long as a list goes on."""
    for hit in hits:
        kinds = _cues(hit)
        if kinds & {"uncertain_either", "uncertain_after", "absent_after"}:
            at = _chunk_at(chunks, hit.start)
            if any(one.chunk == at and one.end <= hit.start for one in found):
                kinds -= {"uncertain_before", "uncertain_either", "absent_before"}
            elif "uncertain_either" in kinds:
                kinds.add("uncertain_before")
        for kind in kinds & set(_FORWARD):
            first = _chunk_at(chunks, hit.start)
            if first + 1 < len(chunks) and chunks[first + 1].before == "colon" and hit.end + 1 >= chunks[first].end:
                first += 1  # "cannot exclude: effusion"
            reach = _reach(chunks, first, kind)
            for one in found:
                if one.start >= hit.end and first <= one.chunk <= reach:
                    if one.place is not None and one.chunk > first and one.value == 0:
                        continue  # "no effusion, normal heart"
                    if kind in ("neutral", "other") and (
                        one.chunk > first or any(hit.end <= other.start < one.start for other in found)
                    ):
                        continue
                    one.applied.append((one.chunk - first, hit, kind))
        if "versus" in kinds:
            at = _chunk_at(chunks, hit.start)
            before = [one for one in found if one.end <= hit.start and one.chunk == at]
            after = [one for one in found if one.start >= hit.end]
            for one in (*before[-1:], *after[:1]):
                one.applied.append((0, hit, "uncertain_before"))


def _reach(chunks: list[_Chunk], first: int, kind: str) -> int:
    """The last chunk that a cue of chunk `first` speaks of."""
    at = first
    while at + 1 < len(chunks) and _goes_on(chunks, at + 1, kind):
        at += 1
    return at


def _goes_on(chunks: list[_Chunk], at: int, kind: str) -> bool:
    chunk = chunks[at]
    or_later = any(later.before == "or" for later in chunks[at + 1 :])
    match chunk.before:
        case "or":
            return True
        case "and":
            return chunk.lists or not chunk.opens
        case "comma" if kind == "order_before":
            return True
        case "comma" if kind == "uncertain_before":
            return or_later and not chunk.opens
        case "comma":
            return chunk.lists or or_later or (not chunk.opens and kind != "past_before" and not _lists_known(chunks))
        case _:
            return False


def _lists_known(chunks: list[_Chunk]) -> bool:
    """Whether the language marks the members of a list, as French does: then a bare word after a comma is new."""
    return any(chunk.lists for chunk in chunks)


def _apply_after(hits: list[Hit], chunks: list[_Chunk], found: list[_Candidate]) -> None:
    """Cues that speak of what stands before them: the nearest mention, and what is joined to it by and/or."""
    for hit in hits:
        kinds = _cues(hit)
        wanted = {"absent_after", "uncertain_after", "past_after", "certainty"} & kinds
        at = _chunk_at(chunks, hit.start)
        if "uncertain_either" in kinds and any(one.chunk == at and one.end <= hit.start for one in found):
            wanted.add("uncertain_after")
        if not wanted:
            continue
        targets = [one for one in found if one.chunk == at and one.end <= hit.start]
        if (
            not targets
            and kinds & {"uncertain_before", "absent_before"}
            and any(o.chunk == at and o.start >= hit.end for o in found)
        ):
            continue  # it speaks of what follows
        if not targets and at > 0 and chunks[at].before in ("colon", "comma", "with"):
            at -= 1
            targets = [one for one in found if one.chunk == at and one.end <= hit.start]
        if not targets:
            continue
        last = targets[-1]
        chosen = [one for one in targets if one.start == last.start]
        while at > 0 and chunks[at].before in ("and", "or"):
            at -= 1
            chosen += [one for one in found if one.chunk == at][-1:]
        if "uncertain_after" in wanted:  # "probable atelectasis, or consolidation"
            at = _chunk_at(chunks, hit.start)
            while at + 1 < len(chunks) and chunks[at + 1].before == "or":
                at += 1
                chosen += [one for one in found if one.chunk == at][:1]
        for kind in wanted:
            for one in chosen:
                one.applied.append((0, hit, kind))


def _apply_all_over(hits: list[Hit], found: list[_Candidate]) -> None:
    """A family member named in a clause takes all of it, unless the patient is named before the mention."""
    for hit in hits:
        if "family" in _cues(hit):
            patient = next((h.start for h in hits if h.start > hit.start and "now" in _cues(h)), None)
            for one in found:
                if patient is None or one.start < patient:
                    one.applied.append((0, hit, "family"))


def _decide(one: _Candidate, marks: list[Hit], chunks: list[_Chunk]) -> Mention | None:
    cues = one.applied
    side = _side(one, marks, chunks)
    silent = [cue for cue in cues if cue[2] in _SILENCING]
    value: int | None = one.value
    used = cues
    if silent:
        value, used = None, silent
    else:
        told = [cue for cue in cues if cue[2] != "neutral" and cue[2] != "certainty"]
        kept = any(cue[2] == "neutral" for cue in cues)
        nearest = min((cue[0] for cue in told), default=0)
        near = [cue for cue in told if cue[0] == nearest]
        absent = [cue for cue in near if cue[2].startswith("absent")]
        doubt = [cue for cue in near if cue[2].startswith("uncertain")]
        certain = [cue for cue in cues if cue[2] == "certainty"]
        if kept and absent:
            absent = []
        if absent and one.place is not None and one.value == 0:
            return None  # "not normal" tells nothing that can be named
        if absent and certain:
            value, used = -1, absent + certain
        elif absent:
            value, used = 0, absent
        elif doubt and one.value != 0:
            value, used = -1, doubt
        else:
            used = []
    spans = tuple(dict.fromkeys((hit.start, hit.end, kind) for _, hit, kind in used))
    slight = bool(spans) and all(kind == "absent_large" for _, _, kind in spans)
    if one.place is not None and one.place != (one.start, one.end):
        spans = (*spans, (*one.place, "anatomy"))
    return Mention(one.finding, value, one.start, one.end, side, slight, spans)


def _side(one: _Candidate, marks: list[Hit], chunks: list[_Chunk]) -> str | None:
    """The side named nearest to a mention in its chunk."""
    chunk = chunks[one.chunk]
    near = [
        (max(hit.start - one.end, one.start - hit.end, 0), sense.name)
        for hit in marks
        if chunk.start <= hit.start < chunk.end
        for sense in hit.senses
        if sense.kind == "side"
    ]
    return min(near)[1] if near else None
