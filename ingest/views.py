"""Which views are taken: all, or the frontal ones alone."""

from __future__ import annotations

import re
from typing import Literal

import pandas as pd

from ingest.source import refuse_rows

Views = Literal["all", "frontal"]


def refuse_views(frame: pd.DataFrame, views: Views) -> pd.DataFrame:
    """Refuses rows of another view; a blank one counts as frontal, as it does for the classifiers."""
    if views == "all":
        return frame
    told = {view: _other(str(view)) for view in frame["view"].unique()}
    other = frame["view"].map(told).to_numpy(bool)
    return refuse_rows(frame, (other, "other_view", "not a frontal view; set views to all to take it"))


def _other(view: str) -> bool:
    words = {word.upper() for word in re.findall(r"[A-Za-z]+", view)}
    return bool(words) and not words & {"PA", "AP", "FRONTAL"}
