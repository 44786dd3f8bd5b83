"""How large a film may be: looked at before one pixel is decoded, against decompression bombs and lying headers."""

from __future__ import annotations

from pydantic import Field

from weakray.config import StrictModel
from weakray.errors import LimitError


class FilmLimits(StrictModel):
    """Sizes above which a file is refused."""

    max_bytes: int = Field(512 * 1024 * 1024, ge=1, description="most bytes a file, as stored and inflated")
    max_pixels: int = Field(64_000_000, ge=1, description="most pixels a frame (8,000 × 8,000: above mammograms)")
    max_side: int = Field(20_000, ge=1, description="most pixels a side: longer ones are no films")
    max_frames: int = Field(1_000, ge=1, description="most frames a DICOM file may say it holds; one is decoded")

    def check_bytes(self, count: int, name: str) -> None:
        """Refuses too long a file.

        Raises:
            LimitError: if it has more than `max_bytes`.
        """
        if count > self.max_bytes:
            raise LimitError(f"{name}: {count} bytes, at most {self.max_bytes} are read; store it smaller")

    def check_size(self, height: int, width: int, name: str) -> None:
        """Refuses too large a frame.

        Raises:
            LimitError: if it has more than `max_pixels`, or a side longer than `max_side`.
        """
        if height * width > self.max_pixels:
            raise LimitError(
                f"{name}: {height}×{width} px, at most {self.max_pixels} pixels are read; store it smaller"
            )
        if max(height, width) > self.max_side:
            raise LimitError(
                f"{name}: {height}×{width} px, at most {self.max_side} px a side are read; store it smaller"
            )

    def check_frames(self, count: int, name: str) -> None:
        """Refuses too many frames.

        Raises:
            LimitError: if there are more than `max_frames`.
        """
        if count > self.max_frames:
            raise LimitError(f"{name}: {count} frames, at most {self.max_frames} are read; send the one that counts")
