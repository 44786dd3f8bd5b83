"""A made report: gradients for images, figures set by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from eval.report.content import KINDS, GalleryCase, ReportContent
from weakray.detections import Detections
from weakray.imaging import letterbox

FINDINGS = ["Consolidation", "Nodule", "Pleural Effusion"]


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    """A figure as `summary.json` writes it."""
    return {"value": value, "low": low, "high": high}


def make_score(ap50: float, spread: float = 0.03) -> dict[str, Any]:
    """A source's scores: AP30 above and mAP below its AP50."""
    levels = {"ap30": min(1.0, ap50 * 1.35), "ap50": ap50, "map": ap50 * 0.45}
    macro = {k: estimate(v, max(0.0, v - spread), min(1.0, v + spread)) for k, v in levels.items()}
    per_finding = {
        name: {**{k: v * factor for k, v in levels.items()}, "positives": positives}
        for name, factor, positives in zip(FINDINGS, (1.1, 0.6, 1.3), (120, 44, 87), strict=True)
    }
    return {**macro, "per_finding": per_finding, "errors": make_errors(1 - ap50)}


def make_errors(lost: float) -> dict[str, Any]:
    """What a source loses to each type of error, in fixed shares of what it lacks."""
    shares = {"class": 0.1, "location": 0.4, "both": 0.05, "duplicate": 0.0, "background": 0.15, "missed": 0.3}
    macro = {kind: estimate(lost * s, lost * s * 0.8, lost * s * 1.2) for kind, s in shares.items()}
    per_finding = {
        name: {kind: lost * s * factor for kind, s in shares.items()}
        for name, factor in zip(FINDINGS, (0.5, 1.5, 1.0), strict=True)
    }
    return {**macro, "per_finding": per_finding, "boxes": {kind: int(1000 * s) for kind, s in shares.items()}}


def make_lead(key: str, ap50: dict[str, float]) -> dict[str, Any]:
    """How far the weak detector is ahead of another source."""
    lead = ap50["weak_detector"] - ap50[key]
    return {} if key == "weak_detector" else {"lead": estimate(lead, lead - 0.02, lead + 0.02)}


def make_summary() -> dict[str, Any]:
    """A full summary: every source scored."""
    ap50 = {
        "random_map": 0.011,
        "centre_box": 0.034,
        "mean_box": 0.062,
        "gradcam_single": 0.105,
        "recipe": 0.36,
        "few_shot": 0.30,
        "weak_detector": 0.41,
        "supervised_detector": 0.50,
    }
    return {
        "commit": "0123456789abcdef",
        "config_sha256": "ab" * 32,
        "dataset": "made",
        "findings": FINDINGS,
        "classify": {"macro_auroc": estimate(0.89, 0.87, 0.91), "macro_auprc": estimate(0.61, 0.58, 0.64)},
        "scores": {
            key: make_score(value, min(0.03, value * 0.4)) | make_lead(key, ap50) for key, value in ap50.items()
        },
        "recovered_fraction": estimate(0.82, 0.76, 0.88),
        "seconds": {"ingest": 24.3, "classify": 724.0, "camgen": 131.2, "detect": 1503.0},
    }


