"""Images of a dataset → the maps of all members on one grid, and probabilities, from one backbone pass a member."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from camgen.maps import Engine, MapName, MapSet
from camgen.methods.masked import MaskedPasses
from camgen.methods.target import Tree
from camgen.tta import averaged_maps
from classify.ensemble import Ensemble
from weakray.dataset import Dataset
from weakray.imaging import Image, Placement, prepare, read_image, to_batch


@dataclass(frozen=True)
class Making:
    """How maps are made, whatever their names.

    Attributes:
        engine: who computes Grad-CAM.
        passes: memory and precision of the further passes that masked-forward methods take.
    """

    engine: Engine = "ours"
    passes: MaskedPasses = field(default_factory=MaskedPasses)


Prepared = tuple[list[Image], Placement]  # an image for each input of the ensemble; where it lies in the largest


def prepare_all(image: Image, ensemble: Ensemble) -> Prepared:
    """What the members see of a decoded image, and where it lies in the square of the largest input.

    The square of another input is the same picture on fewer pixels, so that maps of all members lie on one another.
    """
    prepared = [prepare(image, spec) for spec in ensemble.inputs]
    return [picture for picture, _ in prepared], prepared[ensemble.inputs.index(ensemble.input)][1]


def map_batch(
    ensemble: Ensemble,
    image_ids: Sequence[str],
    prepared: Sequence[Prepared],
    wanted: Collection[MapName],
    making: Making,
) -> MapSet:
    """Maps and probabilities of some images.

    Args:
        ensemble: trained members.
        image_ids: n ids.
        prepared: n images as `prepare_all` gives them.
        wanted: names of the maps to make.
        making: how to make them.
    """
    graph = ensemble.graph
    seen = [
        torch.from_numpy(to_batch([pictures[i] for pictures, _ in prepared]))
        .contiguous(memory_format=torch.channels_last)
        .to(graph.slope.device)
        for i in range(len(ensemble.inputs))
    ]
    found = [
        averaged_maps(
            *(member.model, batch, [name for name in wanted if name.member == i]),
            engine=making.engine,
            passes=making.passes,
            tree=Tree(
                *(ensemble.taxonomy.parents, ensemble.taxonomy.top_down, ensemble.hierarchy),
                *(graph.slope[i], graph.offset[i]),
            ),
        )
        for i, (member, batch) in enumerate(zip(ensemble.members, graph.each(seen), strict=True))
    ]
    with torch.no_grad():
        logits = torch.stack([one.logits for one in found])
        probabilities, own = graph.probabilities(logits), graph.member_probabilities(logits)
    maps = {name: own.float().cpu().numpy() for one in found for name, own in one.maps.items()}
    return MapSet(
        list(image_ids),
        [placement for _, placement in prepared],
        maps,
        probabilities.double().cpu().numpy(),
        own.double().cpu().numpy(),
        graph.grid_hw,
        sum(one.flat_channels for one in found),
    )


def map_dataset(
    ensemble: Ensemble,
    dataset: Dataset,
    image_ids: Sequence[str],
    wanted: Collection[MapName],
    making: Making,
    batch_size: int,
    workers: int,
) -> Iterator[MapSet]:
    """`map_batch` over images of a dataset, batch by batch, in the ids' order.

    Only the images of the current batch and the next are held; `workers` threads decode the next meanwhile.
    """

    def load(image_id: str) -> Prepared:
        return prepare_all(read_image(dataset.path_of(image_id)), ensemble)

    parts = [image_ids[i : i + batch_size] for i in range(0, len(image_ids), batch_size)]
    with ThreadPoolExecutor(workers) as pool:
        coming = [pool.submit(load, image_id) for part in parts[:1] for image_id in part]
        for i, part in enumerate(parts):
            prepared = [future.result() for future in coming]
            coming = [pool.submit(load, image_id) for following in parts[i + 1 : i + 2] for image_id in following]
            yield map_batch(ensemble, part, prepared, wanted, making)
