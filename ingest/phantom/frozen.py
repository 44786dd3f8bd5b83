"""Phantoms that are frozen: sets of films that figures are quoted on, each named for good by its labels and boxes.

`phantom-v1` is `PhantomConfig` as it stands by default: standard films of 192 to 256 px, 2,000 train, 400 val, 100 tune
and 1,000 test. Seed 1 is for development; seeds 11 to 13 are for acceptance: run once for a landing, never to choose.
"""

from __future__ import annotations

# name → seed → `labels_and_boxes_sha256` of its dataset.json
FROZEN: dict[str, dict[int, str]] = {
    "phantom-v1": {
        1: "88e555cba42db737011e577464538038c516e3fe4a6cc63125ba1ad221a0210c",
        11: "2e7de8939d1a441dcde4c6aea87b5031ad2588f8e22fee3e9764b0889116d109",
        12: "0aabe89cdf6e19f153342a0ddc0c5d99d1d50441bd66ec1c3aa838f7f0d60c00",
        13: "d5fc8bf82fc98d7e1a38abfaca5e23ba1bede4f2cc680efa80d511c781d422bf",
    }
}


def frozen_name(sha256: str) -> str | None:
    """Name and seed of the frozen phantom with these labels and boxes; None for any other set of films."""
    for name, seeds in FROZEN.items():
        for seed, known in seeds.items():
            if known == sha256:
                return f"{name}, seed {seed}"
    return None
