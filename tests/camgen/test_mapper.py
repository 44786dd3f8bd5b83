from __future__ import annotations

import numpy as np
import pytest
import torch

from camgen.layers import LAST
from camgen.mapper import Making, map_dataset
from camgen.maps import MapName, raw_maps
from classify.ensemble import Ensemble, EnsembleConfig
from classify.ensemble import run as make_ensemble
from tests.camgen.makers import films
from tests.classify.conftest import untrained
from weakray.dataset import Dataset
from weakray.imaging import InputSpec, prepare, read_image, to_batch


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Ensemble]:
    """Members of two sizes and two numbers of channels on films that are not square."""
    root = tmp_path_factory.mktemp("unlike")
    data = films(root / "data", ["val"] * 6 + ["test"] * 4, {})
    inputs = [{"size_px": 48}, {"size_px": 64, "channels": 3}]
    members = [
        untrained(root / f"m{i}", i, data.taxonomy, input=spec, hierarchy="none", output_stride=16)
        for i, spec in enumerate(inputs)
    ]
    make_ensemble(EnsembleConfig(data=data.root, members=members, out=root / "e", draws=5, threads=1))
    return data, Ensemble.load(root / "e")


@pytest.mark.parametrize("batch", [1, 3])
def test_each_member_maps_what_it_sees_and_maps_lie_on_one_another(
    unlike: tuple[Dataset, Ensemble], batch: int
) -> None:
    data, ensemble = unlike
    ids = data.ids_of("test")
    wanted = [MapName(m, "pcam", LAST, k) for m in (0, 1) for k in range(len(data.taxonomy))]
    parts = list(map_dataset(ensemble, data, ids, wanted, Making(), batch, 1))
    assert [len(part.image_ids) for part in parts] == ([1] * 4 if batch == 1 else [3, 1])
    for part in parts:
        assert part.grid_hw == (4, 4)
        for i, image_id in enumerate(part.image_ids):
            image = read_image(data.path_of(image_id))
            assert part.placements[i] == prepare(image, ensemble.input)[1]
            assert part.placements[i].scale_xy[0] == pytest.approx(64 / 44, rel=0.02)  # in the largest square
            own = [torch.from_numpy(to_batch([prepare(image, spec)[0]])) for spec in ensemble.inputs]
            for m, member in enumerate(ensemble.members):
                names = [name for name in wanted if name.member == m]
                expected = raw_maps(member.model, own[m], names).maps
                for name in names:
                    np.testing.assert_allclose(part.maps[name][i], expected[name][0].numpy(), atol=1e-5)
            np.testing.assert_allclose(part.probabilities[i], ensemble.probabilities(own)[0].numpy(), atol=1e-6)


def test_a_spot_is_mapped_to_one_place_by_members_of_unlike_size() -> None:
    """The squares of two sizes are the same picture: relative places agree within a pixel of the smaller."""
    film = np.zeros((60, 88), np.uint8)
    film[30:36, 64:72] = 255
    centres = []
    for spec in (InputSpec(size_px=48), InputSpec(size_px=64)):
        seen = prepare(film, spec)[0].astype(float)
        rows, columns = np.indices(seen.shape)
        centres.append([(seen * (axis + 0.5)).sum() / seen.sum() / spec.size_px for axis in (rows, columns)])
    np.testing.assert_allclose(centres[0], centres[1], atol=1 / 48)
