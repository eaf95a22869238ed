from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from service.loading.memory import give_back

_STATUS = Path("/proc/self/status")


def _resident_kib() -> int:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


@pytest.mark.skipif(
    not _STATUS.exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="resident memory is read in Linux's /proc, and given back by glibc",
)
def test_freed_memory_goes_back_to_the_system() -> None:
    # Small blocks, of which the last one stays: the C library cannot shrink its heap from the end.
    blocks = [np.ones(6_000) for _ in range(1_500)]
    last = np.ones(6_000)
    del blocks
    before = _resident_kib()

    give_back()

    assert _resident_kib() < before - 10_000
    assert last.sum() == 6_000


def test_where_it_cannot_be_given_back_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())

    give_back()
