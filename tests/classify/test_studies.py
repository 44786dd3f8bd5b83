from __future__ import annotations

import numpy as np
import pytest
import torch

from classify.augment import AugmentConfig
from classify.batches import turns
from classify.images import PreparedImages
from classify.model import Classifier, ModelConfig
from classify.sampler import Sampler, SamplerConfig
from classify.studies import StudyBatches, group, is_frontal
from classify.study_network import ByView, study_logits
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.imaging import InputSpec

NAN = float("nan")


def test_a_study_of_one_image_has_its_logits() -> None:
    logits = torch.tensor([[1.5, -2.0]])
    assert study_logits(logits, torch.tensor([0]), 1).tolist() == [[1.5, -2.0]]


def test_logits_are_summed_over_real_images_of_three_studies() -> None:
    logits = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]], requires_grad=True)
    found = study_logits(logits, torch.tensor([2, 0, 2, 1]), 3)
    assert found.tolist() == [[2.0, 20.0], [8.0, 80.0], [5.0, 50.0]]
    (found * torch.tensor([[1.0, 0.0], [10.0, 0.0], [100.0, 0.5]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[100.0, 0.5], [1.0, 0.0], [100.0, 0.5], [10.0, 0.0]]


def test_the_sum_equals_the_padded_form_with_its_padding_masked() -> None:
    """The usual form: studies padded to equal length `(b, m, k)`, logits of padding multiplied by 0."""
    rng = np.random.default_rng(0)
    counts = [3, 1, 8]
    padded = torch.from_numpy(rng.normal(size=(3, 8, 5)).astype(np.float32))
    real = torch.arange(8)[None] < torch.tensor(counts)[:, None]
    expected = (padded * real[..., None]).sum(1)
    index = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    torch.testing.assert_close(study_logits(padded[real], index, 3), expected)


@pytest.mark.parametrize(
    ("view", "frontal"),
    [
        *[(view, True) for view in ("PA", "ap", "Frontal", "AP_horizontal", "AP supine", "", " ")],
        *[(view, False) for view in ("LATERAL", "LL", "L", "COSTAL", "lateral decubitus", "APEX", "OBLIQUE")],
    ],
)
def test_views(view: str, frontal: bool) -> None:
    assert is_frontal(view) == frontal


def visits(data: Dataset, plan: dict[str, list[tuple[str, str, str]]]) -> Dataset:
    """The first images of each split get (patient, study, view); the others stand alone."""
    images = data.images.copy()
    for split, rows in plan.items():
        for image_id, (patient, study, view) in zip(data.ids_of(split), rows, strict=False):  # type: ignore[arg-type]
            images.loc[image_id, ["patient_id", "study_id", "view"]] = [patient, study, view]
    return Dataset(data.root, images, data.labels.copy(), data.taxonomy)


TRAIN = [
    *[("a", "1", view) for view in ("PA", "LATERAL", "LL")],
    ("b", "1", "LATERAL"),  # study 1 of another patient
    ("a", "2", ""),
    ("b", "1", "AP"),
    *[("c", "", "PA"), ("c", "", "PA")],  # two visits without an id are not one
]


@pytest.fixture(scope="module")
def visited(dataset: Dataset) -> Dataset:
    data = visits(dataset, {"train": TRAIN})
    ids = data.ids_of("train")
    data.labels.loc[ids[:3]] = [[0, NAN, -1, NAN], [-1, NAN, 1, 0], [0, NAN, 0, NAN]]
    return data


def test_images_are_grouped_by_patient_and_study_with_the_highest_label(visited: Dataset) -> None:
    ids = visited.ids_of("train")
    found = group(visited, "train", "sum")
    assert found.study_ids[:3] == [("a", "1"), ("b", "1"), ("a", "2")]
    assert found.image_ids[:6] == [ids[0], ids[1], ids[2], ids[3], ids[5], ids[4]]
    assert found.study_of[:8].tolist() == [0, 0, 0, 1, 1, 2, 3, 4]
    assert found.frontal[:6].tolist() == [True, False, False, False, True, True]
    np.testing.assert_array_equal(found.labels[0], np.array([-1, NAN, 1, 0], np.float32))
    assert len(found) == 21
    assert found.counts.images == len(ids) == 24
    assert found.counts.images_a_study == {"1": 19, "2": 1, "3": 1}
    assert found.counts.unnamed_views == 1
    pair = visited.labels.loc[[ids[3], ids[5]]].to_numpy()
    unlike = sum(len({v for v in column if not np.isnan(v)}) > 1 for column in pair.T)
    assert found.counts.disagreeing == 2 + unlike
    assert found.counts.lines == [
        "sum: 21 studies of 24 images, each study read as a whole",
        f"{2 + unlike} labels differ between the images of a study: the highest counts",
        "1 images name no view and are taken for frontal ones",
    ]


def test_frontal_images_alone_and_what_that_leaves_out(visited: Dataset) -> None:
    ids = visited.ids_of("train")
    changed = visits(visited, {"train": [*TRAIN, ("d", "1", "LATERAL")]})
    found = group(changed, "train", "frontal")
    assert found.image_ids[:3] == [ids[0], ids[5], ids[4]]
    assert found.frontal.all()
    assert found.labels[0].tolist()[2] == 1  # told of the lateral image, and of the study
    assert ("d", "1") not in found.study_ids
    assert (found.counts.not_frontal, found.counts.without_frontal) == (4, 1)
    assert "4 images are not frontal and left out, and with them 1 studies" in found.counts.lines


def test_a_study_of_nine_images_is_cut_to_eight_frontal_ones_first(dataset: Dataset) -> None:
    views = ["LATERAL"] * 5 + ["PA"] * 4
    data = visits(dataset, {"val": [("p", "1", view) for view in views]})
    ids = data.ids_of("val")
    found = group(data, "val", "sum")
    assert found.image_ids == [*ids[:4], *ids[5:9], ids[9]]
    assert (found.counts.cut_studies, found.counts.cut_images) == (1, 1)
    assert found.counts.lines[1] == (
        "1 studies have more than 8 images: 1 images are left out, frontal ones stay first"
    )
    assert group(visits(dataset, {"val": [("p", "1", "PA")] * 8}), "val", "sum").counts.cut_studies == 0


def test_a_split_without_what_is_wanted_is_refused(dataset: Dataset) -> None:
    data = visits(dataset, {"val": [("p", f"{i}", "LL") for i in range(10)]})
    with pytest.raises(
        DataError, match=r"expected frontal images in split val, got none \(views: LL\); set studies to"
    ):
        group(data, "val", "frontal")
    assert len(group(data, "val", "by_view")) == 10


def test_rows_of_studies_become_rows_of_images(visited: Dataset) -> None:
    found = group(visited, "train", "sum")
    images, index = found.flatten(np.array([2, 0, 1]))
    assert images.tolist() == [5, 0, 1, 2, 3, 4]
    assert index.tolist() == [0, 1, 1, 1, 2, 2]
    images, index = found.flatten(np.array([1]))
    assert (images.tolist(), index.tolist()) == ([3, 4], [0, 0])


def test_batches_hold_real_images_alone_whatever_the_workers(visited: Dataset) -> None:
    found = group(visited, "train", "sum")
    images = PreparedImages(visited, found.image_ids, InputSpec(size_px=48), cache=True)
    rows = Sampler.make(SamplerConfig(), np.ones((len(found), 1), np.float32), 4, 3).batches(1)
    made, again = (
        list(StudyBatches(images, found, rows, turns(rows)).augmented(AugmentConfig(), 3, 1, workers))
        for workers in (1, 3)
    )
    assert len(made) == 5
    for study_rows, one, other in zip(rows, made, again, strict=True):
        wanted = np.concatenate([np.flatnonzero(found.study_of == row) for row in study_rows])
        assert one.pixels.shape == (len(wanted), 1, 48, 48)
        assert one.study_index.bincount().tolist() == [int((found.study_of == row).sum()) for row in study_rows]
        assert one.frontal.tolist() == found.frontal[wanted].tolist()
        np.testing.assert_array_equal(one.pixels, other.pixels)
    plain = AugmentConfig(translate=0, rotate_deg=0, scale=0, brightness_contrast=0)
    first = next(StudyBatches(images, found, [np.array([1])], [np.array([0])]).augmented(plain, 3, 1, 1))
    np.testing.assert_array_equal(first.pixels[1, 0], images[4].astype(np.float32) / np.float32(255))


def test_what_an_epoch_shows_again_is_augmented_anew(visited: Dataset) -> None:
    found = group(visited, "train", "sum")
    images = PreparedImages(visited, found.image_ids, InputSpec(size_px=48), cache=True)
    rows = [np.array([1, 4, 1]), np.array([4, 1, 2])]
    assert [turn.tolist() for turn in turns(rows)] == [[0, 0, 1], [1, 2, 0]]
    alone = AugmentConfig(affine_probability=1, rotate_deg=15)
    first, second = StudyBatches(images, found, rows, turns(rows)).augmented(alone, 3, 1, 2)
    shown = [first.pixels[first.study_index == i] for i in (0, 2)] + [second.pixels[second.study_index == 1]]
    assert not any(np.array_equal(a, b) for a, b in zip(shown, shown[1:] + shown[:1], strict=True))
    # A part of the epoch, as one process of several or a run gone on with sees it, is shown what the whole would show.
    [part] = StudyBatches(images, found, rows[1:], turns(rows)[1:]).augmented(alone, 3, 1, 1)
    np.testing.assert_array_equal(part.pixels, second.pixels)


def pair() -> ByView:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = [Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=64)), 3) for _ in range(2)]
    for model in made:
        torch.nn.init.normal_(model.conv.weight)
    return ByView(*made)


