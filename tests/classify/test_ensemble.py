from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from classify import inference, predict
from classify.ensemble import Ensemble, EnsembleConfig, run, split_truth, val_outputs
from classify.export import export_ensemble
from classify.fitting import fit, patient_folds, rows
from classify.graph import EnsembleGraph, area_matrix
from classify.labels import Targets
from classify.member import load_member
from classify.platt import Calibration, Platt, fit_findings
from classify.rules import RULES, WEIGHTED
from classify.scores import finding_areas
from classify.studies import group
from weakray.dataset import Dataset
from weakray.errors import DataError, RunError
from weakray.imaging import prepare, read_image, to_batch
from weakray.stack import silence
from weakray.taxonomy import Taxonomy

MakeMember = Callable[..., Path]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def images(n: int, size: int = 64, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("batch", [1, 3])
def test_probabilities_are_calibrated_combined_and_multiplied_along_the_tree(ensemble: Path, batch: int) -> None:
    loaded = Ensemble.load(ensemble)
    seen = images(batch)
    units = []
    for member, platt in zip(loaded.members, loaded.fitted.scaling, strict=True):
        with torch.no_grad():
            logits = member.model(seen).logits.numpy().astype(np.float64)
        units.append(sigmoid(logits * [one.slope for one in platt] + [one.offset for one in platt]))
    p = np.mean(units, axis=0)
    expected = np.stack([p[:, 1] * p[:, 0], p[:, 1], p[:, 1] * p[:, 0] * p[:, 2], p[:, 3]], axis=1)
    found = loaded.probabilities(seen)
    assert found.shape == (batch, 4)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_maps_are_the_mean_of_members_on_the_finest_grid(ensemble: Path, batch: int) -> None:
    loaded = Ensemble.load(ensemble)
    assert [member.model.grid_hw for member in loaded.members] == [(4, 4), (2, 2)]
    seen = images(batch)
    with torch.no_grad():
        fine, coarse = (member.model(seen).logit_maps.sigmoid() for member in loaded.members)
    # Bilinear from 2 to 4 cells: the inner ones lie a quarter of the way, the outer ones are the corners.
    share = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    resized = torch.einsum("yi,xj,nkij->nkyx", share, share, coarse)
    torch.testing.assert_close(loaded.maps(seen), (fine + resized) / 2, rtol=1e-5, atol=1e-6)
    both = loaded.both(seen)
    torch.testing.assert_close(both[0], loaded.probabilities(seen))
    torch.testing.assert_close(both[1], loaded.maps(seen))


def test_calibration_is_fitted_on_val_and_only_where_parents_are_present(
    ensemble: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Targets] = []

    def spy(logits: np.ndarray, counted: Targets, strength: float, method: Calibration) -> list[Platt]:
        seen.append(counted)
        return fit_findings(logits, counted, strength, method)

    monkeypatch.setattr("classify.fitting.fit_findings", spy)
    members = [member.folder for member in Ensemble.load(ensemble).members]
    run(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "e", threads=1))
    val = dataset.labels.loc[dataset.ids_of("val")].to_numpy()
    np.testing.assert_array_equal(seen[0].mask[:, 0], val[:, 1] == 1)
    np.testing.assert_array_equal(seen[0].mask[:, 2], (val[:, 1] == 1) & (val[:, 0] == 1))
    assert seen[0].mask[:, [1, 3]].all()
    assert (tmp_path / "e/ensemble.json").read_bytes() != b""
    assert json.loads((tmp_path / "e/ensemble.json").read_text())["members"][0]["path"].startswith("..")


def test_an_ensemble_moves_together_with_its_members(ensemble: Path, tmp_path: Path) -> None:
    shutil.copytree(ensemble.parent, tmp_path / "moved")
    here, there = Ensemble.load(ensemble), Ensemble.load(tmp_path / "moved/both")
    assert there.members[0].folder == tmp_path / "moved/a"
    assert there.sha256 == here.sha256
    torch.testing.assert_close(there.probabilities(images(3)), here.probabilities(images(3)), rtol=0, atol=0)


