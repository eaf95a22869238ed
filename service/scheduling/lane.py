"""Calls of one engine, one after another, in order of arrival."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Executor, Future
from typing import Final

from service.core.contracts import Engine
from service.core.errors import Unavailable
from service.core.messages import InferRequest
from service.core.table import Values

# A lane hands its thread back after so many calls, so that a busy model does not keep
# the others waiting; each hand-over costs some 50 µs.
TURNS: Final = 16


class Lane:
    """Runs an engine's calls on shared worker threads, never two at a time.

    An estimator need not be safe to call from two threads at once, and an idle lane starts
    at once: no delay is ever added.
    """

    def __init__(self, engine: Engine, workers: Executor) -> None:
        self._engine = engine
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: deque[tuple[InferRequest, Future[dict[str, Values]]]] = deque()
        self._is_busy = False

    def submit(self, request: InferRequest) -> Future[dict[str, Values]]:
        """Queue `request`. The future fails with what the engine raises; cancelled ones are not run.

        After the workers were stopped, it fails with Unavailable.
        """
        future: Future[dict[str, Values]] = Future()
        with self._lock:
            self._waiting.append((request, future))
            if self._is_busy:
                return future
            self._is_busy = True
        try:
            self._workers.submit(self._work)
        except RuntimeError:
            self._give_up()
        return future

    def _work(self) -> None:
        while True:
            for _ in range(TURNS):
                with self._lock:
                    if not self._waiting:
                        self._is_busy = False
                        return
                    request, future = self._waiting.popleft()
                self._run(request, future)
            # Workers that are being stopped take nothing new; then what was accepted is finished here.
            with contextlib.suppress(RuntimeError):
                self._workers.submit(self._work)
                return

    def _run(self, request: InferRequest, future: Future[dict[str, Values]]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._engine.run(request.rows, request.outputs))
        except BaseException as error:  # SystemExit from a model too: it fails its own request only
            future.set_exception(error)

    def _give_up(self) -> None:
        """Fail whatever came after the workers were stopped."""
        with self._lock:
            left, self._waiting = self._waiting, deque()
            self._is_busy = False
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(Unavailable("the service is stopping"))
