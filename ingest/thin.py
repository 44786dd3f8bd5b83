"""Leaves out some of the train images without a finding, which are most of a screening set and teach little."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from ingest.take import TakenImages
from weakray.dataset import Rejection, Split
from weakray.files import sha256_bytes


def thin_train(
    taken: TakenImages, split_of: Mapping[str, Split], *, share: float, seed: int, keep: Collection[str]
) -> tuple[TakenImages, list[Rejection]]:
    """Keeps a share of the train images that have no finding; val, tune and test show the world as it is.

    An image has no finding when none of its labels is 1 or -1.

    Args:
        taken: the images.
        split_of: image_id → split.
        share: what is kept, (0, 1]; 1 keeps all. At least one image stays.
        seed: another seed, other images.
        keep: ids that stay whatever their labels: those that have boxes.
    """
    if share == 1:
        return taken, []
    empty = [
        image_id
        for image_id, image in taken.images.items()
        if split_of[image_id] == "train" and image_id not in keep and not any(image.row.values.values())
    ]
    empty.sort(key=lambda image_id: (sha256_bytes(f"{seed}:no finding:{image_id}".encode()), image_id))
    dropped = set(empty[math.ceil(share * len(empty)) :])
    detail = f"a train image without any finding; no_finding_share {share:g} keeps fewer of them"
    rejected = [Rejection(taken.images[i].row.item, "thinned", detail) for i in sorted(dropped)]
    return replace(taken, images={i: image for i, image in taken.images.items() if i not in dropped}), rejected
