"""`weakray camgen explain`: one picture of one image: the film, each finding's map and boxes, the probabilities.

The map is the mean of the members', also where it is the members' boxes that are fused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from camgen.drawing import FindingPanel, ProbabilityBar, draw
from camgen.mapper import map_batch, prepare_all
from camgen.recipe import Recipe
from classify.compute import DeviceName, torch_device
from classify.ensemble import Ensemble
from eval.report.panels import heat_on_image
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import ConfigError, DataError
from weakray.files import replacing
from weakray.imaging import read_image


class ExplainConfig(StrictModel):
    """Which image, and what explains it."""

    image: Path = Field(..., description="PNG or JPEG of one film")
    ensemble: Path = Field(..., description="folder of the ensemble that the recipe was fitted with")
    recipe: Path = Field(..., description="recipe.yaml of `camgen search`, or the recipe of a rival beside it")
    out: Path = Field(..., description="PNG to write")
    data: Path | None = Field(None, description="dataset folder whose true boxes are drawn; null: none are")
    image_id: str | None = Field(None, description="the image's id in that dataset; null: the file's name")
    findings: tuple[str, ...] | None = Field(None, description="findings to show; null: those above their gate")
    masked_memory_mib: int = Field(
        64, ge=1, description="MiB of masked images or ablated layers that scorecam and ablationcam hold at a time"
    )
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")


class ExplainResult(StrictModel):
    """What the picture says."""

    out: Path
    shown: list[str]
    probabilities: dict[str, float]
    boxes: dict[str, int]  # of the findings shown
    true_boxes: int | None  # of any finding; null where the image is not annotated


def run(config: ExplainConfig) -> ExplainResult:
    """Draws the picture.

    Raises:
        ConfigError: if a finding is unknown, or the image is not in the dataset.
        DataError: if recipe, ensemble and dataset do not belong together, or the image cannot be decoded.
    """
    if config.out.suffix.lower() != ".png":
        raise ConfigError(f"out: expected a file name that ends in .png, got {str(config.out)!r}")
    recipe, ensemble = Recipe.load(config.recipe), Ensemble.load(config.ensemble)
    recipe.check(ensemble.taxonomy.names, ensemble.sha256, len(ensemble.members))
    image_id = config.image_id or config.image.stem
    image = read_image(config.image)
    truth = None if config.data is None else _truth(config.data, image_id, recipe.names, image.shape[:2])
    ensemble.to(torch_device(config.device))
    maps = map_batch(
        ensemble, [image_id], [prepare_all(image, ensemble)], recipe.wanted, recipe.making(config.masked_memory_mib)
    )
    mapped, probabilities = recipe.maps(maps), recipe.probabilities(maps)
    boxes = recipe.apply(mapped, probabilities, maps.placements)[0]
    shown = _shown(config, recipe, probabilities[0])
    panels = [
        FindingPanel(
            name=recipe.names[k],
            probability=float(probabilities[0, k]),
            gate=recipe.findings[k].gate,
            heat=heat_on_image(np.maximum(mapped[k].mean[0], 0), maps.placements[0], (image.shape[0], image.shape[1])),
            boxes=boxes.of_class(k),
            truth=None if truth is None else truth.of_class(k),
        )
        for k in shown
    ]
    bars = [
        ProbabilityBar(entry.name, float(probabilities[0, k]), entry.gate, k in shown)
        for k, entry in enumerate(recipe.findings)
    ]
    with replacing(config.out) as temporary:
        draw(temporary, image, image_id, bars, panels, truth, recipe.names)
    return ExplainResult(
        out=config.out,
        shown=[panel.name for panel in panels],
        probabilities={bar.name: round(bar.probability, 6) for bar in bars},
        boxes={panel.name: len(panel.boxes) for panel in panels},
        true_boxes=None if truth is None else len(truth),
    )


def _shown(config: ExplainConfig, recipe: Recipe, probability: np.ndarray) -> list[int]:
    """Class ids of the findings with a panel, the most probable first; the named ones in the order they were named."""
    if config.findings is not None:
        unknown = [name for name in config.findings if name not in recipe.names]
        if unknown:
            raise ConfigError(f"findings: expected some of {', '.join(recipe.names)}; got {unknown[0]!r}")
        return [recipe.names.index(name) for name in config.findings]
    above = [k for k, entry in enumerate(recipe.findings) if probability[k] >= entry.gate]
    return sorted(above, key=lambda k: -probability[k])


def _truth(data: Path, image_id: str, names: list[str], size_hw: tuple[int, ...]) -> Detections | None:
    """The image's true boxes; None where it was not annotated."""
    dataset = Dataset.load(data)
    if image_id not in set(dataset.image_ids):
        raise ConfigError(f"image_id: expected the id of an image of {data}, got {image_id!r}")
    if dataset.taxonomy.names != names:
        raise DataError(f"{data}: expected the recipe's findings {names}, got {dataset.taxonomy.names}")
    if tuple(dataset.size_hw(image_id)) != tuple(size_hw):
        expected = "x".join(map(str, dataset.size_hw(image_id)))
        raise DataError(
            f"image: expected {expected} pixels (height x width) as {image_id!r} has in {data}, "
            f"got {'x'.join(map(str, size_hw))}; name the dataset's own file"
        )
    for split in ("tune", "test"):
        boxes = dataset.truth_of(split).boxes
        if image_id in boxes:
            return boxes[image_id]
    return None
