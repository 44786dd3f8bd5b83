from __future__ import annotations

import os

import pytest

from weakray.cores import core_shares, usable_cores


def test_shares_are_disjoint_and_alike_and_what_is_left_over_stays_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {12, 3, 4, 9, 10}, raising=False)
    assert usable_cores() == 5
    assert core_shares(1) == [(3, 4, 9, 10, 12)]
    assert core_shares(2) == [(3, 4), (9, 10)]
    assert core_shares(5) == [(3,), (4,), (9,), (10,), (12,)]


def test_where_the_system_does_not_say_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert usable_cores() == 4
    assert core_shares(2) == [(0, 1), (2, 3)]
