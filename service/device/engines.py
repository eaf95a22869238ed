"""The engines that a device's process holds for others, and how each is opened once for all who ask for it."""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.core.artefact_errors import ArtefactError
from service.core.contracts import Engine
from service.core.errors import TandemError
from service.device.guard import GuardedEngine, Watch
from service.runtimes.device_errors import DeviceUnavailable, is_out_of_memory, is_sticky
from service.scheduling.admission import Admission
from service.scheduling.lane import Lane
from service.scheduling.workers import Workers

_log = logging.getLogger("tandem.device")

# Opens and warms up the engine that a spec describes. What a spec holds is between the opener and
# whoever asks; `merges` in it says that rows may be computed together with others.
OpenEngine = Callable[[dict[str, Any]], Engine]

# Who asks waits for the answer on a thread of its own, and its service has bounded what waits there.
_NO_LIMIT: Final = Admission(sys.maxsize, sys.maxsize)


@dataclass(frozen=True, slots=True)
class Hosted:
    """An engine, and the lane where the requests of all who hold it meet."""

    engine: GuardedEngine
    lane: Lane


class Engines:
    """The engines that somebody over there holds. Safe to call from any thread."""

    def __init__(
        self,
        open_engine: OpenEngine,
        workers: Workers,
        calls: Watch,
        opens: Watch,
        leave: Callable[[BaseException], object],
    ) -> None:
        """`leave` ends the process, when a CUDA error has poisoned it."""
        self._open_engine = open_engine
        self._workers = workers
        self._calls = calls
        self._opens = opens
        self._leave = leave
        self._lock = threading.Lock()
        self._hosted: dict[str, Future[Hosted]] = {}
        self._holders: dict[str, list[object]] = {}

    def open(self, spec: dict[str, Any], holder: object) -> str:
        """The key of the engine of `spec`, loaded once for all. Raises what the opener raises."""
        key = hashlib.sha256(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        with self._lock:
            hosted = self._hosted.get(key)
            is_first = hosted is None
            if hosted is None:
                hosted = self._hosted[key] = Future()
            self._holders.setdefault(key, []).append(holder)
        if is_first:
            try:
                hosted.set_result(self._make(spec))
            except BaseException as error:  # SystemExit from a model too: whoever waits here must hear of it
                with self._lock:
                    if self._hosted.get(key) is hosted:
                        del self._hosted[key], self._holders[key]
                hosted.set_exception(error)
        hosted.result()
        return key

    def _make(self, spec: dict[str, Any]) -> Hosted:
        try:
            with self._opens:
                engine = self._open_engine(spec)
        except TandemError:
            raise
        except Exception as error:
            if is_sticky(error):
                self._leave(error)
            _log.exception("an engine could not be opened")
            if is_out_of_memory(error):
                raise DeviceUnavailable("the device has no memory for this engine") from error
            raise ArtefactError(f"the engine cannot be opened: {type(error).__name__}: {error}") from error
        guarded = GuardedEngine(engine, self._calls, self._leave)
        lane = Lane(guarded, self._workers, _NO_LIMIT, permits=self._workers.permits, merges=bool(spec.get("merges")))
        return Hosted(guarded, lane)

    def get(self, key: str) -> Hosted:
        """Raises DeviceUnavailable where it is not open: this process began after it was opened."""
        with self._lock:
            hosted = self._hosted.get(key)
        if hosted is None or not hosted.done():
            raise DeviceUnavailable("the engine is not open on the device")
        return hosted.result()

    def let_go(self, holder: object, key: str | None = None) -> None:
        """One hold of this engine, or, where `holder` is gone, all of its holds. Without holds it is unloaded."""
        with self._lock:
            for each in list(self._holders) if key is None else [key]:
                held = self._holders.get(each, [])
                for _ in range(held.count(holder) if key is None else min(1, held.count(holder))):
                    held.remove(holder)
                if not held:
                    self._holders.pop(each, None)
                    self._hosted.pop(each, None)
