"""An answer → a DICOM structured report: TID 1500, measurement groups under the film that they speak of.

- One group for the run: that detection and analysis succeeded, how many regions and findings there are. A film on which
  nothing was found says so there in codes and words: "ran and found nothing" is not silence.
- One group a finding: present or absent by the classifiers, its probability (Certainty of Finding, %) and threshold.
- One group a box: a closed polyline of its four corners, from the film's top left in columns and rows, with the
  detector's score.

Each group names the algorithm, its version, and the hash of the bundle. The report is complete and not verified: no
person has looked at it. It is a document of its own; the film's pixels are not touched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import weakray
from serve.answers import Box, BundleName, ImageAnswer, ImageFinding
from serve.concepts import finding_concept, own_concept
from weakray.dicom.pixels import chosen_frame
from weakray.dicom.reading import damage, pydicom_module
from weakray.errors import DataError

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        Measurement,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
    )
    from pydicom import Dataset

ALGORITHM = "weakray"
SERIES_NUMBER = 9_100  # far from those of the modality
NOTHING = "The algorithm ran and found nothing"
SOMETHING = "The algorithm ran and found something"


def structured_report(source: Dataset, answer: ImageAnswer, bundle: BundleName) -> Dataset:
    """The report on one film.

    Args:
        source: the film's header, by `serve.report_source.read_source`.
        answer: what was found on it.
        bundle: what found it.

    Returns:
        A Comprehensive SR with UIDs of its own, in the film's study.

    Raises:
        DataError: if the answer is for a film of another size, or the header cannot be repeated.
    """
    pydicom_module()
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    check_same_film(source, answer)
    with damage("report", "the film's header"):
        film = _Film.of(source)
        algorithm = sr.AlgorithmIdentification(
            name=ALGORITHM,
            version=weakray.__version__,
            parameters=[f"bundle sha256 {bundle.sha256}", f"bundle made by weakray {bundle.weakray}"],
        )
        device = sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(prefix=None, entropy_srcs=[bundle.sha256]), name=ALGORITHM, model_name=weakray.__version__
        )
        observer = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
        groups: list[Any] = [_run_group(film, answer, algorithm)]
        for finding in answer.findings:
            groups.append(_finding_group(film, finding, algorithm))
            groups += [_box_group(film, finding.finding, box, algorithm) for box in finding.boxes]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=observer),
            procedure_reported=own_concept("chest film reading", "Automatic reading of a chest film"),
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        report: Dataset = sr.ComprehensiveSR(
            evidence=[source],
            content=content[0],
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=ALGORITHM,
            is_complete=True,
            series_description="weakray: findings (research use, not verified)",
        )
    return report


def to_bytes(made: Dataset) -> bytes:
    """A data set as a DICOM file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def found_nothing(answer: ImageAnswer) -> bool:
    """Whether neither the classifiers nor the detector found anything."""
    return not any(finding.decision or finding.boxes for finding in answer.findings)


def check_same_film(source: Dataset, answer: ImageAnswer) -> None:
    """Refuses to speak of a film by another one's boxes.

    Raises:
        DataError: if the sizes differ.
    """
    size_hw = (int(source.Rows), int(source.Columns))
    if size_hw != (answer.height, answer.width):
        raise DataError(f"report: the film is {size_hw} px, the answer is for {(answer.height, answer.width)}")


def closed_polyline(xyxy_px: Sequence[float]) -> npt.NDArray[np.float32]:
    """The corners of a rectangle `(5, 2)` as column and row from the film's top left, the first again at the end."""
    x0, y0, x1, y1 = xyxy_px
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float32)


@dataclass(frozen=True)
class _Film:
    """How a report names its film.

    Attributes:
        class_uid: of its kind.
        instance_uid: of itself.
        frames: the one that was read, where there are several.
    """

    class_uid: str
    instance_uid: str
    frames: list[int] | None

    @classmethod
    def of(cls, source: Dataset) -> _Film:
        several = int(source.get("NumberOfFrames") or 1) > 1
        frames = [chosen_frame(source)] if several else None
        return cls(str(source.SOPClassUID), str(source.SOPInstanceUID), frames)


def _run_group(film: _Film, answer: ImageAnswer, algorithm: AlgorithmIdentification) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    boxes = sum(len(finding.boxes) for finding in answer.findings)
    present = sum(finding.decision for finding in answer.findings)
    result = own_concept("NOTHING", NOTHING) if found_nothing(answer) else own_concept("SOMETHING", SOMETHING)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier="the run as a whole"),
        finding_type=own_concept("RUN", "The run of the algorithm as a whole"),
        algorithm_id=algorithm,
        measurements=[
            _number("REGIONS", "Number of regions", boxes),
            _number("FINDINGS_PRESENT", "Number of findings present", present),
            _number("FINDINGS_LOOKED_FOR", "Number of findings looked for", len(answer.findings)),
        ],
        qualitative_evaluations=[
            _says(codes.DCM.SummaryOfDetections, codes.DCM.Succeeded),
            _says(codes.DCM.SummaryOfAnalyses, codes.DCM.Succeeded),
            _says(own_concept("RESULT", "Result of the run"), result),
        ],
        source_images=[_whole(film)],
    )


def _finding_group(film: _Film, finding: ImageFinding, algorithm: AlgorithmIdentification) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    probability = sr.Measurement(codes.DCM.CertaintyOfFinding, 100 * finding.probability, codes.UCUM.Percent)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier=f"{finding.finding}: whole film"),
        finding_type=finding_concept(finding.finding),
        algorithm_id=algorithm,
        measurements=[
            probability,
            _number("THRESHOLD", "Probability from which it counts as present", finding.threshold),
        ],
        qualitative_evaluations=[
            _says(codes.DCM.PresenceOfProperty, codes.DCM.Present if finding.decision else codes.DCM.Absent)
        ],
        source_images=[_whole(film)],
    )


def _box_group(film: _Film, finding: str, box: Box, algorithm: AlgorithmIdentification) -> Any:
    from highdicom import sr

    region = sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=closed_polyline(box.xyxy_px),
        source_image=sr.SourceImageForRegion(film.class_uid, film.instance_uid, film.frames),
    )
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(identifier=f"{finding}: region"),
        referenced_region=region,
        finding_type=finding_concept(finding),
        algorithm_id=algorithm,
        measurements=[_number("SCORE", "Detector score, from 0 to 1, not a probability", box.score)],
    )


def _whole(film: _Film) -> SourceImageForMeasurementGroup:
    from highdicom import sr

    return sr.SourceImageForMeasurementGroup(film.class_uid, film.instance_uid, film.frames)


def _number(value: str, meaning: str, number: float) -> Measurement:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.Measurement(own_concept(value, meaning), number, codes.UCUM.NoUnits)


def _says(name: Any, value: Any) -> QualitativeEvaluation:
    from highdicom import sr

    return sr.QualitativeEvaluation(name, value)