def test_a_member_that_was_trained_anew_is_noticed(ensemble: Path, make_member: MakeMember, tmp_path: Path) -> None:
    shutil.copytree(ensemble.parent, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/a")
    make_member(tmp_path / "moved/a", seed=7)
    with pytest.raises(RunError, match="trained anew since .* was made"):
        Ensemble.load(tmp_path / "moved/both")
    with pytest.raises(RunError, match=r"expected an ensemble, found no ensemble\.json"):
        Ensemble.load(tmp_path)


def test_one_member_is_an_ensemble_only_when_asked(dataset: Dataset, make_member: MakeMember, tmp_path: Path) -> None:
    member = make_member(tmp_path / "a")
    with pytest.raises(RunError, match="members: expected at least 2, got 1; .*allow_single"):
        run(EnsembleConfig(data=dataset.root, members=[member], out=tmp_path / "e"))
    config = EnsembleConfig(data=dataset.root, members=[member], out=tmp_path / "e", allow_single=True, threads=1)
    result = run(config)
    assert result.members == 1
    assert Ensemble.load(tmp_path / "e").sha256 == result.sha256
    assert run(config) == result


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hierarchy": "minimum"}, "different hierarchies, conditional and minimum"),
        ({"taxonomy": Taxonomy.flat(["Mass", "Opacity"])}, r"different findings, .* and \['Mass', 'Opacity'\]"),
    ],
)
def test_members_must_go_together(
    dataset: Dataset, make_member: MakeMember, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    members = [make_member(tmp_path / "a"), make_member(tmp_path / "b", **change)]
    with pytest.raises(RunError, match=text):
        run(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "e"))


def test_a_dataset_with_other_findings_is_refused(
    ensemble: Path, make_spots: Callable[..., Dataset], tmp_path: Path
) -> None:
    other = make_spots(tmp_path / "data", taxonomy=Taxonomy.flat(["Mass", "Nodule", "Fracture", "Edema"]))
    with pytest.raises(DataError, match="got Mass, Nodule, Fracture, Edema; ingest it with the same taxonomy"):
        predict.run(predict.PredictConfig(data=other.root, ensemble=ensemble, out=tmp_path / "p"))


