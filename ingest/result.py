"""What every ingest verb returns."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from weakray.config import StrictModel
from weakray.dataset import Dataset


class IngestResult(StrictModel):
    """Counts of a dataset folder that was just written."""

    images: int = Field(description="images taken")
    patients: int = Field(description="patients they belong to")
    rejected: int = Field(description="inputs not taken; rejected.csv says which and why")
    splits: dict[str, int] = Field(description="images per split")
    out: Path = Field(description="the dataset folder")
    warnings: tuple[str, ...] = Field(default=(), description="what a reader of the figures should know")

    @classmethod
    def of(cls, dataset: Dataset) -> IngestResult:
        """Reads counts and warnings from `dataset.json`; the warnings are printed on stderr too."""
        counts = dataset.info["counts"]
        warnings = tuple(dataset.info.get("warnings", ()))
        for warning in warnings:
            print(f"warning: {dataset.root.name}: {warning}", file=sys.stderr)
        return cls(
            images=counts["images"],
            patients=counts["patients"],
            rejected=counts["rejected"],
            splits=counts["splits"],
            out=dataset.root,
            warnings=warnings,
        )
