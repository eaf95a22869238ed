"""An estimator that waits in the middle of a prediction, so that tests decide when it goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from tests.conformance.servers import eventually


class Gate(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers the sum of each row: at once, or while `folder/closed` is there, once it is gone.

    Each prediction that waits leaves a file `waits-…` in `folder`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def fit(self, rows: Any, y: Any = None) -> Gate:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        closed = Path(self.folder, "closed")
        if closed.exists():
            Path(self.folder, f"waits-{os.getpid()}-{uuid4().hex}").touch()
            eventually(lambda: not closed.exists(), "the gate to open")
        return np.asarray(rows).sum(axis=1)


def waiting(folder: Path) -> int:
    return len(list(folder.glob("waits-*")))
