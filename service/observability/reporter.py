"""Adds up what the meter noted, shows it to other processes, and answers scrapes: a thread no request waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final
from weakref import WeakSet

from service.core.timing import UNKNOWN
from service.observability.counts import Counts, Gauges, add_gauges
from service.observability.machine import process_gauges, process_totals
from service.observability.meter import Meter
from service.observability.share import Share

_log = logging.getLogger(__name__)

# How old other processes' figures may be, and how many requests' notes a process keeps.
PUBLISH_S: Final = 1.0

# Content, and its type.
Scraped = tuple[bytes, str]
_Asked = SimpleQueue["tuple[str, Future[Scraped]] | None"]


class Reporter:
    """Scrapes that come together are answered together, each from what was counted before it came.

    Args:
        gauges: what is true now; called on the reporter's thread.
        models: names of the models that are there.
        folder: where processes see each other's figures; None shows those of this process.
    """

    def __init__(
        self,
        meter: Meter,
        gauges: Callable[[], Gauges],
        models: Callable[[], Collection[str]],
        folder: Path | None = None,
    ) -> None:
        self._meter = meter
        self._gauges = gauges
        self._models = models
        self._folder = folder
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._asked: _Asked | None = None
        self._thread: threading.Thread | None = None
        self._share: Share | None = None
        self._totals: dict[str, float] = {}
        self._is_broken = False

    def forget(self) -> None:
        """For a forked child: what was counted, asked and shared is the parent's."""
        self._meter.reset()
        if self._share is not None:
            self._share.close()
        # New ones: nobody wakes those who hold the old ones.
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._asked, self._share, self._totals = None, None, process_totals()

    def start(self) -> None:
        self._asked = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(self._asked,), name="tandem-metrics", daemon=True)
        self._thread.start()
        _running.add(self)

    def stop(self) -> None:
        """Others see all that was counted; scrapes that came are answered."""
        with self._lock:
            asked, self._asked = self._asked, None
        if asked is not None and self._thread is not None:
            asked.put(None)
            self._thread.join()
            self._publish()
        if self._share is not None:
            self._share.close()
            self._share = None
            self._meter.reset()  # the others have it, and would count it twice after another start
        _running.discard(self)

    def scrape(self, accept: str) -> Future[Scraped]:
        """All metrics, in the form that the header `accept` asks for."""
        future: Future[Scraped] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._asked is not None:
                self._asked.put((accept, future))
                return future
        self._answer([(accept, future)])  # not started, or stopped
        return future

    def _run(self, asked: _Asked) -> None:
        self._publish()
        while True:
            waiting: list[tuple[str, Future[Scraped]]] = []
            try:
                first = asked.get(timeout=PUBLISH_S)
                if first is None:
                    return
                waiting.append(first)
                while (more := asked.get_nowait()) is not None:
                    waiting.append(more)
                asked.put(None)  # after those that came before the end
            except Empty:
                pass
            if waiting:
                self._answer(waiting)
            else:
                self._publish()

    def _answer(self, waiting: list[tuple[str, Future[Scraped]]]) -> None:
        written: dict[str, Scraped] = {}
        try:
            from service.observability.exposition import expose  # when somebody asks: it takes 30 ms to import

            with self._turn:
                counts, gauges = self._figures()
                models = {UNKNOWN, *self._models()}
                for accept, _ in waiting:
                    if accept not in written:
                        written[accept] = expose(accept, counts, gauges, models)
        except Exception as error:
            for _, future in waiting:
                future.set_exception(error)
            return
        for accept, future in waiting:
            future.set_result(written[accept])

    def _publish(self) -> None:
        try:
            with self._turn:
                self._meter.fold()
                if self._folder is not None:
                    self._shared(self._own_gauges())
        except Exception:  # a thread that ended would leave every later scrape unanswered
            _log.exception("the metrics of this process could not be added up")

    def _figures(self) -> tuple[Counts, Gauges]:
        self._meter.fold()
        own = self._own_gauges()
        share = self._shared(own)
        if share is not None:
            try:
                counts, gauges = share.collect()
                self._is_broken = False
                return counts, add_gauges(gauges)
            except (OSError, ValueError, LookupError, TypeError) as error:
                self._complain(error)
        counts = Counts()
        with self._meter.lock:
            counts.include(self._meter.counts)
        return counts, own

    def _shared(self, gauges: Gauges) -> Share | None:
        """The share, with what this process has counted in it; None where there is none, or it cannot be written."""
        if self._folder is None:
            return None
        try:
            if self._share is None:
                self._share = Share(self._folder)
            with self._meter.lock:
                self._meter.counts.forget({UNKNOWN, *self._models()})
                self._share.publish(self._meter.counts, gauges)
        except OSError as error:
            self._complain(error)
            return None
        return self._share

    def _own_gauges(self) -> Gauges:
        totals = process_totals()
        with self._meter.lock:
            for name, total in totals.items():
                self._meter.counts.add(name, (), total - self._totals.get(name, 0.0))
        self._totals = totals
        return {**process_gauges(), **self._gauges()}

    def _complain(self, error: Exception) -> None:
        if not self._is_broken:
            _log.error("metrics are of this process alone: the folder that processes share cannot be used: %s", error)
        self._is_broken = True


# A process that ends tells the others what it counted last. Flask has no event for its end, and processes of
# `multiprocessing`, as Granian's workers are, call this hook, but none of `atexit`.
_running: Final[WeakSet[Reporter]] = WeakSet()


def _stop_all() -> None:
    for reporter in list(_running):
        reporter.stop()


threading._register_atexit(_stop_all)  # type: ignore[attr-defined]
