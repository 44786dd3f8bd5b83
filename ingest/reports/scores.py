"""How well read labels agree with labels given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Labels = Mapping[str, int]


@dataclass(frozen=True)
class Agreement:
    """Read labels against given ones.

    Attributes:
        macro_f1: mean of `f1` over the findings that the given labels mention.
        micro_f1: over all labels together.
        f1: finding → F1 of its labels.
        value_f1: `present`, `absent`, `uncertain` → macro F1 of that value alone, over the findings that are given it.
        exact: share of the texts whose labels are all right.
        texts: how many.
    """

    macro_f1: float
    micro_f1: float
    f1: dict[str, float]
    value_f1: dict[str, float]
    exact: float
    texts: int


def agreement(given: Sequence[Labels], read: Sequence[Labels]) -> Agreement:
    """Scores labels; a finding not mentioned is no label.

    A label is right where both sides have the same value. F1 = 2r / (g + n), r right labels, g given and n read ones:
    a wrong value counts against precision and recall both.

    Args:
        given: labels by hand, a text each.
        read: labels as read, in the same order.
    """
    findings = sorted({name for labels in given for name in labels})
    f1 = {name: _f1(given, read, [name], (1, 0, -1)) for name in findings}
    value_f1 = {}
    for word, value in (("present", 1), ("absent", 0), ("uncertain", -1)):
        held = [name for name in findings if any(labels.get(name) == value for labels in given)]
        value_f1[word] = _mean([_f1(given, read, [name], (value,)) for name in held])
    everything = sorted({name for labels in (*given, *read) for name in labels})
    return Agreement(
        macro_f1=_mean(list(f1.values())),
        micro_f1=_f1(given, read, everything, (1, 0, -1)),
        f1=f1,
        value_f1=value_f1,
        exact=_mean([float(dict(one) == dict(other)) for one, other in zip(given, read, strict=True)]),
        texts=len(given),
    )


def _f1(given: Sequence[Labels], read: Sequence[Labels], names: Sequence[str], values: tuple[int, ...]) -> float:
    right = counted = 0
    for one, other in zip(given, read, strict=True):
        for name in names:
            wanted, got = one.get(name), other.get(name)
            counted += (wanted in values) + (got in values)
            right += wanted == got and wanted in values
    return 2 * right / counted if counted else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 1.0
