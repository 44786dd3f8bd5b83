"""The run folder of a stage: what it was asked, what it did, and whether it ended.

`config.yaml` as resolved, `environment.json`, `stage.json` (the key under which its files were made), `metrics.jsonl`,
`checkpoints/`, and at the end `done.json`. A finished stage whose key still matches is skipped; an interrupted
one finds its checkpoints; one with another key starts from an empty folder. One process at a time works in a folder:
it holds `.lock` until the stage ends or it does.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from weakray import __version__
from weakray.config import StrictModel, to_plain
from weakray.errors import RunError
from weakray.files import read_json, sha256_json, write_json, write_text, write_yaml

_STACK = (
    "numpy",
    "torch",
    "timm",
    "ultralytics",
    "onnxruntime",
    "optuna",
    "opencv-python-headless",
    "pandas",
    "pycocotools",
)
_LOCK = ".lock"
_PATIENCE_S = 10.0  # the loaders of a process that was killed hold its lock until they see that it is gone


@dataclass
class RunFolder:
    """One stage's folder, opened. Make it with `open_run`."""

    root: Path
    key: str
    started_s: float = field(default_factory=time.monotonic)
    lock: BaseFileLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Told to another process, it is the folder without the right to it, which stays with this one."""
        return {**self.__dict__, "lock": None}

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        path = self.root / "checkpoints"
        path.mkdir(exist_ok=True)
        return path

    def finished(self) -> dict[str, Any] | None:
        """The result in `done.json` when the stage ended under this key, else None."""
        path = self.root / "done.json"
        if not path.is_file():
            return None
        done = read_json(path)
        return dict(done["result"]) if done.get("key") == self.key else None

    @property
    def seconds(self) -> float:
        """Wall time of the attempt that ended the stage; what interrupted ones took is not in it."""
        return float(read_json(self.root / "done.json")["seconds"])

    def log(self, **values: float | str | None) -> None:
        """Appends a line to `metrics.jsonl`."""
        with (self.root / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a last line cut by a kill is dropped."""
        path = self.root / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def keep_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Rewrites `metrics.jsonl`: on resume, lines past the checkpoint are done again and must not stand twice."""
        write_text(self.root / "metrics.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the stage as ended. `result` is what the next run of the same stage returns without doing it."""
        seconds = round(time.monotonic() - self.started_s, 3)
        write_json(self.root / "done.json", {"key": self.key, "seconds": seconds, "result": dict(result)})
        if self.lock is not None:
            Path(self.lock.lock_file).unlink(missing_ok=True)  # its name goes first: whoever waits makes another
            self.lock.release(force=True)


def open_run(root: Path, config: StrictModel, inputs: Mapping[str, str]) -> RunFolder:
    """Opens a stage's run folder, emptied unless its files were made under the same config and inputs.

    Args:
        root: the folder; made where missing.
        config: the stage's settings; its paths are settings too, so they belong to the key only through `inputs`.
        inputs: name → hash of everything the stage reads.

    Raises:
        RunError: if the folder holds files and no `stage.json`: it is not ours to empty; or if another process is at
            work in it.
    """
    run = RunFolder(root, _key(config, inputs))
    stamp = root / "stage.json"
    if stamp.is_file():
        if read_json(stamp)["key"] == run.key and run.finished() is not None:
            return run
    elif root.is_dir() and any(path.name != _LOCK for path in root.iterdir()):
        raise RunError(f"{root}: holds files that no stage of weakray made; name an empty or new folder")
    run.lock = _lock(root)
    if stamp.is_file() and read_json(stamp)["key"] != run.key:
        _empty(root)
    if not stamp.is_file():
        write_json(stamp, {"key": run.key, "inputs": dict(inputs)})
        write_yaml(root / "config.yaml", to_plain(config))
        write_json(root / "environment.json", environment())
    return run


def _lock(root: Path) -> BaseFileLock:
    """The right to work in a folder, which this process keeps until it gives it back or ends."""
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.resolve() / _LOCK, _PATIENCE_S, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{root}: another process is at work in it; wait until it ends, or end it") from None
    return lock


def _empty(root: Path) -> None:
    """Killed in between it leaves a stage that has not ended: what says so goes first, what makes it ours last."""
    for path in sorted(root.iterdir(), key=lambda path: (path.name == "stage.json", path.name != "done.json")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def finished_inputs(root: Path, config: StrictModel) -> dict[str, str] | None:
    """Name → hash of what a finished stage read, if its settings were these; else None. Changes nothing."""
    stamp, done = root / "stage.json", root / "done.json"
    if not (stamp.is_file() and done.is_file()):
        return None
    made = read_json(stamp)
    inputs: dict[str, str] = made["inputs"]
    return inputs if made["key"] == read_json(done)["key"] == _key(config, inputs) else None


def _key(config: StrictModel, inputs: Mapping[str, str]) -> str:
    hashed = {name: value for name, value in to_plain(config).items() if name not in getattr(config, "unhashed", ())}
    return sha256_json({"config": hashed, "inputs": dict(inputs)})


def commit() -> str:
    """The checked-out commit weakray runs from, `+changes` where the tree differs; installed, its version."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return f"weakray {__version__}"

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def environment() -> dict[str, Any]:
    """Python, platform, cores and the versions of what figures depend on."""
    versions: dict[str, str] = {}
    for name in _STACK:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
    }
