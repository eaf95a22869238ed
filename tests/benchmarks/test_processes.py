"""Memory, as Linux tells it."""

from __future__ import annotations

import os
import time

from benchmarks.processes import cpu_seconds, parse_rollup, tree

ROLLUP = """5583d8c45000-7ffd7a3f9000 ---p 00000000 00:00 0                          [rollup]
Rss:              217600 kB
Pss:              175104 kB
Pss_Dirty:        150000 kB
Shared_Clean:      60000 kB
"""


def test_rollup_is_read_by_field() -> None:
    kib = parse_rollup(ROLLUP)

    assert kib["Rss"] == 217600
    assert kib["Pss"] == 175104
    assert len(kib) == 4


def test_tree_begins_with_the_process_itself() -> None:
    assert tree(os.getpid())[0] == os.getpid()


def test_cpu_time_of_a_process_grows_as_it_computes() -> None:
    before = cpu_seconds(os.getpid())

    while time.process_time() < (before or 0) + 0.1:
        pass

    assert cpu_seconds(os.getpid()) > before
