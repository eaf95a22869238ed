"""The estimator of a version, closed until somebody asks for what no compiled engine can answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from service.core.contracts import Engine
from service.core.errors import TandemError, Unavailable
from service.core.table import Table, Values

_log = logging.getLogger(__name__)


class LazyEngine:
    """The estimator, opened when something is asked that no compiled engine covers. It opens once."""

    is_reentrant = False

    def __init__(self, open_: Callable[[], Engine], name: str) -> None:
        self._open = open_
        self._name = name
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._reason: TandemError | None = None

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """Raises Unavailable where the file cannot be opened; otherwise as the estimator does."""
        with self._lock:
            if self._engine is None and self._reason is None:
                try:
                    self._engine = self._open()
                except TandemError as error:
                    self._reason = error
                    _log.error("the model file of %s cannot be opened: %s", self._name, error)
            engine, reason = self._engine, self._reason
        if engine is None:
            raise Unavailable("the estimator that would answer this cannot be opened; the log says why") from reason
        return engine.run(rows, outputs)
