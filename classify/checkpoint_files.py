"""Checkpoints on disk: the newest and the one before, so that a broken file does not cost a training.

A checkpoint is `NUMBER.json`, which names tensor files and their hashes and is written last: a kill between two files
leaves the checkpoints before. It holds where training stands, the state that a figure which is not finite would send it
back to, and the best epoch's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from classify.checkpoint import Checkpoint, Progress, Tensors
from weakray.errors import DataError, RunError
from weakray.files import read_json, replacing, sha256_file, write_json

_KEPT = 2


@contextmanager
def writing(folder: Path, left: str) -> Iterator[None]:
    """Turns a failure to write, e.g. on a full disk, into an error that says what is left.

    Raises:
        RunError: if the block raises an error of the disk.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{folder}: could not write ({error}); {left}; make room on the disk and run the same command again"
        ) from None


@dataclass(frozen=True)
class Found:
    """What a folder held.

    Attributes:
        now: where training stands.
        earlier: what it may be sent back to.
        best: weights of the best epoch, None before the first.
        unusable: file and reason of each newer checkpoint that is broken.
    """

    now: Checkpoint
    earlier: Checkpoint
    best: Tensors | None
    unusable: list[tuple[str, str]]


@dataclass
class CheckpointFiles:
    """A run's checkpoint folder.

    Attributes:
        folder: where.
    """

    folder: Path
    _entries: dict[str, dict[str, str]] = field(default_factory=dict)  # tensor file's purpose and place → its entry
    _place: str | None = None

    def save(self, now: Checkpoint, earlier: Checkpoint, best: Tensors | None) -> None:
        """Writes a checkpoint, and removes all but it and the one before.

        Raises:
            RunError: if it cannot be written, e.g. on a full disk; the checkpoints before stay.
        """
        number = max((int(path.stem) for path in self._manifests()), default=0) + 1
        progress = now.progress
        with self.writing():
            state = self._entry(_named("state", now), now.tensors, number)
            content: dict[str, Any] = {"now": _counts(now) | state, "earlier": None, "best": None}
            if earlier.progress.place != progress.place:
                content["earlier"] = _counts(earlier) | self._entry(_named("state", earlier), earlier.tensors, number)
            if best is not None:
                content["best"] = self._entry(f"best-{progress.best_epoch:04d}", best, number)
            write_json(self.folder / f"{number:06d}.json", content)
        self._place = f"epoch {progress.epoch + 1}, batch {progress.batch + 1}"
        self._sweep(keep=self._manifests()[:_KEPT])

    def writing(self) -> AbstractContextManager[None]:
        """`writing` into the run folder; the error says which checkpoint is left."""
        left = "no checkpoint was written yet" if self._place is None else f"the checkpoint at {self._place} is whole"
        return writing(self.folder.parent, left)

    def load(self) -> Found | None:
        """The newest checkpoint whose files are whole; None where there is none at all.

        Raises:
            RunError: if there are checkpoints and none can be used.
        """
        unusable: list[tuple[str, str]] = []
        for manifest in self._manifests():
            try:
                found = self._read(read_json(manifest), unusable)
            except (DataError, OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                unusable.append((manifest.name, " ".join(str(error).split())))
                continue
            progress = found.now.progress
            self._place = f"epoch {progress.epoch + 1}, batch {progress.batch + 1}"
            manifests = self._manifests()
            self._sweep(keep=manifests[manifests.index(manifest) :][:_KEPT])
            return found
        if unusable:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unusable)
            raise RunError(f"{self.folder}: no checkpoint can be used ({reasons}); remove the run folder")
        return None

    def _read(self, content: dict[str, Any], unusable: list[tuple[str, str]]) -> Found:
        self._entries.clear()
        now = self._checkpoint(content["now"])
        earlier = now if content["earlier"] is None else self._checkpoint(content["earlier"])
        best = None
        if content["best"] is not None:
            best = self._tensors(content["best"], f"best-{now.progress.best_epoch:04d}")
        return Found(now, earlier, best, unusable)

    def _checkpoint(self, content: dict[str, Any]) -> Checkpoint:
        bare = Checkpoint(Progress(**content["progress"]), {}, content["scaler"])
        return Checkpoint(bare.progress, self._tensors(content, _named("state", bare)), bare.scaler)

    def _tensors(self, content: dict[str, Any], key: str) -> Tensors:
        path = self.folder / content["file"]
        if sha256_file(path) != content["sha256"]:
            raise DataError(f"{path.name} is not what was written")
        self._entries[key] = {"file": content["file"], "sha256": content["sha256"]}
        return load_file(path)

    def _entry(self, key: str, tensors: Tensors, number: int) -> dict[str, str]:
        """Name and hash of the file that holds these tensors, written unless an earlier checkpoint has done so."""
        if key in self._entries:
            return self._entries[key]
        path = self.folder / f"{key}-{number:06d}.safetensors"
        with replacing(path) as temporary:
            save_file(tensors, temporary)
            sha256 = sha256_file(temporary)
        self._entries[key] = {"file": path.name, "sha256": sha256}
        return self._entries[key]

    def _manifests(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("[0-9]*.json"), reverse=True)

    def _sweep(self, keep: list[Path]) -> None:
        """Removes every file that these checkpoints do not name."""
        named = {path.name for path in keep}
        for manifest in keep:
            named |= {part["file"] for part in read_json(manifest).values() if part is not None}
        self._entries = {key: entry for key, entry in self._entries.items() if entry["file"] in named}
        for path in self.folder.iterdir():
            if path.name not in named:
                path.unlink()


def _named(what: str, checkpoint: Checkpoint) -> str:
    """Names a state by its place, and by how often training was sent back before: it is passed anew then."""
    phase, epoch, batch = checkpoint.progress.place
    return f"{what}-{phase}-{epoch:04d}-{batch:06d}-{checkpoint.progress.rollbacks}"


def _counts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"progress": asdict(checkpoint.progress), "scaler": checkpoint.scaler}
