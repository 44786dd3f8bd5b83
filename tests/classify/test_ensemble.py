from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from classify import evaluate, predict
from classify.ensemble import Ensemble, EnsembleConfig, run, split_truth
from classify.export import export_ensemble
from classify.graph import EnsembleGraph, combine
from classify.labels import Targets
from classify.platt import Platt, fit_findings
from classify.scores import finding_areas
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


def test_combination_rules_by_hand() -> None:
    logits = torch.log(torch.tensor([[[1.0, 4.0]], [[3.0, 4.0]]]))  # σ = 1/2, 4/5 and 3/4, 4/5
    assert combine(logits, "mean").tolist() == [pytest.approx([0.625, 0.8])]
    odds = 3**0.5
    assert combine(logits, "logit_mean").tolist() == [pytest.approx([odds / (1 + odds), 0.8])]


@pytest.mark.parametrize("batch", [1, 3])
def test_probabilities_are_calibrated_combined_and_multiplied_along_the_tree(ensemble: Path, batch: int) -> None:
    loaded = Ensemble.load(ensemble)
    seen = images(batch)
    units = []
    for member, platt in zip(loaded.members, loaded.platt, strict=True):
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

    def spy(logits: np.ndarray, counted: Targets, strength: float) -> list[Platt]:
        seen.append(counted)
        return fit_findings(logits, counted, strength)

    monkeypatch.setattr("classify.ensemble.fit_findings", spy)
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
        ({"size_px": 48}, r"different inputs, .*'size_px': 64.* and .*'size_px': 48"),
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


def test_evaluate_scores_the_ensemble_and_each_member(ensemble: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = evaluate.EvaluateConfig(
        data=dataset.root, ensemble=ensemble, out=tmp_path / "v", min_positives=1, draws=20, threads=1
    )
    result = evaluate.run(config)
    content = json.loads((tmp_path / "v/metrics.json").read_text())
    assert content["split"] == "test"
    assert result.images == content["images"] == 10
    assert len(content["members"]) == 2
    loaded = Ensemble.load(ensemble)
    ids = dataset.ids_of("test")
    seen = torch.from_numpy(to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in ids]))
    mass = (dataset.labels.loc[ids, "Mass"] == 1).to_numpy()
    together = loaded.probabilities(seen)[:, 3].numpy()
    found = content["ensemble"]["per_finding"]["Mass"]
    assert found["positives"] == mass.sum()
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(mass, together))
    with torch.no_grad():
        second = loaded.members[1].model(seen).logits[:, 3].numpy()
    assert content["members"][1]["per_finding"]["Mass"]["auprc"]["value"] == pytest.approx(
        average_precision_score(mass, second)  # a calibrated root ranks as its logits do
    )


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


@pytest.mark.parametrize(("rule", "hierarchy"), [("logit_mean", "minimum"), ("mean", "none")])
def test_other_rules_and_hierarchies_export_too(
    dataset: Dataset, make_member: MakeMember, tmp_path: Path, rule: str, hierarchy: str
) -> None:
    members = [
        make_member(tmp_path / str(seed), seed, hierarchy=hierarchy, input={"size_px": 48, "channels": 3})
        for seed in (0, 1)
    ]
    run(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "e", rule=rule, threads=1))
    export_ensemble(tmp_path / "e", tmp_path / "e.onnx")
    seen = images(3, 48, 3)
    probabilities, _ = onnx_outputs(tmp_path / "e.onnx", seen)
    found = Ensemble.load(tmp_path / "e").probabilities(seen)
    np.testing.assert_allclose(probabilities, found.numpy(), atol=1e-4)
    if hierarchy == "minimum":
        assert (found[:, 0] <= found[:, 1]).all()
        assert (found[:, 2] <= found[:, 0]).all()


def test_the_graph_keeps_its_buffers_in_float32(ensemble: Path) -> None:
    graph = Ensemble.load(ensemble).graph
    assert isinstance(graph, EnsembleGraph)
    assert graph.slope.dtype == graph.offset.dtype == torch.float32
    assert graph.slope.shape == (2, 4)
