"""`weakray ingest examples`: a few films of a dataset as a folder that `weakray serve --examples` shows on its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_bytes, write_json
from weakray.runs import open_run

LISTING = "examples.json"


class ExamplesConfig(StrictModel):
    """Settings of `weakray ingest examples`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out"})

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder; name it to `weakray serve --examples`")
    split: Literal["tune", "test"] = Field("test", description="tune or test: the splits whose boxes are known")
    count: int = Field(8, ge=1, description="films, as unlike in their findings as the split allows")


class ExamplesResult(StrictModel):
    """What was taken."""

    examples: int
    boxes: int


def run(config: ExamplesConfig) -> ExamplesResult:
    """Writes `examples.json` and copies of the films, named by numbers: no name or id of the dataset goes along.

    Each film taken is the one that shows most findings not shown yet; ties go to the earlier one.

    Raises:
        DataError: if the split has no boxes.
    """
    dataset = Dataset.load(config.data)
    truth = dataset.truth_of(config.split)
    if not truth.boxes:
        raise DataError(f"{config.data}: expected films with known boxes in split {config.split}, got none")
    stage = open_run(config.out, config, {"dataset": dataset.sha256})
    if (done := stage.finished()) is not None:
        return ExamplesResult(**done)
    entries: list[dict[str, Any]] = []
    for number, image_id in enumerate(_unlike(dataset, config), 1):
        found, path = truth.boxes[image_id], dataset.path_of(image_id)
        names = [dataset.taxonomy.names[k] for k in found.class_id]
        file = f"example-{number}{path.suffix.lower()}"
        write_bytes(stage.root / file, path.read_bytes())
        boxes = [
            {"finding": name, "xyxy_px": [round(float(at), 2) for at in box]}
            for name, box in zip(names, found.boxes_xyxy_px, strict=True)
        ]
        # The title is seen before the film: it must not tell what there is to find.
        entries.append({"id": f"example-{number}", "title": f"Film {number}", "file": file, "boxes": boxes})
    write_json(stage.root / LISTING, {"examples": entries})
    result = ExamplesResult(examples=len(entries), boxes=sum(len(entry["boxes"]) for entry in entries))
    stage.finish(result.model_dump())
    return result


def _unlike(dataset: Dataset, config: ExamplesConfig) -> list[str]:
    """Image ids: each adds most findings not shown yet; once all are shown, the showing begins anew."""
    found = dataset.truth_of(config.split).boxes
    left, shown, taken = [i for i in dataset.ids_of(config.split) if i in found], set[int](), list[str]()
    everything = {int(k) for image_id in left for k in found[image_id].class_id}
    while left and len(taken) < config.count:
        if everything <= shown:
            shown = set()
        best = max(left, key=lambda image_id: len({int(k) for k in found[image_id].class_id} - shown))
        shown |= {int(k) for k in found[best].class_id}
        taken.append(best)
        left.remove(best)
    return taken