@pytest.mark.parametrize("views", [[True], [False], [False, True, False], [True, True, True]])
def test_each_view_has_its_own_weights(views: list[bool]) -> None:
    model, images = pair().eval(), torch.rand(len(views), 1, 64, 64)
    found = model(images, torch.tensor(views))
    for i, frontal in enumerate(views):
        alone = (model.frontal if frontal else model.other)(images[i : i + 1])
        torch.testing.assert_close(found.logits[i], alone.logits[0])
        torch.testing.assert_close(found.logit_maps[i], alone.logit_maps[0])


def test_gradients_reach_the_network_of_the_view_alone() -> None:
    model = pair()
    study = study_logits(
        model(torch.rand(3, 1, 64, 64), torch.tensor([True, True, True])).logits, torch.tensor([0, 1, 1]), 2
    )
    study.sum().backward()
    assert all(parameter.grad is None for parameter in model.other.parameters())
    assert all(parameter.grad is not None for parameter in model.frontal.parameters())


def test_an_untouched_set_is_a_study_an_image(dataset: Dataset) -> None:
    found = group(dataset, "train", "sum")
    ids = dataset.ids_of("train")
    assert found.image_ids == ids
    assert found.study_of.tolist() == list(range(len(ids)))
    np.testing.assert_array_equal(found.labels, dataset.labels.loc[ids].to_numpy(np.float32))
    assert found.counts.lines == ["sum: 24 studies of 24 images, each study read as a whole"]
    assert group(dataset, "train", "images").counts.lines == []


def test_a_view_of_a_single_image_leaves_its_statistics_as_they_are() -> None:
    """Batch norm cannot learn from one image, and may refuse it."""
    model, images = pair().train(), torch.rand(3, 1, 64, 64)
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    found = model(images, torch.tensor([True, False, True]))
    after = model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in before if name.startswith("frontal.")}
    torch.testing.assert_close(found.logits[1], model.other.eval()(images[1:2]).logits[0])
    assert all(part.training for part in model.frontal.modules())
