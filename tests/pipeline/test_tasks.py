"""Tasks side by side: their order, their share of the cores, and how they end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from tests.pipeline.conftest import ROOT
from weakray.cores import core_shares
from weakray.errors import ConfigError, RunError
from weakray.tasks import Task, run_tasks
from weakray.worker import Worker

# With one core `run_tasks` starts no process, whatever it is asked: there is none to share cores with, or to end.
several_cores = pytest.mark.usefixtures("all_cores")


def nothing(_: str) -> None:
    pass


def waits_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} never came"
        time.sleep(0.01)


def meets(folder: Path, own: str, other: str) -> int:
    """Ends only if the other runs at the same time."""
    (folder / own).touch()
    waits_for(folder / other)
    return os.getpid()


def sleeps(told: Path) -> None:
    """Names this process and one of its own, which sleep too long for a test."""
    child = subprocess.Popen(["sleep", "60"])
    told.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}")
    told.with_suffix(".part").rename(told)
    time.sleep(60)


def raises(other: Path, error: Exception) -> None:
    waits_for(other)
    raise error


def raises_what_cannot_be_sent(other: Path) -> None:
    class OwnError(Exception):
        pass

    raises(other, OwnError("of its own"))


def dies(other: Path) -> None:
    waits_for(other)
    os.kill(os.getpid(), signal.SIGKILL)


def surroundings() -> tuple[Any, ...]:
    """Cores, threads of the libraries, and row of a progress bar."""
    import torch

    from detect.compute import torch_threads

    with torch_threads(None) as in_detect, tqdm(total=1, file=io.StringIO()) as bar:
        row = abs(bar.pos)
    return tuple(sorted(os.sched_getaffinity(0))), torch.get_num_threads(), in_detect, row


def gone(pid: int) -> bool:
    """Whether a process has ended, within a moment; nobody may have asked for its exit code yet."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def all_gone(told: Path) -> bool:
    return all(gone(int(pid)) for pid in told.read_text().split())


def test_one_at_a_time_runs_here_and_in_order() -> None:
    said = list[str]()
    tasks = [Task(name, os.getpid, frozenset(after)) for name, after in (("a", ""), ("b", "a"), ("c", ""))]
    results = run_tasks(tasks, 1, said.append, lambda name: said.append(f"/{name}"))
    assert results == dict.fromkeys("abc", os.getpid())
    assert said == ["a", "/a", "b", "/b", "c", "/c"]


@several_cores
def test_tasks_run_beside_one_another_as_soon_as_what_they_wait_for_is_done(tmp_path: Path) -> None:
    said = list[str]()
    tasks = [
        Task("first", os.getpid),
        Task("short", os.getpid, frozenset({"first"})),
        Task("long", partial(meets, tmp_path, "long", "late"), frozenset({"first"})),
        Task("late", partial(meets, tmp_path, "late", "long"), frozenset({"short"})),  # while long still runs
        Task("last", os.getpid, frozenset({"long", "late"})),
    ]
    found = run_tasks(tasks, 2, said.append, lambda name: said.append(f"/{name}"))
    assert found["first"] == found["last"] == os.getpid()  # nothing can run beside them: they have all cores
    assert len({os.getpid(), found["long"], found["late"]}) == 3
    assert said[:4] == ["first", "/first", "short", "long"]
    assert said[4:6] == ["/short", "late"]
    assert sorted(said[6:8]) == ["/late", "/long"]
    assert said[8:] == ["last", "/last"]


@several_cores
def test_each_process_keeps_to_its_cores_threads_and_row() -> None:
    before = dict(os.environ), os.sched_getaffinity(0), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    results = run_tasks([Task("a", surroundings), Task("b", surroundings)], 2, nothing, nothing)
    mine, other = core_shares(2)
    assert sorted(results.values()) == [(mine, len(mine), len(mine), 0), (other, len(mine), len(mine), 1)]
    assert before == (dict(os.environ), os.sched_getaffinity(0), signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_no_more_run_at_once_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weakray.tasks.usable_cores", lambda: 1)
    tasks = [Task("a", os.getpid), Task("b", os.getpid)]
    assert run_tasks(tasks, 2, nothing, nothing) == {"a": os.getpid(), "b": os.getpid()}


DIED = "fails: its process ended with code -9 (SIGKILL: killed, perhaps for want of memory)"


@several_cores
@pytest.mark.parametrize(
    ("fails", "error", "message"),
    [
        (partial(raises, error=ConfigError("a.b: wrong")), ConfigError, "a.b: wrong"),
        (partial(raises, error=KeyError("a bug")), KeyError, "'a bug'"),
        (raises_what_cannot_be_sent, RuntimeError, "OwnError: of its own"),
        (dies, RunError, f"{DIED}; run the same again to go on where it stopped"),
    ],
    ids=["ours", "bug", "unsendable", "killed"],
)
def test_the_first_failure_ends_all(
    tmp_path: Path, fails: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    told, ended, started_s = tmp_path / "told", list[str](), time.monotonic()
    tasks = [Task("sleeps", partial(sleeps, told)), Task("fails", partial(fails, told)), Task("never", os.getpid)]
    with pytest.raises(error) as caught:
        run_tasks(tasks, 2, nothing, ended.append)
    assert time.monotonic() - started_s < 30
    assert str(caught.value) == message
    assert ended == []
    assert all_gone(told)
    if fails is not dies:
        assert "in raises\n    raise error" in caught.value.__notes__[0]  # where it happened


SCRIPT = """
import signal
import sys
from functools import partial
from pathlib import Path
from tests.pipeline.test_tasks import nothing, sleeps
from weakray.tasks import Task, run_tasks
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background
tasks = [Task(path, partial(sleeps, Path(path))) for path in sys.argv[1:]]
try:
    run_tasks(tasks, 2, nothing, nothing)
except KeyboardInterrupt:
    sys.exit(130)
"""


@several_cores
@pytest.mark.parametrize("ctrl_c", [True, False], ids=["ctrl-c", "kill"])
def test_they_end_with_their_parent(tmp_path: Path, ctrl_c: bool) -> None:
    told = [tmp_path / "a", tmp_path / "b"]
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, told)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    for path in told:
        waits_for(path)
    if ctrl_c:
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    else:
        parent.kill()
    out, err = parent.communicate(timeout=20)  # to the end of all that could still write
    assert all(all_gone(path) for path in told)
    assert parent.returncode == (130 if ctrl_c else -signal.SIGKILL)
    assert out == ""
    if ctrl_c:
        assert err == ""


def test_a_process_whose_answer_nobody_takes_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = get_context("spawn").RLock()  # is gone with its last reference here, before the process has found it
    worker = Worker(0, core_shares(1)[0], terminal)
    worker.begin(os.getpid)
    assert worker.pipe.poll(30)  # the answer lies there, unread
    worker.let_go()
    worker.end(30)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "tasks", [[Task("a", os.getpid, frozenset("b")), Task("b", os.getpid)], [Task("a", os.getpid)] * 2]
)
def test_a_wrong_order_and_a_name_given_twice_are_refused(tasks: list[Task]) -> None:
    with pytest.raises(ValueError, match="a: expected a new name, and to wait for earlier tasks"):
        run_tasks(tasks, 2, nothing, nothing)
