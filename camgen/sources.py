"""What kind of map: how it is made, at which layer, what it explains, and which views of the image it averages.

Written as `METHOD[@LAYER][:TARGET][~VIEWS]`, for example `pcam`, `layercam@stage1~flip`, `gradcam:probability`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, get_args

from camgen.layers import LAST
from camgen.maps import LAST_ONLY, METHODS, MapName, Views
from camgen.methods.gradient import LINEAR
from camgen.methods.target import Target

_WORDS = re.compile(r"(?P<method>[^@:~]+)(?:@(?P<layer>[^:~]+))?(?::(?P<target>[^~]+))?(?:~(?P<views>.+))?")


class MapSource(NamedTuple):
    """A kind of map, of any member and finding."""

    method: str
    layer: str = LAST
    target: Target = "logit"
    views: Views | None = None

    @classmethod
    def parse(cls, text: str) -> MapSource:
        """Reads `METHOD[@LAYER][:TARGET][~VIEWS]`.

        Raises:
            ValueError: if a word is unknown, or words do not go together.
        """
        found = _WORDS.fullmatch(text)
        words: dict[str, Any] = found.groupdict() if found else {"method": text}
        for name, known in (("method", METHODS), ("target", get_args(Target)), ("views", get_args(Views))):
            if words.get(name) is not None and words[name] not in known:
                raise ValueError(
                    f"expected METHOD[@LAYER][:TARGET][~VIEWS], {name.upper()} among {', '.join(known)}; got {text!r}"
                )
        source = cls(**{name: word for name, word in words.items() if word is not None})
        if source.method in LAST_ONLY and source.layer != LAST:
            raise ValueError(f"{source.method} maps are of the last layer only; got {text!r}")
        if source.target != "logit" and source.method not in LINEAR:
            raise ValueError(
                f"only maps of {', '.join(sorted(LINEAR))} explain another target than the logit; got {text!r}"
            )
        return source

    def name(self, member: int, class_id: int) -> MapName:
        """One member's map of one finding."""
        return MapName(member, self.method, self.layer, class_id, self.target, self.views)

    def __str__(self) -> str:
        layer = "" if self.layer == LAST else f"@{self.layer}"
        target = "" if self.target == "logit" else f":{self.target}"
        return f"{self.method}{layer}{target}{'' if self.views is None else f'~{self.views}'}"
