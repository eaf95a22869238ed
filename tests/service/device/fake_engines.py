"""What a device's process holds, without a device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from service.core.table import Matrix, Table, Values

PATIENCE_S: Final = 30.0


class Engine:
    """Answers with its rows, once `gate` is open; `batches` are the numbers of rows that came together."""

    is_reentrant = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.batches: list[int] = []

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        self.begun.set()
        self.gate.wait(PATIENCE_S)
        self.batches.append(rows.n_rows)
        return dict.fromkeys(outputs, rows.values[:, 0])


class Opener:
    """Opens `engine`, whatever is asked for, and counts; or raises `error` if there is one."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.opened = 0
        self.error: BaseException | None = None

    def __call__(self, spec: dict[str, Any]) -> Engine:
        self.opened += 1
        if self.error is not None:
            raise self.error
        return self.engine
