"""Counts what happens. A request only leaves a note; somebody else adds the notes up."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import Final
from weakref import WeakSet

from service.core.timing import STAGES, UNKNOWN, Timing
from service.observability.counts import Counts, Histogram, Labels, observe
from service.observability.families import LONG_SECONDS, REQUESTS, ROWS, SECONDS

# Notes are added up every second. A process that answers this many meanwhile does it at once, so that they do not
# pile up where the thread for it is late.
BACKLOG: Final = 20_000

# Callers choose the method, and may choose any word.
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "GRPC", "WS"}
)
OTHER: Final = "other"

# The route and dialect of what no route answers.
NONE: Final = "none"

_Request = tuple[str, str, str, int, str, float, float, Timing | None]


class Meter:
    """What a process counts. Any thread may call it; none waits for a scrape.

    A note is one entry in a deque, which takes no lock: a tenth of what it takes to look up and raise all that it
    counts (`benchmarks/metrics.py`).
    """

    def __init__(self) -> None:
        self.reset()
        _meters.add(self)

    def reset(self) -> None:
        """Begin anew: in a forked child, what the parent counted is the parent's."""
        self.counts = Counts()
        self.lock = threading.Lock()  # of `counts`
        self._requests: deque[_Request] = deque()
        self._batches: deque[tuple[int, int]] = deque()
        self._calls: deque[tuple[str, int]] = deque()
        self._others: deque[tuple[str, Labels, float]] = deque()
        self._first_tokens: deque[float] = deque()

    def request(
        self,
        route: str,
        dialect: str,
        method: str,
        status: int,
        outcome: str,
        seconds: float,
        ended_at: float,
        timing: Timing | None,
    ) -> None:
        """A request was answered, `seconds` after it came. `route` is a template; of `outcome` there are few."""
        self._requests.append((route, dialect, method, status, outcome, seconds, ended_at, timing))
        if len(self._requests) > BACKLOG and self.lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self.lock.release()

    def batch(self, rows: int, requests: int) -> None:
        """So much is computed together."""
        self._batches.append((rows, requests))

    def call(self, engine: str, rows: int) -> None:
        """An engine is asked."""
        self._calls.append((engine, rows))

    def fallback(self, engine: str) -> None:
        """It could not answer, or only some of the rows."""
        self._others.append(("tandem_engine_fallbacks_total", (engine,), 1.0))

    def load(self, outcome: str) -> None:
        """A version is live, or was refused for this reason."""
        self._others.append(("tandem_model_loads_total", (outcome,), 1.0))

    def restart(self, process: str) -> None:
        """A process beside this one ended, though nobody asked it to."""
        self._others.append(("tandem_device_restarts_total", (process,), 1.0))

    def first_token(self, seconds: float) -> None:
        """A stream of a language model has begun with its text, so long after the request."""
        self._first_tokens.append(seconds)

    def tokens(self, kind: str, count: int) -> None:
        """A prompt or a completion had so many."""
        self._others.append(("tandem_generation_tokens_total", (kind,), float(count)))

    def fold(self) -> None:
        """Add up the notes. Those that come meanwhile are left for the next time."""
        with self.lock:
            self._fold()

    def _fold(self) -> None:
        self._fold_requests()
        rows_together = self.counts.histogram("tandem_batch_rows", ())
        requests_together = self.counts.histogram("tandem_batch_requests", ())
        for _ in range(len(self._batches)):
            rows, requests = self._batches.popleft()
            observe(rows_together, ROWS, rows)
            observe(requests_together, REQUESTS, requests)
        for _ in range(len(self._calls)):
            engine, rows = self._calls.popleft()
            self.counts.add("tandem_engine_calls_total", (engine,))
            self.counts.add("tandem_engine_rows_total", (engine,), rows)
        for _ in range(len(self._first_tokens)):
            first_token = self.counts.histogram("tandem_generation_first_token_seconds", ())
            observe(first_token, LONG_SECONDS, self._first_tokens.popleft())
        for _ in range(len(self._others)):
            self.counts.add(*self._others.popleft())

    def _fold_requests(self) -> None:
        """What requests have in common is looked up once: this runs for each of thousands a second."""
        outcomes: Counter[tuple[str, str, str, int, str]] = Counter()
        asked: Counter[tuple[str, int, str]] = Counter()
        rows: Counter[tuple[str, int]] = Counter()
        durations: dict[tuple[str, str], Histogram] = {}
        stages: dict[str, tuple[Histogram, ...]] = {}
        for _ in range(len(self._requests)):
            route, dialect, method, status, outcome, seconds, ended_at, timing = self._requests.popleft()
            outcomes[route, dialect, method, status, outcome] += 1
            duration = durations.get((route, dialect))
            if duration is None:
                duration = self.counts.histogram("tandem_request_duration_seconds", (route, dialect))
                durations[route, dialect] = duration
            observe(duration, SECONDS, seconds)
            if timing is None or timing.model is None:
                continue
            asked[timing.model, timing.version, outcome] += 1
            rows[timing.model, timing.version] += timing.rows
            of_model = stages.get(timing.model)
            if of_model is None:
                of_model = stages[timing.model] = self._stages_of(timing.model)
            for histogram, took_s in zip(of_model, timing.stages(ended_at), strict=False):
                observe(histogram, SECONDS, took_s)
        for (route, dialect, method, status, outcome), amount in outcomes.items():
            method = method if method in METHODS else OTHER
            self.counts.add("tandem_requests_total", (route, dialect, method, str(status), outcome), amount)
        for (model, version, outcome), amount in asked.items():
            self.counts.add("tandem_predictions_total", (model, _shown(version), outcome), amount)
        for (model, version), amount in rows.items():
            if amount:
                self.counts.add("tandem_prediction_rows_total", (model, _shown(version)), amount)

    def _stages_of(self, model: str) -> tuple[Histogram, ...]:
        return tuple(self.counts.histogram("tandem_stage_duration_seconds", (model, stage)) for stage in STAGES)


def _shown(version: int) -> str:
    """Versions begin at 1."""
    return str(version) if version else UNKNOWN


_meters: Final[WeakSet[Meter]] = WeakSet()


def count_refusal(status: int, outcome: str) -> None:
    """A web server answered by itself what was no request. It knows of no service, of which a process has one."""
    for meter in list(_meters):
        meter.request(NONE, NONE, OTHER, status, outcome, 0.0, 0.0, None)
