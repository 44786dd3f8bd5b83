"""Order, any number of workers, and a process that dies."""

from __future__ import annotations

import os

import pytest

from ingest.processes import in_processes


def _double(item: int) -> int:
    if item == 5:
        os._exit(1)
    return 2 * item


def _crashed(item: int) -> int:
    return -item


def _square(item: int) -> int:
    return item * item


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_processes(_square, range(30), workers, _crashed)) == [item * item for item in range(30)]
    assert list(in_processes(_square, [], workers, _crashed)) == []


def test_a_process_that_dies_costs_its_item_alone() -> None:
    assert list(in_processes(_double, range(8), 2, _crashed)) == [0, 2, 4, 6, 8, -5, 12, 14]
