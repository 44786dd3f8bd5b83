"""The folders that hold what each stretch of a training learns from: written once, read back whenever it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detect.course import CourseConfig, Stretch, mixed, repeated
from detect.network import Network
from detect.training_set import BoxCounts, TrainingBoxes
from detect.yolo_folder import Example, read_yolo_folder, write_yolo_folder
from weakray.dataset import Dataset
from weakray.files import read_json, write_json
from weakray.imaging import InputSpec


@dataclass(frozen=True)
class TrainingFolders:
    """A folder a training set, named after its stretch.

    Attributes:
        root: holds them.
        dataset: where the images are.
        spec: what the detector sees of them.
        course: how often examples are shown.
        seed: of what is shown more often by chance.
        own_boxes: makes boxes with a network, for the stretches of the detector's own.
    """

    root: Path
    dataset: Dataset
    spec: InputSpec
    course: CourseConfig
    seed: int
    own_boxes: Callable[[Network], TrainingBoxes]

    def write(self, name: str, training: TrainingBoxes) -> None:
        """Writes a training set and its `counts.json`."""
        write_yolo_folder(self.root / name, self.dataset, training, self.spec)
        write_json(self.root / name / "counts.json", training.counts.model_dump())

    def counts(self, name: str) -> BoxCounts:
        """What a set holds."""
        return BoxCounts.model_validate(read_json(self.root / name / "counts.json"))

    def maker(self, stretch: Stretch) -> Callable[[Network | None], list[Example]]:
        """Reads a set; one of the detector's own boxes is first made by the network that is given."""

        def make(network: Network | None) -> list[Example]:
            if network is not None and stretch.own:
                self.write(stretch.name, self.own_boxes(network))
            examples = self._read(stretch.name)
            if self.course.repeat_below:
                examples = repeated(examples, self.course.repeat_below, self.seed)
            if self.course.tune_mixed and not stretch.true:
                examples = mixed(examples, self._read("tune"), self.course.tune_mixed)
            return examples

        return make

    def true_examples(self) -> list[Example]:
        """Images whose boxes annotators drew: of the ceiling's set, or tune's; none where the training has neither."""
        written = [name for name in ("ceiling", "tune") if (self.root / name).is_dir()]
        return self._read(written[0]) if written else []

    def _read(self, name: str) -> list[Example]:
        return read_yolo_folder(self.root / name, self.spec.channels)
