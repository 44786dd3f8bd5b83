"""Writes a bundle as a whole: built beside its place, checked, tried, then renamed."""

from __future__ import annotations

import shutil
from pathlib import Path

from weakray.bundle import manifest as form
from weakray.bundle.manifest import ClassifierPart, DetectorPart, Manifest, Origin
from weakray.bundle.runtime import Bundle
from weakray.files import fresh_folder, write_text
from weakray.imaging import Image
from weakray.taxonomy import Taxonomy


def write_bundle(
    folder: Path,
    *,
    detector_onnx: Path,
    classifiers_onnx: Path,
    recipe: Path,
    taxonomy: Taxonomy,
    detector: DetectorPart,
    classifiers: ClassifierPart,
    origin: Origin,
    trial: Image,
) -> Manifest:
    """Writes a bundle to `folder`; one that stood there is replaced whole.

    Nothing stands under the final name until the new bundle has been verified and has predicted on `trial`; an
    interrupted call leaves at most a folder whose name begins with a dot, which the next call removes.

    Args:
        folder: the bundle's place.
        detector_onnx: the exported detector; copied.
        classifiers_onnx: the exported classifiers; copied.
        recipe: `recipe.yaml`; copied.
        taxonomy: the findings.
        detector: how the detector is fed and read.
        classifiers: how the classifiers are fed and read.
        origin: what it was all made from.
        trial: an image to predict on before the bundle counts as made.

    Raises:
        BundleError: if the parts do not fit together.
    """
    made = fresh_folder(folder.with_name(f".{folder.name}.part"))
    for name, source in ((form.DETECTOR, detector_onnx), (form.CLASSIFIERS, classifiers_onnx), (form.RECIPE, recipe)):
        shutil.copyfile(source, made / name)
    taxonomy.save(made / form.TAXONOMY)
    write_text(made / form.README, _card(taxonomy, detector, classifiers, origin))
    files = {name: form.record(made / name) for name in (*form.REQUIRED, form.README)}
    manifest = Manifest(origin=origin, detector=detector, classifiers=classifiers, files=files)
    form.save(made, manifest)
    Bundle.load(made).predict([trial])
    _swap_in(made, folder)
    return manifest


def _swap_in(made: Path, folder: Path) -> None:
    # A folder that holds files cannot be renamed over: the old one steps aside first. A kill between the two renames
    # leaves no bundle rather than half of one.
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    made.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _card(taxonomy: Taxonomy, detector: DetectorPart, classifiers: ClassifierPart, origin: Origin) -> str:
    rows = "\n".join(
        f"| {name} | {classifiers.decision_thresholds[name]:.3g} | {detector.score_thresholds[name]:.3g} |"
        for name in taxonomy.names
    )
    agree = detector.parity_passed and classifiers.parity_passed
    parity = (
        "agree with the torch models" if agree else "DIFFER from the torch models more than allowed; export was forced"
    )
    return f"""# A weakray bundle

Detects findings in images with a detector and an ensemble of {len(classifiers.members)} classifiers, both learned from
image-level labels of the dataset `{origin.dataset}` (SHA-256 {origin.dataset_sha256[:12]}…). Made for research; not a
medical device, not validated on any patient.

| finding | present from probability | box shown from score |
|---|---|---|
{rows}

Calibration: {classifiers.calibration}

The graphs {parity}.

`weakray.bundle.runtime.Bundle.load(folder).predict(images)` runs it without torch. `bundle.json` holds the hash of
every file; a bundle with a changed, missing or added file is refused.
"""
