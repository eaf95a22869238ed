"""Classes that a file may hold once they are trusted, and that do what a model has no business to do."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator


class Nosy:
    """What it holds is done when it is unpickled; with success it is an error that says so."""

    def __init__(self, deed: str, *arguments: Any) -> None:
        self.deed, self.arguments = deed, arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        getattr(self, state["deed"])(*state["arguments"])
        raise ValueError(f"{state['deed']} went well")

    def write(self, path: str) -> None:
        with Path(path).open("wb") as file:
            file.write(b"x")

    def connect(self, port: int) -> None:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()

    def look_up(self, variable: str) -> None:
        os.environ[variable]

    def end(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def leave(self, status: int) -> None:
        os._exit(status)

    def spin(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)


class Sleeper(BaseEstimator):
    """Opens like any other, and never answers."""

    def __init__(self) -> None:
        self.n_features_in_ = 1

    def fit(self, X: Any, y: Any = None) -> Sleeper:
        return self

    def predict(self, X: Any) -> Any:
        while True:
            time.sleep(60)
