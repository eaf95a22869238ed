"""Openers for the device's process: engines for a GPU, computed by the CPU as if there were one.

nvForest is Treelite with the same files; cuML's modules hold fakes that ask scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.core.contracts import Engine
from service.core.table import Table, Values
from service.loading import hosted
from tests.service.runtimes import fake_cuml


def open_hosted(spec: dict[str, Any]) -> Engine:
    hosted.ON_GPU["treelite"] = "treelite"
    fake_cuml.install(pytest.MonkeyPatch())  # this process ends with the test, so it is never undone
    return hosted.open_hosted(spec)


def open_wrong(spec: dict[str, Any]) -> Engine:
    """Numbers are off by more than single precision explains."""
    return _Off(open_hosted(spec), 1e-3)


def open_worse_after_a_restart(spec: dict[str, Any]) -> Engine:
    """Exact in the first process that opens it, close in the next."""
    opened = Path(spec["folder"]).parent / "opened"
    if opened.exists():
        return _Off(open_hosted(spec), 1e-8)
    opened.touch()
    return open_hosted(spec)


class _Off:
    """Floats are wrong by `share` of themselves."""

    is_reentrant = False

    def __init__(self, engine: Engine, share: float) -> None:
        self._engine = engine
        self._share = share

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        answers: dict[str, Any] = dict(self._engine.run(rows, outputs))
        return {
            name: values * (1 + self._share) if values.dtype.kind == "f" else values for name, values in answers.items()
        }
