"""What an ensemble learns from val: calibration, weights, thresholds; and figures of it that are honest on val.

Honest means cross-fitted: val's patients are cut into folds, and the images of each are judged by what was fitted on
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from classify.hierarchy import Hierarchy, along_paths
from classify.labels import Targets
from classify.platt import Calibration, Platt, fit_findings
from classify.rules import RULES, WEIGHTED, Rule, combine
from classify.weights import Float64Array, GreedyMetric, fit_weights, greedy_weights, mean_score
from eval.decisions import decision_thresholds
from weakray.config import StrictModel
from weakray.detections import BoolArray, IntArray
from weakray.taxonomy import Taxonomy


class FitConfig(StrictModel):
    """How calibration and weights are fitted on val."""

    calibration_strength: float = Field(5.0, ge=0, description="pull of the calibration's slope to 1")
    weight_strength: float = Field(5.0, ge=0, description="pull of fitted weights to equal ones")
    greedy_metric: GreedyMetric = Field("macro_auroc", description="figure on val that forward selection raises")
    greedy_rounds: int = Field(20, ge=1, description="members that forward selection puts into its bag")
    folds: int = Field(5, ge=2, description="parts of val's patients for cross-fitted figures")
    seed: int = Field(0, ge=0, description="of the folds and the bootstrap")


@dataclass(frozen=True)
class Outputs:
    """What members say of some labelled images.

    Attributes:
        logits: raw, `(m, n, k)`.
        counted: labels that calibration and weights see, the conditional mask of the hierarchy applied.
        full: labels that figures see.
        taxonomy: the findings.
        hierarchy: how a child's probability depends on its parent's.
    """

    logits: Tensor
    counted: Targets
    full: Targets
    taxonomy: Taxonomy
    hierarchy: Hierarchy

    def only(self, rows: BoolArray) -> Outputs:
        """Some of the images, by mask `(n,)`."""
        counted, full = (Targets(part.values[rows], part.mask[rows]) for part in (self.counted, self.full))
        return Outputs(self.logits[:, torch.from_numpy(rows)], counted, full, self.taxonomy, self.hierarchy)


@dataclass(frozen=True)
class Fitted:
    """What val decided.

    Attributes:
        scaling: calibration of each member's findings, `m` lists of `k`.
        weights: rule → a weight a member, for the rules that have weights.
        thresholds: row (see `rows`) → decision thresholds of the findings.
    """

    scaling: list[list[Platt]]
    weights: dict[Rule, list[float]]
    thresholds: dict[str, list[float]]


def member_row(i: int) -> str:
    """Name of a member's row in tables."""
    return f"member_{i}"


def table_rows(members: int, rule: Rule) -> list[str]:
    """The rows that a table shows: every member and every rule; of one member, every rule makes the same."""
    shown = RULES if members > 1 else ("mean", rule)
    return list(dict.fromkeys([*map(member_row, range(members)), *shown]))


def calibrated(logits: Tensor, scaling: Sequence[Sequence[Platt]]) -> Tensor:
    """Raw logits `(m, n, k)` → calibrated ones."""
    slope = torch.tensor([[one.slope for one in own] for own in scaling])
    offset = torch.tensor([[one.offset for one in own] for own in scaling])
    return logits * slope[:, None] + offset[:, None]


def rows(
    logits: Tensor,
    scaling: Sequence[Sequence[Platt]],
    weights: dict[Rule, list[float]],
    taxonomy: Taxonomy,
    hierarchy: Hierarchy,
) -> dict[str, Tensor]:
    """Probabilities `(n, k)` of every member alone (`member_0`, …) and of every rule, from raw logits `(m, n, k)`."""
    moved = calibrated(logits, scaling)
    units = {member_row(i): own.sigmoid() for i, own in enumerate(moved)}
    for rule in RULES:
        units[rule] = combine(moved, rule, torch.tensor(weights[rule]) if rule in weights else None)
    return {name: along_paths(own, taxonomy, hierarchy) for name, own in units.items()}


def fit(outputs: Outputs, calibration: Calibration, config: FitConfig) -> Fitted:
    """Fits everything on all of `outputs`."""
    scaling = [
        fit_findings(own, outputs.counted, config.calibration_strength, calibration) for own in outputs.logits.numpy()
    ]
    weights = _weights(outputs, calibrated(outputs.logits, scaling), config)
    found = rows(outputs.logits, scaling, weights, outputs.taxonomy, outputs.hierarchy)
    names, full = outputs.taxonomy.names, outputs.full
    thresholds = {
        row: list(decision_thresholds(probability.numpy(), full.values, full.mask, names)[0].values())
        for row, probability in found.items()
    }
    return Fitted(scaling, weights, thresholds)


def _weights(outputs: Outputs, moved: Tensor, config: FitConfig) -> dict[Rule, list[float]]:
    if len(moved) == 1:
        return {rule: [1.0] for rule in WEIGHTED}
    logits, units = moved.double().numpy(), moved.sigmoid().double().numpy()

    def score(mixed: Float64Array) -> float | None:
        probability = along_paths(torch.from_numpy(mixed), outputs.taxonomy, outputs.hierarchy).numpy()
        return mean_score(probability, outputs.full, config.greedy_metric)

    return {
        "weighted": fit_weights(logits, outputs.counted, config.weight_strength, of_logits=False),
        "weighted_logit": fit_weights(logits, outputs.counted, config.weight_strength, of_logits=True),
        "greedy": greedy_weights(units, score, config.greedy_rounds)[0],
    }


def patient_folds(patients: Sequence[str], folds: int, seed: int) -> IntArray:
    """The fold of each image `(n,)`: patients are dealt out at random, as evenly as they go."""
    number = {patient: i for i, patient in enumerate(dict.fromkeys(patients))}
    place = np.random.default_rng(seed).permutation(len(number))
    return np.array([place[number[patient]] % folds for patient in patients], np.int64)


@dataclass(frozen=True)
class CrossFitted:
    """A row's probabilities `(n, k)`, and the thresholds `(n, k)` of each image, fitted without its patient."""

    probability: Float64Array
    cut: Float64Array


def cross_fit(outputs: Outputs, calibration: Calibration, config: FitConfig, fold: IntArray) -> dict[str, CrossFitted]:
    """Every row of `rows`, each fold judged by what was fitted on the others."""
    found: dict[str, CrossFitted] = {}
    for number in np.unique(fold).tolist():
        held = fold == number
        fitted = fit(outputs.only(~held), calibration, config)
        part = rows(outputs.only(held).logits, fitted.scaling, fitted.weights, outputs.taxonomy, outputs.hierarchy)
        for row, probability in part.items():
            if row not in found:
                empty = np.empty((len(fold), probability.shape[1]))
                found[row] = CrossFitted(empty, empty.copy())
            found[row].probability[held] = probability.numpy()
            found[row].cut[held] = fitted.thresholds[row]
    return found
