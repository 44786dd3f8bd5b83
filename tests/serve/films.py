"""Films as bytes, made from a seed."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def grey(height: int, width: int, value: int) -> npt.NDArray[np.uint8]:
    """A flat film."""
    return np.full((height, width), value, np.uint8)


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A film of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def png(image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    """The film as PNG bytes."""
    done, content = cv2.imencode(".png", image)
    assert done
    return bytes(content)


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """The film as JPEG bytes."""
    done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return bytes(content)
