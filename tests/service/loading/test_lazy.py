from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from service.core.artefact_errors import GoldenDisagrees
from service.core.errors import RowsRefused, Unavailable
from service.core.table import Matrix, Table, Values
from service.loading.lazy import LazyEngine

_ROWS = Matrix(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


class _Engine:
    """Sums each row, and lets the test change the answer."""

    is_reentrant = True

    def __init__(self, change: Callable[[str, Any], Any] = lambda name, values: values) -> None:
        self._change = change

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        return {name: self._change(name, rows.values.sum(axis=1)) for name in outputs}


class _Opener:
    """Opens an engine, or fails, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self._error = error

    def __call__(self) -> _Engine:
        self.calls += 1
        if self._error is not None:
            raise self._error
        return _Engine()


def test_closed_estimator_is_opened_once_when_it_is_asked() -> None:
    opener = _Opener()
    engine = LazyEngine(opener, "m/1")
    assert opener.calls == 0

    for _ in range(2):
        answers = engine.run(_ROWS, ("predict",))

    assert np.array_equal(np.asarray(answers["predict"]), [3.0, 7.0, 11.0])
    assert opener.calls == 1


def test_estimator_that_cannot_be_opened_is_not_tried_at_every_request(caplog: pytest.LogCaptureFixture) -> None:
    opener = _Opener(GoldenDisagrees("/srv/models/m is wrong"))
    engine = LazyEngine(opener, "m/1")

    for _ in range(2):
        with pytest.raises(Unavailable, match="the log says why"):
            engine.run(_ROWS, ("predict",))

    assert opener.calls == 1
    assert "/srv/models/m is wrong" in caplog.text


def test_what_the_opened_estimator_raises_is_raised() -> None:
    def refuse(name: str, values: Any) -> Any:
        raise RowsRefused

    engine = LazyEngine(lambda: _Engine(refuse), "m/1")

    with pytest.raises(RowsRefused):
        engine.run(_ROWS, ("predict",))
