"""A model that takes its process along, as the kernel does with one that asks for more memory than there is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

POISON: Final = 666.0


class Deadly(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers the sum of each row; a row that begins with POISON kills, and leaves a file `killed-…` in `folder`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def fit(self, rows: Any, y: Any = None) -> Deadly:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        if POISON in np.asarray(rows)[:, 0]:
            Path(self.folder, f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(rows).sum(axis=1)
