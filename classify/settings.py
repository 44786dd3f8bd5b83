"""Settings of `weakray classify train`, each beside the part of training that it steers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from classify.augment import AugmentConfig
from classify.compute import DeviceName, PrecisionName
from classify.ema import EmaConfig
from classify.hierarchy import Hierarchy
from classify.labels import Blanks, Consistency, SoftLabelConfig, Uncertainty
from classify.loss import LossConfig
from classify.mean_teacher import MeanTeacherConfig
from classify.model import ModelConfig
from classify.optimizer import OptimizerConfig
from classify.phase import SecondPhaseConfig
from classify.rollback import RollbackConfig
from classify.sampler import SamplerConfig
from classify.schedule import ScheduleConfig
from classify.studies import StudyMode
from classify.tracking import TRACKING_HELP, Tracking
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
    seed: int = Field(0, ge=0, description="of the weights, the draws, the augmentation and the soft labels")
    model: ModelConfig = Field(ModelConfig(), description="architecture")
    init: Path | None = Field(
        None, description="run folder of a classifier whose weights come first: its backbone, and shared findings' head"
    )
    studies: StudyMode = Field(
        "images",
        description="what is learned from: images alone, or studies by the sum of their images' logits; sum: all "
        "images; frontal: frontal ones alone; by_view: all, with other weights for those that are not frontal. Where "
        "studies are, other settings that speak of train images mean studies: batch_size counts some of up to 8 images",
    )
    epochs: int = Field(10, ge=1, description="passes over the train images, or over those that the sampler draws")
    batch_size: int = Field(16, ge=2, description="images a step; what does not fill a batch is left out of the epoch")
    sampler: SamplerConfig = Field(SamplerConfig(), description="which train images an epoch shows")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="what follows the gradient")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate's course")
    loss: LossConfig = Field(LossConfig(), description="what is minimised")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: not clipped")
    rollback: RollbackConfig = Field(RollbackConfig(), description="what a loss that is not finite leads to")
    ema: EmaConfig = Field(EmaConfig(), description="average of the weights")
    mean_teacher: MeanTeacherConfig = Field(MeanTeacherConfig(), description="agreement with that average")
    early_stop: EarlyStopConfig = Field(EarlyStopConfig(), description="choice of the epoch")
    hierarchy: Hierarchy = Field("conditional", description="how a child's probability depends on its parent's")
    second_phase: SecondPhaseConfig = Field(SecondPhaseConfig(), description="the last layer alone, after training")
    uncertainty: Uncertainty = Field("ignore", description="what an uncertain label counts as in training")
    uncertainty_of: dict[str, Uncertainty] = Field({}, description="exceptions to `uncertainty` by finding")
    soft_labels: SoftLabelConfig = Field(SoftLabelConfig(), description="ranges of the policies lsr-ones and lsr-zeros")
    consistency: Consistency = Field(
        "order", description="train labels of ancestors: at least their descendants', or present where one may be"
    )
    moving_labels: float | None = Field(
        None, ge=0, lt=1, description="share of a label that a look keeps, the rest is the model's own; null: fixed"
    )
    blanks: Blanks = Field("zeros", description="what a label that was not mentioned counts as")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of the train images")
    precision: PrecisionName = Field(
        "auto",
        description="fp32, bf16 or fp16 (CUDA alone); auto: bf16 where device and backbone are faster so",
    )
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    cache_images: bool = Field(True, description="keep prepared images, in memory unless cache_folder is named")
    cache_folder: Path | None = Field(
        None, description="keep them in mapped files here, which runs may share; images × size² × channels bytes"
    )
    workers: int = Field(2, ge=1, description="threads that decode and augment; does not change the result")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")
    checkpoint_every_steps: int | None = Field(None, ge=1, description="checkpoints inside an epoch; null: at its end")
    wandb: Tracking = Field("disabled", description=TRACKING_HELP)

    @field_validator("mean_teacher")
    @classmethod
    def _teacher_is_the_average(cls, given: MeanTeacherConfig, info: ValidationInfo) -> MeanTeacherConfig:
        ema = info.data.get("ema")
        if given.weight is not None and ema is not None and ema.decay is None:
            raise ValueError("the teacher is the average of the weights; set ema.decay, e.g. to 0.999")
        return given

    @field_validator("second_phase")
    @classmethod
    def _second_phase_compares(cls, given: SecondPhaseConfig, info: ValidationInfo) -> SecondPhaseConfig:
        if given.epochs is None or given.child_mask:
            return given
        if info.data.get("hierarchy", "conditional") != "conditional":
            raise ValueError("child_mask false drops the mask of hierarchy conditional; set that, or leave it true")
        early_stop = info.data.get("early_stop")
        if early_stop is not None and early_stop.metric == "val_loss":
            raise ValueError(
                "without the child mask val_loss counts other labels than in the first phase and does not compare; "
                "set early_stop.metric to val_macro_auroc or val_macro_auprc, or child_mask to true"
            )
        return given
