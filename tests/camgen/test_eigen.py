"""Principal directions and factorisations against numpy, scikit-learn and pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from camgen.maps import MapName, is_empty, raw_maps
from camgen.methods.eigen import principal_map, singular
from camgen.methods.factors import concept_map, factorise
from camgen.methods.fused import fuse
from tests.camgen.makers import Averaged
from tests.camgen.referee import off
from weakray.errors import ConfigError


def activations(n: int, d: int, h: int, w: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, h, w, generator=torch.Generator().manual_seed(seed)).relu()


def by_svd(a: Tensor) -> Tensor:
    """The projection with the stated sign, from a whole float64 decomposition of each image."""
    found = []
    for one in a.double().numpy():
        rows = one.reshape(len(one), -1).T
        centred = rows - rows.mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        projection = centred @ direction * np.sign(direction @ rows.mean(0))
        found.append(projection.reshape(one.shape[1:]))
    return torch.from_numpy(np.stack(found))


def test_hand_computed_projection() -> None:
    # Two channels that rise together, 3:4, around means of 6 and 8: the direction is (0.6, 0.8).
    step = torch.tensor([[-2.0, 0.0, 2.0]])
    a = torch.stack([6 + 3 * step, 8 + 4 * step])[None]
    assert torch.allclose(principal_map(a), torch.tensor([[[0.0, 0.0, 10.0]]]), atol=1e-5)
    assert torch.allclose(principal_map(-a), torch.tensor([[[0.0, 0.0, 10.0]]]), atol=1e-5)  # towards the mean, too


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("shape", [(12, 4, 5), (6, 7, 9)])  # more channels than places, and fewer
def test_the_gram_matrix_gives_what_the_decomposition_gives(shape: tuple[int, int, int], n: int) -> None:
    a = activations(n, *shape)
    assert off(principal_map(a), by_svd(a).relu()) < 1e-5
    flat = a.flatten(2).double()
    left, size, right = singular(flat, 3)
    assert torch.allclose(size, torch.linalg.svdvals(flat)[:, :3], rtol=1e-9)
    assert torch.allclose((left * size[:, None]).mT @ left, torch.diag_embed(size), atol=1e-6)
    assert torch.allclose(flat @ right, left * size[:, None], atol=1e-6)


def test_the_peers_sign_is_luck_and_ours_is_a_rule() -> None:
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    dark = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        y, x = (int(torch.randint(0, most, (1,), generator=generator)) for most in (3, 4))
        spot = torch.zeros(5, 7)
        spot[y : y + 2, x : x + 3] = 1  # every channel is active here and hardly anywhere else
        strength = torch.rand(6, 1, 1, generator=generator) + 0.1
        a = (strength * spot + 0.01 * activations(1, 6, 5, 7, seed)[0])[None]
        ours = principal_map(a)[0]
        assert ours[spot == 1].min() > 10 * ours[spot == 0].max()
        theirs = torch.from_numpy(get_2d_projection(a.numpy()))[0]
        sign = torch.sign(theirs[y, x])
        assert off((sign * theirs).relu(), ours) < 1e-4  # but for the sign they are equal
        dark += int(sign < 0)
    assert 0 < dark < 20


def test_one_eigen_map_serves_all_findings_and_eigengradcam_each_its_own() -> None:
    model, images = Averaged("test_resnet", 2), torch.rand(3, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    wanted = [MapName(0, method, "stage2", k) for method in ("eigencam", "eigengradcam") for k in (0, 1)]
    found = raw_maps(model, images, wanted).maps
    assert model.batches == [3]
    assert torch.equal(found[wanted[0]], found[wanted[1]])
    assert not torch.equal(found[wanted[2]], found[wanted[3]])
    kept: list[Tensor] = []
    with torch.enable_grad():
        handle = model.backbone.layer2.register_forward_hook(lambda _m, _i, out: kept.append(out))
        logits = model(images)
        handle.remove()
        g = torch.autograd.grad(logits[:, 1].sum(), kept[0])[0]
    assert off(found[wanted[0]], by_svd(kept[0].detach()).relu()) < 1e-4
    assert off(found[wanted[3]], by_svd((g * kept[0]).detach()).relu()) < 1e-4


def test_activations_that_are_equal_everywhere_give_an_empty_map() -> None:
    assert is_empty(principal_map(torch.full((1, 3, 4, 5), 2.0)).numpy()).all()
    concepts, where = factorise(torch.zeros(1, 3, 4, 5))
    assert torch.isfinite(concepts).all()
    assert torch.isfinite(where).all()


def test_factorisation_finds_parts_that_do_not_overlap_and_weighs_them_by_the_gradient() -> None:
    where = torch.zeros(2, 4, 6)
    where[0, :2, :3], where[1, 2:, 4:] = 3.0, 2.0
    channels = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.5, 4.0]])  # concept x channel
    a = torch.einsum("rd,rhw->dhw", channels, where)[None]
    factors = factorise(a, 2)
    rebuilt = torch.einsum("ndr,nrhw->ndhw", *factors)
    assert torch.allclose(rebuilt, a, atol=1e-4)
    # Weights (1, -1, 0.5) times the channels: -1 for the first concept and 1.5 for the second.
    g = torch.tensor([1.0, -1.0, 0.5])[None, :, None, None].expand(1, 3, 4, 6)
    assert torch.allclose(concept_map(factors, g), 1.5 * where[1:], atol=1e-4)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("lifted", [False, True])
def test_factorisation_is_as_close_as_scikit_learns(n: int, lifted: bool) -> None:
    from sklearn.decomposition import NMF

    a = activations(n, 20, 6, 7, seed=4) - (0.3 if lifted else 0.0)
    concepts, where = factorise(a, 4)
    assert min(concepts.min(), where.min()) >= 0
    for i in range(n):
        x = (a[i] - a[i].amin((1, 2), keepdim=True).clamp(max=0)).flatten(1).numpy()
        model = NMF(4, init="nndsvda", max_iter=5000, tol=1e-5)
        theirs = np.linalg.norm(x - model.fit_transform(x) @ model.components_)
        ours = np.linalg.norm(x - (concepts[i] @ where[i].flatten(1)).numpy())
        assert ours <= 1.01 * theirs
        alone = factorise(a[i : i + 1], 4)
        assert torch.allclose(alone[1][0], where[i], rtol=1e-3, atol=1e-4)  # no image depends on its batch


def test_fused_map_is_fine_where_the_coarse_one_points() -> None:
    coarse = torch.tensor([[[8.0, 0.0]], [[0.0, 0.0]]])
    fine = torch.tensor([[[0.5, 1.0, 0.0, 2.0]], [[1.0, 1.0, 1.0, 1.0]]])
    # Bilinear: the coarse map over its peak is 1, 0.75, 0.25, 0; the fine one 0.25, 0.5, 0, 1.
    expected = torch.tensor([[[8 * 0.25**0.5, 8 * 0.375**0.5, 0.0, 0.0]], [[0.0] * 4]])
    assert torch.allclose(fuse([fine, coarse]), expected)
    silent = torch.zeros(2, 1, 4)  # a layer without a word does not veto
    assert torch.allclose(fuse([silent, fine, coarse]), expected)


def test_fused_maps_join_the_layercam_maps_of_the_stages() -> None:
    model, images = Averaged("test_resnet", 2), torch.rand(3, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    layers = ("stage1", "stage2", "stage3", "last")
    wanted = [MapName(0, "layercam", layer, 1) for layer in layers]
    name = MapName(0, "layercam-fused", "stage1", 1)
    found = raw_maps(model, images, [*wanted, name]).maps
    assert model.batches == [3]
    assert found[name].shape == (3, 16, 24)
    assert torch.equal(found[name], fuse([found[one] for one in wanted]))
    assert (found[name].amax((1, 2)) > 0).any()
    with pytest.raises(ConfigError, match=r"finest of the stages to fuse, one of stage0, .*stage3; got 'last'"):
        raw_maps(model, images, [MapName(0, "layercam-fused", "last", 1)])
