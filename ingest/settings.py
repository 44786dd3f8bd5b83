"""The settings that all readers of published data sets share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ingest.assign import Sizes
from ingest.findings import Vocabulary
from ingest.splits import SplitSettings
from ingest.taxonomies import load_taxonomy
from ingest.views import Views
from weakray.config import StrictModel
from weakray.taxonomy import Taxonomy

TAXONOMY = "chexpert, nih, vindr, padchest, hospital, or the path of a YAML file"


class ReaderConfig(StrictModel):
    """What every reader needs: where to write, what is looked for, how images are checked and split."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"out", "workers", "images"})

    out: Path = Field(description="dataset folder to write")
    images: Path = Field(description="folder of the images; folders below it are searched too")
    taxonomy: str = Field(default="chexpert", description=TAXONOMY)
    findings: tuple[str, ...] | None = Field(default=None, description="findings to keep, by name; none: all")
    min_side_px: int = Field(default=16, ge=1, description="images with a shorter side are rejected")
    split: SplitSettings = SplitSettings()
    seed: int = Field(default=0, description="another seed, another split")
    workers: int = Field(default=2, ge=1, description="threads that decode images; any number gives the same result")
    tune_images: int = Field(default=100, ge=1, description="annotated images in tune, if no list names it")
    val_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of the other images that becomes val")

    @property
    def sizes(self) -> Sizes:
        """How large the splits shall be."""
        return Sizes(self.tune_images, self.val_fraction)

    def plain(self) -> dict[str, Any]:
        """For `dataset.json`; where it is written and by how many changes nothing in it."""
        return dict(self.model_dump(mode="json", exclude={"out", "workers"}))

    def inputs(self) -> dict[str, Path | None]:
        """The files that are read, by setting: all paths but the folders."""
        paths = {name: value for name, value in self if isinstance(value, Path)}
        return {name: path for name, path in paths.items() if name not in ("out", "images") and not path.is_dir()}


class LabelledConfig(ReaderConfig):
    """Of data sets that have labels and no boxes of their own: a few annotated images may be added."""

    boxes: Path | None = Field(
        default=None,
        description="CSV of image_id or file_name, finding, and x, y, width, height or x_min, y_min, x_max, y_max; "
        "a row without a finding: looked at, nothing found",
    )
    test_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="share that becomes test where neither boxes nor an official list decide"
    )

    views: Views = Field(default="all", description="all; frontal: leave lateral images out")

    @property
    def sizes(self) -> Sizes:
        """With a share for test, where nothing else decides."""
        return Sizes(self.tune_images, self.val_fraction, unboxed_test=self.test_fraction)


class BoxedConfig(ReaderConfig):
    """Of data sets whose boxes are complete: what has no box was looked for and is absent."""

    test_images: int = Field(default=300, ge=1, description="annotated images in test where no official list decides")

    @property
    def sizes(self) -> Sizes:
        """With a size for test, where no list decides."""
        return Sizes(self.tune_images, self.val_fraction, test=self.test_images)


class OwnNamesConfig(BoxedConfig):
    """Of detection sets with classes of the user's own: one that the taxonomy does not know is an error."""

    taxonomy: str | None = Field(default=None, description=f"{TAXONOMY}; none: the classes, no tree")  # type: ignore[assignment]
    patient_pattern: str | None = Field(
        default=None,
        description="regular expression whose first group, found in an image's path, names its patient; none: each "
        "image is a patient of its own",
    )

    def vocabulary(self, names: Sequence[str], source: str) -> Vocabulary:
        """What the classes mean.

        Raises:
            DataError: if the taxonomy does not know one of them.
        """
        whole = Taxonomy.flat(names) if self.taxonomy is None else load_taxonomy(self.taxonomy).spoken_in(source)
        vocabulary = Vocabulary.of(whole, self.findings)
        vocabulary.ids(names, source)
        return vocabulary
