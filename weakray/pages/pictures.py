"""Pictures inside a page."""

from __future__ import annotations

import base64

import cv2

from weakray.errors import DataError
from weakray.imaging import Image


def jpeg_uri(image: Image, quality: int = 82) -> str:
    """A JPEG of a grey or RGB image as a data URI."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, content = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"could not encode an image of shape {image.shape} as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
