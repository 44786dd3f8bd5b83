from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classify.member import load_member
from classify.model import Classifier, ModelConfig
from classify.optimizer import OptimizerConfig, make_optimizer
from classify.settings import TrainConfig
from classify.train import run
from classify.transfer import take_weights
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.imaging import InputSpec
from weakray.taxonomy import Finding, Taxonomy

SOURCE = Taxonomy((Finding("Pleural Effusion"), Finding("Mass"), Finding("Edema"), Finding("Hernia")))
TARGET = Taxonomy((Finding("Nodule"), Finding("Effusion", None, ("pleural_effusion",)), Finding("Mass", "Nodule")))


def fresh(taxonomy: Taxonomy = TARGET, channels: int = 1, uncertain: bool = False, **settings: Any) -> Classifier:
    spec = InputSpec(size_px=64, channels=channels)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(77)
        config = ModelConfig(**{"backbone": "test_resnet", "input": spec} | settings)
        return Classifier(config, len(taxonomy), uncertain)


def test_findings_pair_by_name_first_and_then_by_synonym_of_either_side() -> None:
    assert TARGET.shared_with(SOURCE) == {1: 0, 2: 1}
    assert SOURCE.shared_with(TARGET) == {0: 1, 1: 2}
    third = Taxonomy((Finding("Fluid", None, ("Pleural Effusion",)), Finding("effusion_")))
    assert TARGET.shared_with(third) == {1: 1}  # "effusion" is the name itself
    assert third.shared_with(TARGET) == {1: 1}


def test_the_backbone_and_the_rows_of_shared_findings_come_over(
    make_member: Callable[..., Path], tmp_path: Path
) -> None:
    source = load_member(make_member(tmp_path / "a", taxonomy=SOURCE))
    model, before = fresh(), fresh()
    told = take_weights(model, TARGET, source)
    for name, value in source.model.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    for name in ("weight", "bias"):
        new, theirs, old = (getattr(m.conv, name) for m in (model, source.model, before))
        assert torch.equal(new[0], old[0])
        assert torch.equal(new[1], theirs[0])
        assert torch.equal(new[2], theirs[1])
    assert told.findings_taken == ("Effusion", "Mass")
    assert told.findings_fresh == ("Nodule",)
    assert told.findings_dropped == ("Edema", "Hernia")
    assert (told.channels, told.unlike_head, told.source_sha256) == (None, (), source.sha256)
    assert told.backbone_tensors == len(model.backbone.state_dict())
    assert told.line == (
        f"init: {told.backbone_tensors} tensors of the backbone; of the head 2 taken (Effusion, Mass), "
        "1 fresh (Nodule), 2 dropped (Edema, Hernia)"
    )


def test_the_same_findings_give_the_same_classifier(make_member: Callable[..., Path], tmp_path: Path) -> None:
    source = load_member(make_member(tmp_path / "a", taxonomy=SOURCE))
    model = fresh(SOURCE).eval()
    assert take_weights(model, SOURCE, source).findings_fresh == ()
    images = torch.rand(3, 1, 64, 64)
    assert torch.equal(model(images).logits, source.model(images).logits)


def test_a_third_class_starts_fresh_and_keeps_no_finding_from_coming(
    make_member: Callable[..., Path], tmp_path: Path
) -> None:
    source, model = load_member(make_member(tmp_path / "a", taxonomy=SOURCE)), fresh(uncertain=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = take_weights(model, TARGET, source)
    assert (told.findings_taken, told.unlike_head) == (("Effusion", "Mass"), ())
    assert torch.equal(model.conv.weight[1], source.model.conv.weight[0])
    third = [name for name in before if name.startswith("uncertain.")]
    assert third
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in third)


