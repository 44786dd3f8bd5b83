"""A trained classifier on disk: `model.safetensors` and the `model.json` that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from classify.checkpoint import Tensors
from classify.hierarchy import Hierarchy
from classify.labels import Blanks
from classify.model import Classifier, ModelConfig
from classify.studies import StudyMode
from classify.study_network import ByView, Network, classifiers_of, make_network
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
        studies: what it was trained on; its probabilities are scored on the same.
        other: the classifier of images that are not frontal under `by_view`, where `model` is that of frontal ones;
            else None.
    """

    folder: Path
    model: Classifier
    config: ModelConfig
    taxonomy: Taxonomy
    hierarchy: Hierarchy
    blanks: Blanks
    sha256: str
    studies: StudyMode = "images"
    other: Classifier | None = None

    @property
    def network(self) -> Network:
        """What reads the images of a study; `model` alone reads an image that stands for itself."""
        return self.model if self.other is None else ByView(self.model, self.other)

    @property
    def findings(self) -> list[str]:
        """Names, in class-id order."""
        return self.taxonomy.names

    @property
    def input(self) -> InputSpec:
        """What the model sees of an image."""
        return self.config.input


def save_member(
    folder: Path,
    weights: Tensors,
    config: ModelConfig,
    taxonomy: Taxonomy,
    hierarchy: Hierarchy,
    blanks: Blanks,
    studies: StudyMode = "images",
) -> str:
    """Writes a member into its run folder, `model.json` last; returns the hash of `model.json`.

    Both classifiers of `by_view` stand in one file, for they share one calibration: a study's logit is the sum of what
    both say. What says "uncertain" serves training alone and is left out: the logits stand for present against absent.
    """
    kept = {name: value for name, value in weights.items() if "uncertain" not in name.split(".")}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(kept, temporary)
    write_json(
        folder / "model.json",
        {
            "format": _FORMAT,
            "model": config.model_dump(mode="json"),
            "taxonomy": taxonomy.to_dict(),
            "hierarchy": hierarchy,
            "blanks": blanks,
            **({} if studies == "images" else {"studies": studies}),
            "weights_sha256": sha256_file(folder / "model.safetensors"),
        },
    )
    return sha256_file(folder / "model.json")


def load_member(folder: Path) -> Member:
    """Reads a member; its model is in eval mode and asks nothing of the network.

    Raises:
        RunError: if the folder holds no trained classifier, one of another format, or weights of another model.
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
        plain = config.model_copy(update={"pretrained": False})
        studies: StudyMode = content.get("studies", "images")
        network = make_network(plain, len(taxonomy), studies)
    load_weights(network, load_file(weights), weights, taxonomy.names)
    model, *other = classifiers_of(network.eval())
    return Member(
        folder,
        model,
        config,
        taxonomy,
        content["hierarchy"],
        content["blanks"],
        sha256_file(folder / "model.json"),
        studies,
        other[0] if other else None,
    )


def load_weights(model: Network, weights: Tensors, path: Path, findings: Sequence[str]) -> None:
    """Puts weights into a network.

    Args:
        model: takes them.
        weights: of a network of the same backbone, head and findings.
        path: where they come from, for messages.
        findings: the model's.

    Raises:
        RunError: if a tensor is missing, left over, or of another shape; names both sides.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in weights.items()}
    unlike = [name for name in expected if expected[name] != got.get(name)]
    extra = [name for name in got if name not in expected]
    if unlike or extra:
        # The head stands last and says most: another number of findings shows there and nowhere else.
        config = classifiers_of(model)[0].config
        named = "; ".join(
            f"{name}: {_shape(expected.get(name))} expected, {_shape(got.get(name))} found"
            for name in (*unlike[-2:], *extra[-2:])
        )
        raise RunError(
            f"{path}: expected weights of {config.backbone} with head {config.head.kind} for "
            f"{len(findings)} findings ({', '.join(findings)}), got another model's: {len(unlike) + len(extra)} "
            f"tensors differ ({named}); take a model of the same backbone, head, input and findings"
        )
    model.load_state_dict(weights)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(shape)
