"""A trained classifier on disk: `model.safetensors` and the `model.json` that says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from classify.checkpoint import Tensors
from classify.hierarchy import Hierarchy
from classify.labels import Blanks
from classify.model import Classifier, ModelConfig
from weakray.config import validate
from weakray.errors import RunError
from weakray.files import read_json, replacing, sha256_file, write_json
from weakray.imaging import InputSpec
from weakray.taxonomy import Taxonomy

_FORMAT = 1


@dataclass(frozen=True)
class Member:
    """A trained classifier.

    Attributes:
        folder: the run folder that it comes from.
        model: in eval mode, on CPU.
        config: its architecture.
        taxonomy: the findings it tells apart.
        hierarchy: how its outputs become probabilities.
        blanks: what a label that was not mentioned counted as.
        sha256: hash of `model.json`, which holds that of the weights.
    """

    folder: Path
    model: Classifier
    config: ModelConfig
    taxonomy: Taxonomy
    hierarchy: Hierarchy
    blanks: Blanks
    sha256: str

    @property
    def findings(self) -> list[str]:
        """Names, in class-id order."""
        return self.taxonomy.names

    @property
    def input(self) -> InputSpec:
        """What the model sees of an image."""
        return self.config.input


def save_member(
    folder: Path, weights: Tensors, config: ModelConfig, taxonomy: Taxonomy, hierarchy: Hierarchy, blanks: Blanks
) -> str:
    """Writes a member into its run folder, `model.json` last; returns the hash of `model.json`."""
    with replacing(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(
        folder / "model.json",
        {
            "format": _FORMAT,
            "model": config.model_dump(mode="json"),
            "taxonomy": taxonomy.to_dict(),
            "hierarchy": hierarchy,
            "blanks": blanks,
            "weights_sha256": sha256_file(folder / "model.safetensors"),
        },
    )
    return sha256_file(folder / "model.json")


def load_member(folder: Path) -> Member:
    """Reads a member; its model is in eval mode and asks nothing of the network.

    Raises:
        RunError: if the folder holds no trained classifier, one of another format, or weights that do not match.
    """
    if not (folder / "model.json").is_file():
        raise RunError(f"{folder}: expected a trained classifier, found no model.json; run `weakray classify train`")
    content = read_json(folder / "model.json")
    if content.get("format") != _FORMAT:
        raise RunError(f"{folder}: expected model format {_FORMAT}, got {content.get('format')}; train again")
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_file(weights) != content["weights_sha256"]:
        raise RunError(f"{weights}: missing, or not the weights that model.json names; train again")
    config = validate(ModelConfig, content["model"], f"{folder}/model.json: model")
    taxonomy = Taxonomy.from_dict(content["taxonomy"], f"{folder}/model.json: taxonomy")
    with torch.random.fork_rng(devices=[]):  # building draws weights; nobody else's random numbers should move
        model = Classifier(config.model_copy(update={"pretrained": False}), len(taxonomy))
    model.load_state_dict(load_file(weights))
    return Member(
        folder,
        model.eval(),
        config,
        taxonomy,
        content["hierarchy"],
        content["blanks"],
        sha256_file(folder / "model.json"),
    )
