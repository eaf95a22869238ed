"""A model that does on request what no model should."""

from __future__ import annotations

import signal
import sys
import warnings
from enum import IntEnum, auto
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from tests.conformance.servers import eventually


class Act(IntEnum):
    """What the second number of a row asks for; any other number is as good as ANSWER."""

    ANSWER = 0  # twice the first number
    WAIT = 7001  # (far from what export tries) until the gate is open, then the same
    RAISE = auto()
    EXIT = auto()
    INTERRUPT = auto()
    NO_MEMORY = auto()
    RECURSE = auto()
    CRASH = auto()
    FEWER_ROWS = auto()
    MORE_ROWS = auto()
    SPOIL = auto()  # the rows it was given, and the state of numpy's random numbers
    PRINT = auto()  # and warn
    LEAK = auto()  # keep 200 kB


ERRORS: Final = {
    Act.RAISE: ValueError("a row that no model can stand"),
    Act.EXIT: SystemExit(1),
    Act.INTERRUPT: KeyboardInterrupt(),
    Act.NO_MEMORY: MemoryError(),
}


KEPT: Final[list[Any]] = []


class Odd(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers twice the first number of each row, and does what the second says. `folder/closed` closes the gate.

    Whoever waits at the gate leaves a file `waits` in `folder`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def fit(self, rows: Any, y: Any = None) -> Odd:
        self.n_features_in_ = np.asarray(rows).shape[1]
        return self

    def predict(self, rows: Any) -> Any:
        rows = np.asarray(rows)
        answers = rows[:, 0] * 2
        for act in sorted(set(Act).intersection(rows[:, 1].tolist())):
            answers = self._do(Act(act), rows, answers)
        return answers

    def _do(self, act: Act, rows: Any, answers: Any) -> Any:
        if act in ERRORS:
            raise ERRORS[act]
        match act:
            case Act.WAIT:
                Path(self.folder, "waits").touch()
                eventually(lambda: not Path(self.folder, "closed").exists(), "the gate to open")
            case Act.RECURSE:
                return self._do(act, rows, answers)
            case Act.CRASH:
                signal.raise_signal(signal.SIGSEGV)
            case Act.FEWER_ROWS:
                return answers[1:]
            case Act.MORE_ROWS:
                return np.append(answers, 0.0)
            case Act.SPOIL:
                rows[:] = -1.0
                np.random.seed(0)
            case Act.PRINT:
                print("a model that talks" * 100)
                print("a model that complains" * 100, file=sys.stderr)
                warnings.warn("a model that warns", UserWarning, stacklevel=1)
            case Act.LEAK:
                KEPT.append(np.ones(25_000))
        return answers
