from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classify.model import Classifier, ModelConfig
from classify.optimizer import make_optimizer
from classify.settings import TrainConfig
from weakray.config import load
from weakray.pipeline import PipelineConfig, plan

FOLDER = Path(__file__).parents[2] / "configs"
BENCHES = {"curve": FOLDER / "curve.yaml"}  # read by `python -m bench.NAME`; tested there
CONFIGS = sorted(set(FOLDER.glob("*.yaml")) - set(BENCHES.values()))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_shipped_config_is_whole(path: Path) -> None:
    config = load(PipelineConfig, path)
    assert config.name == path.stem
    assert config.root == Path("runs") / path.stem
    assert [stage.name for stage in plan(config)][-2:] == ["eval.summary", "eval.report"]
    head = path.read_text().splitlines()[:3]
    assert head[0].startswith("# weakray ")
    assert head[1].startswith("#")


RECIPES = sorted((Path(__file__).parents[2] / "configs" / "classify").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_classifier_recipe_builds_and_answers(path: Path, tmp_path: Path) -> None:
    config = load(TrainConfig, path, {"data": str(tmp_path), "out": str(tmp_path / path.stem)})
    head = path.read_text().splitlines()[:2]
    command = f"# weakray classify train configs/classify/{path.stem}.yaml"
    assert head[0] == f"{command} --data data/mine --out runs/{path.stem}"
    assert head[1].startswith("# ")
    small = {"input": {**config.model.input.model_dump(), "size_px": 64}, "pretrained": False}
    model = Classifier(ModelConfig.model_validate({**config.model.model_dump(), **small}), 3).eval()
    channels = config.model.input.channels
    found = model(torch.rand(1, channels, 64, 64))
    assert found.logits.shape == (1, 3)
    assert found.logit_maps.shape == (1, 3, *model.grid_hw)
    make_optimizer(model, config.optimizer)


def test_the_named_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} == {"asl", "chexpert", "hierarchical", "pcam", "small_cnn"}
