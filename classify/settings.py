"""Settings of `weakray classify train`, each beside the part of training that it steers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from classify.augment import AugmentConfig
from classify.compute import DeviceName
from classify.hierarchy import Hierarchy
from classify.labels import Blanks, Consistency, SoftLabelConfig, Uncertainty
from classify.loss import LossConfig
from classify.model import ModelConfig
from classify.optimizer import OptimizerConfig
from classify.schedule import ScheduleConfig
from classify.tracking import Tracking
from weakray.config import StrictModel

Metric = Literal["val_macro_auroc", "val_macro_auprc", "val_loss"]


class EarlyStopConfig(StrictModel):
    """What chooses the best epoch, and when to give up."""

    metric: Metric = Field("val_macro_auroc", description="figure on val that chooses the epoch that is kept")
    patience_epochs: int | None = Field(None, ge=1, description="stop after as many epochs without a better one")


class TrainConfig(StrictModel):
    """Settings of `weakray classify train`."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {
            "data",
            "out",
            "init",
            "cache_images",
            "cache_folder",
            "workers",
            "threads",
            "checkpoint_every_steps",
            "wandb",
        }
    )

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder")
    seed: int = Field(0, ge=0, description="of the weights, the order, the augmentation and the soft labels")
    model: ModelConfig = Field(ModelConfig(), description="architecture")
    init: Path | None = Field(
        None, description="run folder of a classifier whose weights come first: its backbone, and shared findings' head"
    )
    epochs: int = Field(10, ge=1, description="passes over the train images")
    batch_size: int = Field(16, ge=2, description="images a step; what does not fill a batch is left out of the epoch")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="what follows the gradient")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate's course")
    loss: LossConfig = Field(LossConfig(), description="what is minimised")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: not clipped")
    early_stop: EarlyStopConfig = Field(EarlyStopConfig(), description="choice of the epoch")
    hierarchy: Hierarchy = Field("conditional", description="how a child's probability depends on its parent's")
    uncertainty: Uncertainty = Field("ignore", description="what an uncertain label counts as in training")
    uncertainty_of: dict[str, Uncertainty] = Field({}, description="exceptions to `uncertainty` by finding")
    soft_labels: SoftLabelConfig = Field(SoftLabelConfig(), description="ranges of the policies lsr-ones and lsr-zeros")
    consistency: Consistency = Field(
        "order", description="train labels of ancestors: at least their descendants', or present where one may be"
    )
    blanks: Blanks = Field("zeros", description="what a label that was not mentioned counts as")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of the train images")
    bf16: bool | Literal["auto"] = Field(
        "auto", description="autocast to bf16; auto: where device and backbone are faster so"
    )
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    cache_images: bool = Field(True, description="keep prepared images, in memory unless cache_folder is named")
    cache_folder: Path | None = Field(
        None, description="keep them in mapped files here, which runs may share; images × size² × channels bytes"
    )
    workers: int = Field(2, ge=1, description="threads that decode and augment; does not change the result")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")
    checkpoint_every_steps: int | None = Field(None, ge=1, description="checkpoints inside an epoch; null: at its end")
    wandb: Tracking = Field("disabled", description="Weights & Biases; offline writes into the run folder alone")
