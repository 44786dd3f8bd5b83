"""From all mentions of a report to one label a finding: what happens where a report says two things."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.reports.clauses import Mention
from ingest.reports.findings import consistent

_RANK = {0: 0, -1: 1, 1: 2}


def labels_of(body: Sequence[Mention], conclusion: Sequence[Mention]) -> dict[str, int]:
    """Finding → 1, 0 or -1, along the tree.

    - Statements on two sides do not contradict one another: the strongest counts, in the order 1, -1, 0.
    - That there is no large one undoes nothing.
    - On the same side, or where no side is named, the later statement stands; yet a doubt does not undo a presence, and
      an absence of no side does not undo a presence on a named one.
    - The conclusion stands over the body, but for an absence on one side, which leaves the other as the body has it.

    Args:
        body: mentions outside the conclusion, in order.
        conclusion: mentions in it, in order.
    """
    said: dict[str, int] = {}
    conclusion = [m for m in conclusion if not (m.slight and any(m.finding == other.finding for other in body))]
    for finding in dict.fromkeys(mention.finding for mention in (*body, *conclusion)):
        first = _by_side([m for m in body if m.finding == finding])
        last = _by_side([m for m in conclusion if m.finding == finding])
        if last and (None in last or "both" in last or max(map(_rank, last.values())) > 0):
            first = {}
        sides = {**first, **last}
        if sides:
            said[finding] = max(sides.values(), key=_rank)
    return consistent(said)


def _rank(value: int) -> int:
    return _RANK[value]


def _by_side(mentions: Sequence[Mention]) -> dict[str | None, int]:
    """Side → what stands at the end; None is a statement of no side."""
    sides: dict[str | None, int] = {}
    for mention in mentions:
        if mention.value is None:
            continue
        before = sides.get(mention.side)
        if mention.slight and sides:
            continue
        if mention.value == 0 and mention.side in (None, "both"):
            kept: dict[str | None, int] = {side: v for side, v in sides.items() if side in ("right", "left") and v == 1}
            sides = {**kept, mention.side: 0}
        elif mention.value == -1 and before == 1:
            continue
        else:
            sides[mention.side] = mention.value
    return sides
