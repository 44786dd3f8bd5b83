"""The same for viewers that show no structured report: a picture of the film with boxes and words drawn into it.

It is a new image in a series of its own, marked as derived, as a secondary capture, and as holding drawn-in text; it
names the film that it was made of, whose own pixels are not touched. Its size is the film's, so that boxes can be
measured, and its grey is the 8 bits that the models' input was made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

import weakray
from serve.answers import BundleName, ImageAnswer
from serve.structured_report import ALGORITHM, NOTHING, SERIES_NUMBER, check_same_film, found_nothing
from weakray.dicom.pixels import chosen_frame
from weakray.dicom.reading import damage, pydicom_module
from weakray.imaging import Image, to_channels

if TYPE_CHECKING:
    from pydicom import Dataset

# RGB, told apart by the colour-blind too (Okabe and Ito 2008)
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def secondary_capture(source: Dataset, image: Image, answer: ImageAnswer, bundle: BundleName) -> Dataset:
    """A picture of what was found on one film.

    Args:
        source: the film's header, by `serve.report_source.read_source`.
        image: the film in 8 bits, as it was decoded for the answer.
        answer: what was found on it.
        bundle: what found it.

    Raises:
        DataError: if the answer is for a film of another size, or the header cannot be repeated.
    """
    pydicom_module()
    import highdicom as hd
    from highdicom.sc import SCImage
    from pydicom import Dataset as PlainDataset

    check_same_film(source, answer)
    with damage("report", "the film's header"):
        made: Dataset = SCImage.from_ref_dataset(
            source,
            pixel_array=drawn(image, answer, bundle),
            photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system=hd.CoordinateSystemNames.PATIENT,
            patient_orientation=_orientation(source),
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=ALGORITHM,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        made.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        made.BurnedInAnnotation = "YES"
        made.SeriesDescription = "weakray: picture of findings (research use, not verified)"
        made.DerivationDescription = (
            f"boxes and words drawn by {ALGORITHM} {weakray.__version__}, bundle {bundle.sha256}"
        )
        made.SoftwareVersions = weakray.__version__
        reference: Any = PlainDataset()
        reference.ReferencedSOPClassUID = source.SOPClassUID
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        if int(source.get("NumberOfFrames") or 1) > 1:
            reference.ReferencedFrameNumber = chosen_frame(source)
        made.SourceImageSequence = [reference]
    return made


def drawn(image: Image, answer: ImageAnswer, bundle: BundleName) -> Image:
    """The film in colour `(h, w, 3)` with each box, its finding and score, and a line on the run, drawn into a copy."""
    out = np.ascontiguousarray(to_channels(image, 3)).copy()
    height = out.shape[0]
    scale, line = max(0.35, height / 1500), max(1, round(height / 500))
    for at, finding in enumerate(answer.findings):
        colour = _COLOURS[at % len(_COLOURS)]
        for box in finding.boxes:
            x0, y0, x1, y1 = (round(edge) for edge in box.xyxy_px)
            cv2.rectangle(out, (x0, y0), (x1 - 1, y1 - 1), colour, line)
            _write(
                out, f"{finding.finding} {box.score:.2f}", (x0, max(y0 - 2 * line, round(24 * scale))), colour, scale
            )
    present = ", ".join(f"{f.finding} {100 * f.probability:.0f} %" for f in answer.findings if f.decision)
    told = NOTHING if found_nothing(answer) else f"present: {present or 'none by the classifiers; see the boxes'}"
    run = f"{ALGORITHM} {weakray.__version__}, bundle {bundle.sha256[:8]}, research use"
    _write(out, f"{run}: {told}", (4, height - 6), _WHITE, scale)
    return np.asarray(out, np.uint8)


def _write(out: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Words with a dark edge; letters that the font lacks become question marks."""
    plain = text.encode("ascii", "replace").decode()
    for shade, thickness in ((_BLACK, 3), (colour, 1)):
        cv2.putText(out, plain, at, _FONT, scale, shade, thickness, cv2.LINE_AA)


def _orientation(source: Dataset) -> tuple[str, str]:
    """The film's own where its header tells it, else that of a frontal film as it hangs."""
    told: Any = source.get("PatientOrientation") or ()
    return (str(told[0]), str(told[1])) if len(told) == 2 and all(told) else ("L", "F")
