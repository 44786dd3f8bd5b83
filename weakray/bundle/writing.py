"""Writes a bundle as a whole: built beside its place, checked, tried, then renamed."""

from __future__ import annotations

import shutil
from pathlib import Path

from weakray.bundle import manifest as form
from weakray.bundle.card import CardFacts, model_card
from weakray.bundle.manifest import ClassifierPart, DetectorPart, Manifest, Origin
from weakray.bundle.runtime import Bundle, Engine
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
    openvino: Path | None = None,
    facts: CardFacts | None = None,
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
        openvino: folder with `detector.xml` and `detector.bin`, copied; required where `detector.openvino` is set.
        facts: what the model card tells beside.

    Raises:
        BundleError: if the parts do not fit together.
    """
    made = fresh_folder(folder.with_name(f".{folder.name}.part"))
    sources = {form.DETECTOR: detector_onnx, form.CLASSIFIERS: classifiers_onnx, form.RECIPE: recipe}
    if openvino is not None:
        sources |= {name: openvino / name for name in form.OPENVINO}
    for name, source in sources.items():
        shutil.copyfile(source, made / name)
    taxonomy.save(made / form.TAXONOMY)
    write_text(made / form.README, model_card(taxonomy, detector, classifiers, origin, facts or CardFacts()))
    files = {name: form.record(made / name) for name in dict.fromkeys((*form.REQUIRED, *sources, form.README))}
    manifest = Manifest(origin=origin, detector=detector, classifiers=classifiers, files=files)
    form.save(made, manifest)
    engines: tuple[Engine, ...] = ("onnxruntime",) if detector.openvino is None else ("onnxruntime", "openvino")
    for engine in engines:
        Bundle.load(made, engine=engine).predict([trial])
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
