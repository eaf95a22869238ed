"""An engine in the process that owns the device, and what is done when the device fails under it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from service.core.contracts import Engine
from service.core.errors import CannotAnswer
from service.core.table import Frame, Matrix, Table, Values, take
from service.runtimes.device_errors import DeviceUnavailable, is_out_of_memory, is_sticky
from service.scheduling.answers import stacked

_log = logging.getLogger(__name__)

# Computed by the thread that read the request: a hand-over to another would take a good part of that. Longer calls
# would keep that thread from reading, and what it does not read cannot join a batch.
SHORT_S: Final = 0.001


class Watch:
    """Whether something has been running for longer than `limit_s`. Safe to call from any thread."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since: dict[int, float] = {}

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = self._clock()

    def __exit__(self, *exception: object) -> None:
        self._since.pop(threading.get_ident(), None)

    def is_past_hope(self) -> bool:
        # A copy in one step: other threads come and go while this one looks.
        return any(self._clock() - since > self._limit_s for since in list(self._since.values()))


class GuardedEngine:
    """Halves a batch once when memory runs out, and leaves the process when a CUDA error has poisoned it."""

    def __init__(
        self,
        engine: Engine,
        watch: Watch,
        leave: Callable[[BaseException], object],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`leave` ends the process; it does not return, except in tests."""
        self._engine = engine
        self._watch = watch
        self._leave = leave
        self._clock = clock
        self.is_reentrant = engine.is_reentrant
        self._lately_s: dict[int, float] = {}

    def is_short(self, n_rows: int) -> bool:
        """Whether the last call of about so many rows took less than a millisecond."""
        return self._lately_s.get(n_rows.bit_length(), math.inf) < SHORT_S

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """As the engine, and:

        Raises:
            DeviceUnavailable: half the rows were too many, too.
        """
        # The engine may work in place on what it gets, so a second try needs rows of its own.
        spare = _copy(rows) if rows.n_rows > 1 else None
        try:
            return self._call(rows, outputs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("the device has no memory for %d rows: %s", rows.n_rows, error)
            if spare is None:
                raise DeviceUnavailable("the device has no memory for this request") from error
        try:
            return self._in_halves(spare, outputs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceUnavailable("the device has no memory for this request") from error

    def _in_halves(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        n = rows.n_rows
        parts, refused, why = [], np.zeros(n, dtype=bool), ""
        for half in (np.arange(n // 2), np.arange(n // 2, n)):
            try:
                parts.append(self._call(take(rows, half), outputs))
            except CannotAnswer as error:
                refused[half] = error.rows
                why = str(error)
        if why:
            raise CannotAnswer(why, refused)
        return {name: stacked([part[name] for part in parts]) for name in outputs}

    def _call(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        begin = self._clock()
        try:
            with self._watch:
                answers = self._engine.run(rows, outputs)
        except Exception as error:
            if is_sticky(error):
                self._leave(error)
            raise
        self._lately_s[rows.n_rows.bit_length()] = self._clock() - begin
        return answers


def _copy(table: Table) -> Table:
    if isinstance(table, Matrix):
        return Matrix(table.values.copy())
    return Frame({name: values.copy() for name, values in table.columns.items()})
