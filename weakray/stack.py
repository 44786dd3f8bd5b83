"""Keeps the libraries under us silent and in their place: no telemetry, downloads, settings files or lost threads.

`silence` sets environment variables, which the libraries read at import: call it before importing them. The
command line does so first of all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def silence(settings_folder: Path | None = None) -> None:
    """Sets what keeps ultralytics, albumentations, OpenVINO, W&B and hubs off the network.

    Values set by the user win.

    Args:
        settings_folder: where ultralytics may write its settings file; None leaves `YOLO_CONFIG_DIR` alone.
    """
    values = {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "WANDB_MODE": "disabled",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # else onnxruntime writes an id and a queue into the home folder at import
    }
    if settings_folder is not None:
        values["YOLO_CONFIG_DIR"] = str(settings_folder)
    for name, value in values.items():
        os.environ.setdefault(name, value)
    # OpenVINO and NNCF count what they are used for, in the home folder and, where asked, on the network. No variable
    # turns that off before the first import; both do without the package that does it.
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