def test_a_head_of_another_build_starts_fresh_as_a_whole(make_member: Callable[..., Path], tmp_path: Path) -> None:
    source, model = load_member(make_member(tmp_path / "a", taxonomy=SOURCE)), fresh()
    model.conv = torch.nn.Conv2d(model.conv.in_channels, 3, kernel_size=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = take_weights(model, TARGET, source)
    assert told.unlike_head == ("conv.weight",)
    assert (told.findings_taken, told.findings_fresh) == ((), ("Nodule", "Effusion", "Mass"))
    assert torch.equal(model.conv.bias, before["conv.bias"])  # type: ignore[arg-type]
    first = next(name for name in before if name.startswith("backbone."))
    assert torch.equal(model.state_dict()[first], source.model.state_dict()[first])


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3)])
def test_a_first_convolution_gives_the_same_of_equal_planes(
    make_member: Callable[..., Path], tmp_path: Path, theirs: int, ours: int
) -> None:
    folder = make_member(tmp_path / "a", taxonomy=SOURCE, input=InputSpec(size_px=64, channels=theirs))  # type: ignore[arg-type]
    source, model = load_member(folder), fresh(SOURCE, ours).eval()
    told = take_weights(model, SOURCE, source)
    assert told.channels == f"{theirs} to {ours}"
    grey = torch.rand(3, 1, 64, 64)
    mine, given = (
        m.backbone.forward_features(grey.expand(-1, c, -1, -1)) for m, c in ((model, ours), (source.model, theirs))
    )
    torch.testing.assert_close(mine, given)
    own, there = (next(iter(m.backbone.state_dict().values())) for m in (model, source.model))
    assert own.shape[1] == ours
    expected = there[:, 0] + there[:, 1] + there[:, 2] if ours == 1 else there[:, 0] / 3
    torch.testing.assert_close(own[:, -1], expected)
    assert model.mean.shape == (1, ours, 1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"backbone": "test_resnet", "drop_stages": 1, "output_stride": None},
            r"model\.drop_stages 0, this classifier 1",
        ),
        (
            {"backbone": "test_efficientnet"},
            r"a has model\.backbone 'test_resnet', this classifier 'test_efficientnet'",
        ),
    ],
)
def test_another_backbone_is_refused_by_both_names(
    make_member: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    source = load_member(make_member(tmp_path / "a", taxonomy=SOURCE))
    with pytest.raises(ConfigError, match=message):
        take_weights(fresh(**settings), TARGET, source)


def test_weights_of_another_shape_or_place_are_refused(make_member: Callable[..., Path], tmp_path: Path) -> None:
    source = load_member(make_member(tmp_path / "a", taxonomy=SOURCE))
    wide = fresh()
    name, first = next(iter(wide.backbone.named_parameters()))
    place, _, leaf = name.rpartition(".")
    setattr(
        wide.backbone.get_submodule(place), leaf, torch.nn.Parameter(torch.zeros(first.shape[0], 2, *first.shape[2:]))
    )
    with pytest.raises(
        ConfigError, match=rf"the weight backbone\.{name} has shape .* in .*a, \(\d+, 2, \d, \d\) in this"
    ):
        take_weights(wide, TARGET, source)
    more = fresh()
    more.backbone.register_parameter("gate", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(ConfigError, match=r"backbone\.gate is in the backbone of this classifier alone"):
        take_weights(more, TARGET, source)


def settings(data: Path, out: Path, **changed: Any) -> TrainConfig:
    model = {"backbone": "test_resnet", "input": {"size_px": 48}}
    plain = {"data": data, "out": out, "model": model, "epochs": 1, "batch_size": 6, "threads": 1, "precision": "fp32"}
    return validate(TrainConfig, plain | changed)


def test_fine_tuning_starts_where_the_other_training_ended(
    make_spots: Callable[..., Dataset], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_spots(
        tmp_path / "data", Taxonomy(tuple(map(Finding, ("Mass", "Opacity", "Nodule", "Hernia")))), seed=5
    )
    run(settings(other.root, tmp_path / "first"))
    tiny = {"lr": 1e-12, "weight_decay": 0}  # so that what training adds does not show
    result = run(settings(dataset.root, tmp_path / "second", init=tmp_path / "first", optimizer=tiny))
    assert result.transfer is not None
    assert result.transfer.findings_taken == ("Opacity", "Mass")
    assert result.transfer.findings_fresh == ("Consolidation", "Pneumonia")
    assert json.loads((tmp_path / "second/transfer.json").read_text())["backbone_tensors"] > 10
    assert "of the head 2 taken (Opacity, Mass), 2 fresh" in capsys.readouterr().err
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    torch.testing.assert_close(second["conv.weight"][[1, 3]], first["conv.weight"][[1, 0]], atol=1e-6, rtol=0)
    trained = [name for name, value in first.items() if name.startswith("backbone.") and "running" not in name]
    for name in trained:
        if "num_batches" not in name:
            torch.testing.assert_close(second[name], first[name], atol=1e-6, rtol=0)
    assert run(settings(dataset.root, tmp_path / "second", init=tmp_path / "first", optimizer=tiny)) == result


def test_a_source_trained_anew_trains_anew(dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path) -> None:
    seeds = [make_member(tmp_path / name, seed, size_px=48) for seed, name in enumerate("ab")]
    results = []
    for seed in (0, 1, 1):
        source = tmp_path / "source"
        if source.is_symlink():
            source.unlink()
        source.symlink_to(seeds[seed])
        results.append(run(settings(dataset.root, tmp_path / "m", init=source)).model_sha256)
    assert results[0] != results[1]
    assert results[1] == results[2]


def test_sources_that_cannot_be_are_refused(dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path) -> None:
    source = make_member(tmp_path / "runs/a", size_px=48)
    for out in (source, source.parent):
        with pytest.raises(ConfigError, match="holds the classifier that init names; name another folder"):
            run(settings(dataset.root, out, init=source))
    assert (source / "model.json").is_file()
    model = {"backbone": "test_resnet", "input": {"size_px": 48}, "pretrained": True}
    with pytest.raises(ConfigError, match=r"init, model\.pretrained: both name the first weights"):
        run(settings(dataset.root, tmp_path / "m", init=source, model=model))


def test_the_backbone_may_learn_more_slowly_than_the_head(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh()
    groups = make_optimizer(model, OptimizerConfig(backbone_lr_factor=0.1, weight_decay=0.5)).param_groups
    at = {id(p): (g["lr_factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(at) == len(list(model.parameters()))
    assert at[id(model.conv.weight)] == (1.0, 0.5)
    assert at[id(model.conv.bias)] == (1.0, 0.0)
    assert {at[id(p)] for p in model.backbone.parameters()} == {(0.1, 0.5), (0.1, 0.0)}
    assert [g["weight_decay"] for g in make_optimizer(model, OptimizerConfig()).param_groups] == [0.01, 0.0]

    seen: list[dict[float, float]] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: Any, *given: Any, **named: Any) -> Any:
        seen.append({group["lr_factor"]: group["lr"] for group in optimizer.param_groups})
        return step(optimizer, *given, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run(settings(dataset.root, tmp_path / "m", optimizer={"lr": 2e-3, "backbone_lr_factor": 0.1}))
    assert len(seen) == 4
    assert all(rates[0.1] == rates[1.0] * 0.1 for rates in seen)
    assert max(rates[1.0] for rates in seen) <= 2e-3
