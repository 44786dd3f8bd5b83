"""Kinds of maps in words."""

from __future__ import annotations

import pytest

from camgen.maps import MapName
from camgen.sources import MapSource


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pcam", MapSource("pcam")),
        ("gradcam++", MapSource("gradcam++")),
        ("layercam@stage1", MapSource("layercam", "stage1")),
        ("gradcam@layer1.0:probability~flip", MapSource("gradcam", "layer1.0", "probability", "flip")),
        ("hirescam:conditional", MapSource("hirescam", target="conditional")),
        ("pcam~flip_scales", MapSource("pcam", views="flip_scales")),
    ],
)
def test_words_and_back(text: str, source: MapSource) -> None:
    assert MapSource.parse(text) == source
    assert str(source) == text


def test_a_name_has_all_of_it() -> None:
    source = MapSource.parse("gradcam@stage1:probability~flip")
    assert source.name(1, 3) == MapName(1, "gradcam", "stage1", 3, "probability", "flip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gradkam", r"expected METHOD\[@LAYER\]\[:TARGET\]\[~VIEWS\], METHOD among gradcam, .*; got 'gradkam'"),
        ("", r"METHOD among gradcam, .*; got ''"),
        ("gradcam:odds", r"TARGET among logit, conditional, probability; got 'gradcam:odds'"),
        ("pcam~mirror", r"VIEWS among flip, scales, flip_scales; got 'pcam~mirror'"),
        ("pcam@stage1", r"pcam maps are of the last layer only; got 'pcam@stage1'"),
        ("layercam:probability", r"only maps of gradcam, hirescam, xgradcam explain another target"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MapSource.parse(text)
