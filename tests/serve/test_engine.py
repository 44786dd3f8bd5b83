"""A bundle is tried in full before it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from serve.engine import Engine
from weakray.bundle.runtime import Bundle, Prediction
from weakray.imaging import Image


@pytest.mark.parametrize(("most", "expected"), [(1, [1]), (5, [1, 5])])
def test_the_largest_pass_is_run_before_the_first_request(
    most: int, expected: list[int], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory was taken when the first crowd came: 200 clients cost a fifth more than ten."""
    passes: list[int] = []
    real = Bundle.predict

    def watched(self: Bundle, images: Sequence[Image], *, with_maps: bool = False) -> list[Prediction]:
        assert with_maps
        passes.append(len(images))
        return real(self, images, with_maps=with_maps)

    monkeypatch.setattr(Bundle, "predict", watched)
    engine = Engine(tiny_bundle, 1, most=most)
    assert passes == expected
    engine.reload()
    assert passes == 2 * expected