def make_case(number: int, finding: str, kind: Any, height: int = 120, width: int = 96) -> GalleryCase:
    """A gradient with one true box, a pseudo-box and detector boxes of its finding, and one box of another."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    image = ((rows * 2 + columns + rng.integers(0, 60)) % 256).astype(np.uint8)
    x, y = rng.uniform(5, 40), rng.uniform(5, 60)
    own = FINDINGS.index(finding)
    boxes = np.array([[x, y, x + 30, y + 24], [60, 80, 90, 110]], np.float32)
    found = np.array([[x + 4, y - 3, x + 36, y + 25], [x + 20, y, x + 44, y + 30]], np.float32)
    _, placement = letterbox(image, 64)
    grid_y, grid_x = np.mgrid[:8, :8]
    heat = np.exp(-((grid_x - 3.0) ** 2 + (grid_y - 2.5) ** 2) / 4).astype(np.float32)
    return GalleryCase(
        image=image,
        image_id=f"made-{number:03d}",
        finding=finding,
        truth=Detections(boxes, np.array([own, (own + 1) % 3]), np.ones(2, np.float32)),
        pseudo=Detections(found[:1], np.array([own]), np.array([0.66], np.float32)),
        detector=Detections(found, np.array([own, own]), np.array([0.81, 0.12], np.float32)),
        heat=heat,
        placement=placement,
        caption=f"case {number}",
        kind=kind,
    )


def make_curves() -> dict[str, list[dict[str, Any]]]:
    """A classifier's and a detector's metrics."""
    member = [
        {
            "epoch": e,
            "train_loss": 0.1 + 0.5 * math.exp(-e / 4),
            "val_loss": 0.2 + 0.4 * math.exp(-e / 3) + 0.004 * e,
            "val_macro_auroc": 0.9 - 0.35 * math.exp(-e / 3),
            "lr": 0.001 * math.sin(math.pi * (e + 1) / 14),
            "seconds": 3.5,
        }
        for e in range(1, 13)
    ]
    detector = [
        {"epoch": e, "box_loss": 1 + 2 / e, "cls_loss": 0.9 + 3 / e, "dfl_loss": 0.95 + 1.5 / e, "ap50": 0.45 - 0.4 / e}
        for e in range(1, 21)
    ]
    return {"classifier 0": member, "detector": detector}


def make_dataset() -> dict[str, Any]:
    """Counts as `dataset.json` holds them."""
    return {
        "origin": "made by hand",
        "licence": "none needed",
        "counts": {
            "images": 2600,
            "patients": 1204,
            "rejected": 3,
            "rejected_by_reason": {"truncated": 1, "no_image": 2},
            "splits": {"train": 2000, "val": 200, "tune": 100, "test": 300},
            "labels": {
                split: {
                    name: {"positive": n, "negative": 2 * n, "uncertain": n // 10, "blank": 0}
                    for name, n in zip(FINDINGS, (400 // d, 90 // d, 210 // d), strict=True)
                }
                for split, d in (("train", 1), ("val", 10), ("tune", 20), ("test", 5))
            },
        },
    }


def make_exports() -> list[dict[str, Any]]:
    """Torch, ONNX that agrees, and integers that were refused."""
    speed = {"p50_ms": 8.04, "p95_ms": 9.5, "images_per_s": 151.2, "peak_mib": 1234.5, "threads": 1}
    parity = {"boxes": 210, "matched_fraction": 1.0, "placed_fraction": 1.0, "mean_score_difference": 1.2e-7}
    losses = {"ap50_loss_tune": 0.0, "ap50_loss_test": 0.00001}
    worse = {"boxes": 210, "matched_fraction": 0.521, "placed_fraction": 0.75, "mean_score_difference": 0.031}
    return [
        {"format": "torch", "speed": speed},
        {
            "format": "onnx",
            "bytes": 10_453_682,
            "parity": {**parity, **losses},
            "parity_passed": True,
            "refused": False,
            "speed": {**speed, "p50_ms": 4.2},
        },
        {
            "format": "openvino-int8",
            "bytes": 2_678_840,
            "parity": {**worse, "ap50_loss_tune": 0.0213, "ap50_loss_test": -0.004},
            "parity_passed": False,
            "refused": True,
            "speed": None,
        },
    ]


def make_content(**changes: Any) -> ReportContent:
    """A full content, with parts replaced."""
    parts: dict[str, Any] = {
        "title": "Phantom demo",
        "summary": make_summary(),
        "curves": make_curves(),
        "gallery": [
            make_case(3 * f + k, name, kind) for f, name in enumerate(FINDINGS) for k, kind in enumerate(KINDS)
        ],
        "notes": ["Nodule has fewer than 50 positives on test."],
        "dataset": make_dataset(),
        "per_finding_classify": {
            name: {"auroc": estimate(v, v - 0.03, v + 0.02), "auprc": v - 0.3, "positives": n}
            for name, v, n in zip(FINDINGS, (0.91, 0.83, 0.95), (120, 44, 87), strict=True)
        },
        "recipe": {
            "findings": {
                "Consolidation": {
                    "method": "pcam",
                    "layer": "last",
                    "threshold": 0.35,
                    "calibration": {"kind": "ridge"},
                },
                "Nodule": {"method": "gradcam", "layer": "last", "threshold": 0.6, "calibration": None},
                "Pleural Effusion": {"method": "pcam", "layer": "last", "threshold": 0.5, "calibration": "identity"},
            }
        },
        "parity": {"onnx": {"max_abs_diff": 3.1e-6, "images": 32, "passed": True}},
        "exports": make_exports(),
        "environment": {"python": "3.11.2", "cpu_count": 2, "versions": {"numpy": "2.2.0"}},
    }
    return ReportContent(**{**parts, **changes})


@pytest.fixture
def content() -> ReportContent:
    return make_content()


@pytest.fixture
def summary() -> dict[str, Any]:
    return make_summary()