def test_predict_writes_every_image_in_order_whatever_the_batch(
    ensemble: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_ROWS", 10)  # several row groups
    config = predict.PredictConfig(data=dataset.root, ensemble=ensemble, out=tmp_path / "p", batch_size=4, threads=1)
    assert predict.run(config).images == len(dataset.image_ids)
    table = pd.read_parquet(tmp_path / "p/probabilities.parquet").set_index("image_id")
    assert list(table.index) == dataset.image_ids
    assert list(table.columns) == dataset.taxonomy.names
    loaded = Ensemble.load(ensemble)
    for image_id in (dataset.image_ids[0], dataset.image_ids[-1]):
        pixels = to_batch([prepare(read_image(dataset.path_of(image_id)), loaded.input)[0]])
        expected = loaded.probabilities(torch.from_numpy(pixels))[0].numpy()
        np.testing.assert_allclose(table.loc[image_id].to_numpy(), expected, rtol=1e-5)


def test_predict_keeps_at_most_one_row_group_of_probabilities(
    ensemble: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_ROWS", 10)
    sizes: list[int] = []
    real = torch.cat

    def spy(parts: list[torch.Tensor]) -> torch.Tensor:
        sizes.append(sum(map(len, parts)))
        return real(parts)

    monkeypatch.setattr(torch, "cat", spy)
    predict.run(predict.PredictConfig(data=dataset.root, ensemble=ensemble, out=tmp_path / "p", threads=1))
    assert max(sizes) == 10


def test_epoch_areas_are_those_of_sklearn_and_skip_masked_labels() -> None:
    rng = np.random.default_rng(3)
    probability = np.round(rng.random((40, 3)), 1)  # ties
    values = (rng.random((40, 3)) < 0.4).astype(np.float32)
    values[:, 2] = 0
    mask = rng.random((40, 3)) < 0.8
    found = finding_areas(probability, Targets(values * mask, mask), ["A", "B", "C"])
    for k, name in enumerate("AB"):
        counted = values[mask[:, k], k], probability[mask[:, k], k]
        assert found[f"auroc/{name}"] == pytest.approx(roc_auc_score(*counted))
        assert found[f"auprc/{name}"] == pytest.approx(average_precision_score(*counted))
        assert found[f"positives/{name}"] == counted[0].sum()
    assert found["auroc/C"] is None
    assert found["macro_auroc"] == pytest.approx(np.mean([found["auroc/A"], found["auroc/B"]]))
    nothing = finding_areas(probability, Targets(values * 0, mask), ["A", "B", "C"])
    assert nothing["macro_auroc"] is None


def test_split_truth_masks_uncertain_labels(dataset: Dataset) -> None:
    ids = dataset.ids_of("train")
    truth = split_truth(dataset, ids, "zeros")
    mass = dataset.labels.loc[ids, "Mass"].to_numpy()
    assert (mass == -1).any()
    assert np.isnan(mass).any()
    np.testing.assert_array_equal(truth.mask[:, 3], mass != -1)
    np.testing.assert_array_equal(truth.values[:, 3], mass == 1)
    assert pd.isna(mass[~truth.mask[:, 3]]).sum() == 0


def onnx_outputs(path: Path, seen: torch.Tensor) -> list[np.ndarray]:
    silence()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [np.asarray(part) for part in session.run(["probabilities", "maps"], {"images": seen.numpy()})]


def test_the_exported_graph_equals_torch_for_any_batch(ensemble: Path, tmp_path: Path) -> None:
    path = tmp_path / "ensemble.onnx"
    export_ensemble(ensemble, path)
    assert [item.name for item in tmp_path.iterdir()] == ["ensemble.onnx"]  # weights are inside
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["images"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param != ""
    loaded = Ensemble.load(ensemble)
    for batch in (1, 3):
        probabilities, maps = onnx_outputs(path, images(batch))
        expected = loaded.both(images(batch))
        assert probabilities.shape == (batch, 4)
        assert maps.shape == (batch, 4, 4, 4)
        np.testing.assert_allclose(probabilities, expected[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(maps, expected[1].numpy(), atol=1e-4)


def test_the_exporter_is_deterministic(ensemble: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export_ensemble(ensemble, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(("rule", "hierarchy"), [("median", "minimum"), ("greedy", "none")])
def test_other_rules_and_hierarchies_export_too(
    dataset: Dataset, make_member: MakeMember, tmp_path: Path, rule: str, hierarchy: str
) -> None:
    members = [
        make_member(tmp_path / str(seed), seed, hierarchy=hierarchy, input={"size_px": 48, "channels": 3})
        for seed in (0, 1)
    ]
    run(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "e", rule=rule, draws=5, threads=1))
    export_ensemble(tmp_path / "e", tmp_path / "e.onnx")
    seen = images(3, 48, 3)
    probabilities, _ = onnx_outputs(tmp_path / "e.onnx", seen)
    found = Ensemble.load(tmp_path / "e").probabilities(seen)
    np.testing.assert_allclose(probabilities, found.numpy(), atol=1e-5)
    if hierarchy == "minimum":
        assert (found[:, 0] <= found[:, 1]).all()
        assert (found[:, 2] <= found[:, 0]).all()


@pytest.fixture(scope="module")
def unlike(dataset: Dataset, make_member: MakeMember, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members of two sizes and two numbers of channels."""
    root = tmp_path_factory.mktemp("unlike")
    members = [
        make_member(root / "small", 1, size_px=48),
        make_member(root / "colour", 2, input={"size_px": 64, "channels": 3}, output_stride=8),
        make_member(root / "again", 3, size_px=48),
    ]
    run(EnsembleConfig(data=dataset.root, members=members, out=root / "e", draws=5, threads=1))
    return root / "e"


@pytest.mark.parametrize("batch", [1, 3])
def test_each_member_is_fed_by_its_own_input(unlike: Path, dataset: Dataset, batch: int) -> None:
    loaded = Ensemble.load(unlike)
    assert [(spec.size_px, spec.channels) for spec in loaded.inputs] == [(48, 1), (64, 3)]
    assert loaded.input.size_px == 64
    pictures = next(inference.batches(dataset, dataset.image_ids[:batch], loaded.inputs, batch, 1))
    decoded = [read_image(dataset.path_of(image_id)) for image_id in dataset.image_ids[:batch]]
    for picture, spec in zip(pictures, loaded.inputs, strict=True):
        assert picture.numpy().tolist() == to_batch([prepare(image, spec)[0] for image in decoded]).tolist()
    with torch.no_grad():
        own = [loaded.members[i].model(pictures[at]).logits for i, at in ((0, 0), (1, 1), (2, 0))]
    torch.testing.assert_close(loaded.logits(pictures), torch.stack(own))
    probabilities, maps = loaded.both(pictures)
    assert maps.shape == (batch, 4, 8, 8)  # the finer grid, 64 px at stride 8
    torch.testing.assert_close(probabilities, loaded.graph.probabilities(torch.stack(own)))
    with pytest.raises(ValueError, match=r"each of the members' 2 inputs \(size_px=48.*size_px=64.*\), got 1"):
        loaded.logits(pictures[0])


def test_predict_feeds_unlike_members(unlike: Path, dataset: Dataset, tmp_path: Path) -> None:
    predict.run(predict.PredictConfig(data=dataset.root, ensemble=unlike, out=tmp_path / "p", threads=1))
    table = pd.read_parquet(tmp_path / "p/probabilities.parquet").set_index("image_id")
    loaded = Ensemble.load(unlike)
    pictures = next(inference.batches(dataset, dataset.image_ids[3:4], loaded.inputs, 1, 1))
    expected = loaded.probabilities(pictures)[0].numpy()
    np.testing.assert_allclose(table.loc[dataset.image_ids[3]].to_numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("large", "small"), [(64, 48), (64, 32), (50, 7)])
def test_shrinking_is_opencvs_area_average(large: int, small: int) -> None:
    picture = np.random.default_rng(small).random((large, large)).astype(np.float32)
    matrix = area_matrix(large, small).numpy()
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    expected = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(matrix @ picture @ matrix.T, expected, atol=1e-5)


def test_the_table_sets_every_member_beside_every_rule(ensemble: Path) -> None:
    table = json.loads((ensemble / "rules.json").read_text())
    assert list(table["rows"]) == ["member_0", "member_1", *RULES]
    assert (table["split"], table["images"], table["folds"], table["reference"]) == ("val", 10, 5, "mean")
    assert set(table["fitted_weights"]) == set(WEIGHTED)
    for weights in table["fitted_weights"].values():
        assert sum(weights) == pytest.approx(1)
    assert table["members"] == ["a: test_resnet, 64 px", "b: test_resnet, 64 px"]
    text = (ensemble / "rules.md").read_text()
    assert text.count("\n| ") == 2 + len(table["rows"])


def test_the_table_is_cross_fitted(dataset: Dataset, ensemble: Path, tmp_path: Path) -> None:
    """Its figures are those of probabilities for which each patient was left out of the fit."""
    members = [member.folder for member in Ensemble.load(ensemble).members]
    config = EnsembleConfig(
        data=dataset.root, members=members, out=tmp_path / "e", min_positives=1, draws=5, folds=2, threads=1
    )
    run(config)
    found = json.loads((tmp_path / "e/rules.json").read_text())["rows"]["mean"]["log_loss"]["value"]
    outputs = val_outputs(
        [load_member(folder) for folder in members], dataset, group(dataset, "val", "images"), torch.device("cpu"), 4, 1
    )
    ids = dataset.ids_of("val")
    fold = patient_folds([dataset.patient_of(i) for i in ids], 2, 0)
    assert sorted(np.bincount(fold)) == [5, 5]
    losses: list[float] = []
    probability = np.empty((10, 4))
    for held in (fold == 0, fold == 1):
        fitted = fit(outputs.only(~held), "platt", config)
        part = rows(outputs.only(held).logits, fitted.scaling, fitted.weights, outputs.taxonomy, outputs.hierarchy)
        probability[held] = part["mean"].numpy()
    for k in range(4):
        truth = outputs.full.values[:, k] == 1
        if 0 < truth.sum() < 10:
            losses.append(log_loss(truth, probability[:, k]))
    assert found == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("calibration", ["temperature", "none"])
def test_calibration_is_chosen_by_name(
    dataset: Dataset, ensemble: Path, tmp_path: Path, calibration: Calibration
) -> None:
    members = [member.folder for member in Ensemble.load(ensemble).members]
    run(
        EnsembleConfig(
            data=dataset.root, members=members, out=tmp_path / "e", calibration=calibration, draws=5, threads=1
        )
    )
    loaded = Ensemble.load(tmp_path / "e")
    assert loaded.calibration == calibration
    assert {one.offset for own in loaded.fitted.scaling for one in own} == {0.0}
    slopes = {one.slope for own in loaded.fitted.scaling for one in own}
    assert (slopes == {1.0}) == (calibration == "none")
    assert loaded.sha256 != Ensemble.load(ensemble).sha256


def test_findings_of_one_kind_in_val_are_reported(
    make_spots: Callable[..., Dataset], make_member: MakeMember, tmp_path: Path
) -> None:
    data = make_spots(tmp_path / "data", train=2)
    labels = data.labels.copy()
    val = data.ids_of("val")
    labels.loc[val, "Mass"] = -1.0
    labels.loc[val, "Pneumonia"] = 0.0
    labels.rename_axis("image_id").reset_index().to_parquet(data.root / "labels.parquet", index=False)
    config = EnsembleConfig(
        data=data.root,
        members=[make_member(tmp_path / "a"), make_member(tmp_path / "b", 1)],
        out=tmp_path / "e",
        threads=1,
    )
    result = run(config)
    assert result.events == ["Pneumonia: no positive in val", "Mass: no label that counts in val"]
    assert json.loads((tmp_path / "e/rules.json").read_text())["events"] == result.events
    assert Ensemble.load(tmp_path / "e").thresholds["Mass"] == 0.5


def test_an_ensemble_of_an_older_format_is_refused(ensemble: Path, tmp_path: Path) -> None:
    shutil.copytree(ensemble, tmp_path / "e")
    content = json.loads((ensemble / "ensemble.json").read_text())
    (tmp_path / "e/ensemble.json").write_text(json.dumps(content | {"format": 1}))
    with pytest.raises(RunError, match="expected ensemble format 2, got 1; make it again"):
        Ensemble.load(tmp_path / "e")


def test_the_graph_keeps_its_buffers_in_float32(ensemble: Path) -> None:
    graph = Ensemble.load(ensemble).graph
    assert isinstance(graph, EnsembleGraph)
    assert graph.slope.dtype == graph.offset.dtype == torch.float32
    assert graph.slope.shape == (2, 4)
