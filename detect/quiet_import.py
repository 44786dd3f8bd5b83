"""Imports ultralytics without what its import does to the rest of the process.

Its import writes a settings file, sets `OMP_NUM_THREADS=1` and other variables, turns off OpenCV's threads, adds
warning filters, changes numpy's print options, and replaces `torch.save` and `PIL.Image.open`. All of that is undone
here.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from PIL import Image

from weakray.stack import silence


def import_ultralytics() -> None:
    """Makes `import ultralytics...` safe: call it first in every function that imports from ultralytics.

    The settings file goes to a temporary folder that is gone when this returns, so a user's own ultralytics settings
    have no say in what a run gives.
    """
    if "ultralytics" in sys.modules:
        return
    silence()
    with _restored(), tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "YOLO_CONFIG_DIR": folder,
            "YOLO_VERBOSE": "false",
            "YOLO_OFFLINE": "true",
            "YOLO_AUTOINSTALL": "false",
        }
        import ultralytics.data.augment
        import ultralytics.nn.tasks  # noqa: F401


@contextmanager
def _restored() -> Iterator[None]:
    environment, cv2_threads, torch_threads = dict(os.environ), cv2.getNumThreads(), torch.get_num_threads()
    save, image_open = torch.save, Image.open
    try:
        with warnings.catch_warnings(), np.printoptions():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        cv2.setNumThreads(cv2_threads)
        torch.set_num_threads(torch_threads)
        torch.save, Image.open = save, image_open
