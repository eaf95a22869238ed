"""Processes that keep cores from sleeping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.awake import awake
from benchmarks.processes import cpu_seconds, tree

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the system has no idle priority")

PATIENCE_S = 30.0


def others() -> list[int]:
    return tree(os.getpid())[1:]


def has_ended(pid: int) -> bool:
    """Gone, or nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(truth: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_process_of_idle_priority_computes_on_each_core() -> None:
    before, core = others(), min(os.sched_getaffinity(0))

    with awake([core, core]):
        (pid,) = set(others()) - set(before)
        wait_until(lambda: (cpu_seconds(pid) or 0) > 0.01)
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert os.sched_getaffinity(pid) == {core}

    assert others() == before


def test_it_ends_with_who_wanted_it() -> None:
    started = os.fork()
    if started == 0:  # a benchmark, which is killed
        with awake([min(os.sched_getaffinity(0))]):
            time.sleep(PATIENCE_S)
        os._exit(0)
    wait_until(lambda: len(tree(started)) == 2)
    spinning = tree(started)[1]

    os.kill(started, 9)
    os.waitpid(started, 0)

    wait_until(lambda: has_ended(spinning))
