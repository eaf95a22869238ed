"""Engines for a process of their own: `open_engine` is what its host is told to use.

What an engine does is in its spec, and in the first number of its rows.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import CannotAnswer, RowsRefused
from service.core.table import Matrix, Table, Values

DIE: Final = -1.0
HANG: Final = -2.0
HANG_WITH_LOCK: Final = -3.0
POISON: Final = -4.0
REFUSE: Final = -5.0
UNSURE: Final = -6.0
BUG: Final = -7.0


class CUDARuntimeError(RuntimeError):
    """Known by its words, as that of `cupy_backends.cuda.api.runtime` is."""


class Doubling:
    """Twice the rows, and whatever else the first number stands for.

    `most_rows` are what its memory holds; `begun` is a pipe that is told of each call.
    """

    is_reentrant = False

    def __init__(self, most_rows: int = 10**9, begun: str | None = None) -> None:
        self._most_rows = most_rows
        self._begun = begun

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        if rows.n_rows > self._most_rows:
            raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
        if self._begun is not None:
            with open(self._begun, "w") as pipe:
                pipe.write("begun\n")
        special = _SPECIAL.get(float(rows.values[0, 0]))
        if special is not None:
            special()
        values = rows.values
        values *= 2  # in place, as an engine may
        answers: dict[str, Values] = {}
        for name in outputs:
            answers[name] = np.full(rows.n_rows, os.getpid()) if name == "pid" else values
        return answers


def open_engine(spec: dict[str, Any]) -> Doubling:
    if "unusable" in spec:
        raise EstimatorUnusable(spec["unusable"])
    if "broken" in spec:
        raise OSError(spec["broken"])
    if "opened" in spec:  # a line for each time that it was
        with open(spec["opened"], "a") as log:
            log.write("opened\n")
    return Doubling(spec.get("most_rows", 10**9), spec.get("begun"))


def _hang() -> None:
    time.sleep(600)


def _raise(error: Exception) -> None:
    raise error


_SPECIAL: Final[dict[float, Callable[[], object]]] = {
    DIE: lambda: os.kill(os.getpid(), signal.SIGKILL),
    HANG: _hang,
    # PyDLL keeps the interpreter lock while C sleeps, as nvForest does while it computes.
    HANG_WITH_LOCK: lambda: ctypes.PyDLL(None).sleep(600),
    POISON: lambda: _raise(CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")),
    REFUSE: lambda: _raise(RowsRefused()),
    UNSURE: lambda: _raise(CannotAnswer("too close", np.array([True]), {"predict": np.array([7.0])})),
    BUG: lambda: _raise(ZeroDivisionError("secret")),
}
