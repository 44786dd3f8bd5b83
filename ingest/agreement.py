"""How well the readers of a data set agree, per finding: what no detector can be asked to exceed by much.

- `kappa`: Fleiss' kappa of "is it there?" over the images with two readers or more (Fleiss 1971, with the number of
  readers free to differ, as for Krippendorff): P_i = (p(p−1) + (n−p)(n−p−1)) / n(n−1), of p yes among n; κ = (mean P
  − P_e) / (1 − P_e), P_e = q² + (1−q)², q the share of yes. None where all say the same.
- `f1_iou50`: boxes of two readers of one image, matched greedily at IoU ≥ 0.5: Σ 2·matches / Σ (boxes of both), over
  all pairs of readers. None where nobody drew a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ingest.consensus import Corners
from weakray.boxes.geometry import iou

_SAME = 0.5


def fleiss_kappa(yes: Sequence[int], readers: Sequence[int]) -> float | None:
    """Kappa of images with `yes` of `readers`; images of a single reader are left out."""
    p, n = (np.array(values, np.float64) for values in (yes, readers))
    p, n = p[n > 1], n[n > 1]
    if not len(n):
        return None
    observed = float(((p * (p - 1) + (n - p) * (n - p - 1)) / (n * (n - 1))).mean())
    share = float(p.sum() / n.sum())
    chance = share**2 + (1 - share) ** 2
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def matches(one: Sequence[Corners], other: Sequence[Corners]) -> int:
    """Boxes of two readers that overlap by half, each box used once, the best overlaps first."""
    if not one or not other:
        return 0
    overlap = iou(np.array(one, np.float64), np.array(other, np.float64))
    order = np.argsort(-overlap, axis=None, kind="stable")
    rows, columns = set[int](), set[int]()
    for at in order.tolist():
        row, column = divmod(at, len(other))
        if overlap[row, column] < _SAME:
            break
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    return len(rows)


def pairwise_f1(images: Sequence[tuple[Sequence[str], Mapping[str, Sequence[Corners]]]]) -> float | None:
    """F1 at IoU 0.5 of one finding.

    Args:
        images: of each image its readers, and reader → boxes drawn.
    """
    same, drawn = 0, 0
    for readers, boxes in images:
        for one, other in combinations(sorted(readers), 2):
            same += 2 * matches(boxes.get(one, ()), boxes.get(other, ()))
            drawn += len(boxes.get(one, ())) + len(boxes.get(other, ()))
    return same / drawn if drawn else None


def agreement(
    readers_of: Mapping[str, Sequence[str]],
    seen: Mapping[str, Mapping[str, set[str]]],
    boxes: Mapping[str, Mapping[str, Mapping[str, Sequence[Corners]]]],
) -> dict[str, Any]:
    """The report of a data set, for `dataset.json`.

    Args:
        readers_of: image → who looked at it.
        seen: finding → image → the readers who say that it is there.
        boxes: finding → image → reader → boxes.
    """
    several = {image: readers for image, readers in readers_of.items() if len(readers) > 1}
    findings: dict[str, Any] = {}
    for name, images in seen.items():
        yes = [len(images.get(image, ())) for image in several]
        drawn = [(several[image], found) for image, found in boxes.get(name, {}).items() if image in several]
        kappa = fleiss_kappa(yes, [len(readers) for readers in several.values()])
        f1 = pairwise_f1(drawn)
        findings[name] = {
            "images": sum(count > 0 for count in yes),
            "readers": len({reader for image in images.values() for reader in image}),
            "kappa": None if kappa is None else round(kappa, 4),
            "f1_iou50": None if f1 is None else round(f1, 4),
        }
    return {
        "readers": len({reader for readers in readers_of.values() for reader in readers}),
        "images_of_several_readers": len(several),
        "findings": findings,
    }
