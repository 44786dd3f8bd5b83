"""The answer that OpenAPI shows."""

from __future__ import annotations

from typing import Any

EXAMPLE: dict[str, Any] = {
    "request_id": "8f3c1d0a5b7e4f6c9a2b3c4d5e6f7081",
    "bundle": {"weakray": "0.1.0", "sha256": "0" * 64},
    "study": {
        "findings": [{"finding": "Pleural Effusion", "probability": 0.83, "threshold": 0.25, "decision": True}],
    },
    "images": [
        {
            "index": 0,
            "height": 2048,
            "width": 1792,
            "source": "png",
            "notes": [],
            "findings": [
                {
                    "finding": "Pleural Effusion",
                    "parent": None,
                    "probability": 0.83,
                    "threshold": 0.25,
                    "decision": True,
                    "agreement": "agree",
                    "boxes": [{"xyxy_px": [120.5, 1310.0, 640.25, 1720.0], "score": 0.61}],
                    "map": None,
                }
            ],
            "film": None,
        }
    ],
    "timings_ms": {"queue": 0.1, "decode": 12.0, "prepare": 4.1, "predict": 38.5, "encode": 0.4, "total": 55.8},
}
