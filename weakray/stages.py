"""Stages of a run: what each reads decides which may run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from weakray.config import StrictModel
from weakray.files import read_json
from weakray.tasks import Task, run_tasks


@dataclass(frozen=True)
class Stage:
    """A verb, the settings it is called with, and the run folder that says whether it is done.

    Attributes:
        name: unlike any other stage's.
        verb: can be pickled, as its result can.
        config: the settings; `config.out` is the folder of what the verb makes.
        folder: the run folder; in most stages `config.out` too.
    """

    name: str
    verb: Callable[[Any], Any]
    config: Any
    folder: Path

    def run(self, number: int) -> Any:
        """Calls the verb, which finds its own finished work, and says so."""
        before = self.begin(number)
        result = self.verb(self.config)
        self.end(before)
        return result

    def begin(self, number: int) -> bytes | None:
        """Says that the stage begins; gives what `end` wants to know."""
        before = self._done()
        print(f"[{number:2d}] {self.name}{'' if before is None else ' (found)'}", flush=True)
        return before

    def end(self, before: bytes | None) -> None:
        """Says so where the verb did anew what `begin` had found."""
        if before is not None and self._done() != before:
            print(f"     {self.name}: done anew, for its settings or what it reads had changed", flush=True)

    def _done(self) -> bytes | None:
        done = self.folder / "done.json"
        return done.read_bytes() if done.is_file() else None

    @property
    def seconds(self) -> float:
        """Wall time of the run that did the work."""
        return float(read_json(self.folder / "done.json")["seconds"])


def reads(stage: Stage, earlier: Sequence[Stage]) -> frozenset[str]:
    """Names of the earlier stages from which a stage reads: a path in its settings is, or lies in, a folder of theirs.

    Text counts as a path, for in free sections paths are text; other text names nothing that lies in a run.
    """
    inside = {part for path in _paths(stage.config) for part in (path, *path.parents)}
    return frozenset(
        one.name for one in earlier if one.config.out.resolve() in inside or one.folder.resolve() in inside
    )


def _paths(settings: Any) -> Iterator[Path]:
    if isinstance(settings, str | Path):
        yield Path(settings).resolve()
    elif isinstance(settings, StrictModel):
        yield from _paths(dict(settings))
    elif isinstance(settings, Mapping):
        yield from _paths(tuple(settings.values()))
    elif isinstance(settings, tuple | list | frozenset):
        for value in settings:
            yield from _paths(value)


def run_stages(stages: Sequence[Stage], at_once: int) -> dict[str, Any]:
    """Runs stages, each after those that it reads from, and says which begin.

    Args:
        stages: in the order that data flows.
        at_once: how many may run at the same time; see `run_tasks`.

    Returns:
        Name → what the verb gave.

    Raises:
        RunError: if a stage's process dies.
        Exception: what a verb raised.
    """
    number = {stage.name: i for i, stage in enumerate(stages, 1)}
    before = dict[str, bytes | None]()

    def begin(name: str) -> None:
        before[name] = stages[number[name] - 1].begin(number[name])

    def end(name: str) -> None:
        stages[number[name] - 1].end(before[name])

    tasks = [Task(one.name, partial(one.verb, one.config), reads(one, stages[:i])) for i, one in enumerate(stages)]
    return run_tasks(tasks, at_once, begin, end)
