"""The bundle that answers now, and its exchange for another while requests are under way."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.answers import BundleName, Models, ServedFinding
from weakray.bundle.manifest import MANIFEST, read
from weakray.bundle.runtime import Bundle
from weakray.bundle.runtime import Engine as Library
from weakray.errors import BundleError
from weakray.files import sha256_file

_TRIAL_HW = (64, 48)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bundle in memory.

    Attributes:
        bundle: checked, loaded, and tried with every output.
        sha256: of its `bundle.json`.
    """

    bundle: Bundle
    sha256: str

    @property
    def name(self) -> BundleName:
        """What answers call it."""
        return BundleName(weakray=self.bundle.manifest.weakray, sha256=self.sha256)

    def models(self) -> Models:
        """What `GET /v1/models` says of it."""
        manifest = self.bundle.manifest
        return Models(
            weakray=manifest.weakray,
            format_version=manifest.format_version,
            bundle_sha256=self.sha256,
            files={name: entry.sha256 for name, entry in manifest.files.items()},
            origin=manifest.origin.model_dump(),
            findings=[
                ServedFinding(
                    name=finding.name,
                    parent=finding.parent,
                    threshold=manifest.classifiers.decision_thresholds[finding.name],
                    score_threshold=manifest.detector.score_thresholds[finding.name],
                )
                for finding in self.bundle.taxonomy.findings
            ],
            members=len(manifest.classifiers.members),
            maps=manifest.classifiers.maps,
        )


class Engine:
    """Holds the bundle that answers. A request keeps the one it began with, so an exchange costs none of them.

    Args:
        path: bundle folder, or a link to one.
        threads: threads of one pass; None leaves the choice to the library that runs the graphs.
        library: which that is; auto: OpenVINO for what the bundle ships for it, else onnxruntime.
        most: images of one pass at most. The largest pass is run once before the first request, so that its memory is
            taken when the server starts and not when it is busy.

    Raises:
        BundleError: if the bundle is not whole or does not run.
    """

    def __init__(self, path: Path, threads: int | None, library: Library = "auto", most: int = 1) -> None:
        self._path, self._threads, self._library, self._most = path, threads, library, most
        self._exchanging = threading.Lock()
        self.current = self._load()

    def reload(self) -> bool:
        """Reads the path again, follows the link anew, and answers with what stands there from the next request on.

        Returns:
            Whether it is another bundle than before.

        Raises:
            BundleError: if what stands there is not whole or does not run; the bundle before stays.
        """
        with self._exchanging:
            loaded = self._load()
            changed = loaded.sha256 != self.current.sha256
            if changed:
                self.current = loaded
            return changed

    def _load(self) -> Loaded:
        folder = self._path.resolve()  # a link that moves while its files are read must not mix two bundles
        bundle = Bundle.load(folder, self._threads, self._library)
        sha256 = sha256_file(folder / MANIFEST)
        if read(folder) != bundle.manifest:
            raise BundleError(f"{folder}: was exchanged while it was read; try again")
        for images in sorted({1, self._most}):
            bundle.predict([np.zeros(_TRIAL_HW, np.uint8)] * images, with_maps=True)
        return Loaded(bundle, sha256)
