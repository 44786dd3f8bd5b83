"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weakray.detections import Detections, FloatArray
from weakray.errors import DataError
from weakray.imaging import Image, Placement

Kind = Literal["best", "typical", "worst"]
KINDS: tuple[Kind, ...] = ("best", "typical", "worst")


@dataclass(frozen=True, eq=False)
class GalleryCase:
    """One image and one finding, as truth, map, pseudo-boxes and detector see them.

    Attributes:
        image: `(h, w)` grey or `(h, w, 3)` RGB uint8, as stored.
        image_id: its id.
        finding: name of the finding the case is about; only boxes of this finding are drawn in colour.
        truth: true boxes of all findings, pixels of `image`.
        pseudo: pseudo-boxes of all findings.
        detector: detected boxes of all findings.
        heat: the finding's raw map `(h', w')` float over the letterboxed square, or None where there is none.
        placement: where `image` lay in that square; needed with `heat`.
        caption: a sentence of the caller's, may be empty.
        kind: why the case is shown.

    Raises:
        DataError: on an image or map of another shape or type, or a map without its placement.
    """

    image: Image
    image_id: str
    finding: str
    truth: Detections
    pseudo: Detections
    detector: Detections
    heat: FloatArray | None
    placement: Placement | None
    caption: str
    kind: Kind

    def __post_init__(self) -> None:
        shape, dtype = self.image.shape, self.image.dtype
        if dtype != "uint8" or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
            raise DataError(
                f"case {self.image_id!r}: expected an image (h, w) or (h, w, 3) of uint8, got {shape} of {dtype}"
            )
        if self.heat is not None and (self.heat.ndim != 2 or self.heat.size == 0):
            raise DataError(f"case {self.image_id!r}: expected a map of shape (h, w), got {self.heat.shape}")
        if self.heat is not None and self.placement is None:
            raise DataError(f"case {self.image_id!r}: a map needs its placement; pass the one `prepare` returned")
        if self.kind not in KINDS:
            raise DataError(f"case {self.image_id!r}: expected a kind among {', '.join(KINDS)}, got {self.kind!r}")


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything a report prints. A part that was not computed is empty or None, and its section is left out.

    Attributes:
        title: heading of the page.
        summary: `summary.json`.
        curves: run name → rows of its `metrics.jsonl`, each with `epoch` and numeric keys.
        gallery: cases, in any order; they are grouped by finding.
        notes: what a reader must know about this run, a sentence each.
        dataset: `dataset.json`, or its `counts` alone.
        per_finding_classify: finding → `{"auroc": {"value", "low", "high"}, "auprc", "positives"}`.
        recipe: `recipe.yaml`, its `findings` a mapping name → settings, or a list of settings with `name`.
        parity: what the exported bundle was checked for, name → figure; None where nothing was exported.
        environment: `environment.json` of the run; None where it is not known.
        exports: `exports` of `detect export`, each with `format`, `bytes`, `parity`, `parity_passed`, `refused` and
            `speed`; a row of torch itself has no parity.
    """

    title: str
    summary: Mapping[str, Any]
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    gallery: Sequence[GalleryCase]
    notes: Sequence[str]
    dataset: Mapping[str, Any]
    per_finding_classify: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]
    parity: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] | None = None
    exports: Sequence[Mapping[str, Any]] = ()
