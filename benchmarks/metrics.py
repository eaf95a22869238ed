"""What metrics cost a request: its note, and what a thread takes to add it up. `python -m benchmarks.metrics`"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.core.deadline import Deadline
from service.core.timing import Timing
from service.observability.families import SECONDS
from service.observability.meter import Meter

REQUESTS: Final = 500
ROUNDS: Final = 60


def main() -> None:
    meter = Meter()
    bare = Deadline.after(30)

    def request() -> None:
        """All that a prediction writes down, from `api.py` to `lane.py`."""
        deadline = Deadline.after(30)
        timing = deadline.timing = Timing()
        timing.model, timing.version = "churn", 1
        timing.decoded(time.perf_counter(), 1)
        timing.begun_at, timing.done_at = time.perf_counter(), time.perf_counter()
        meter.call("onnx", 1)
        meter.batch(1, 1)
        meter.request("/predict", "native", "POST", 200, "ok", 1e-4, time.perf_counter(), timing)

    noted = least(request) - least(lambda: bare.after(30))
    added_up = 1e9
    for _ in range(ROUNDS):
        meter.fold()
        for _ in range(REQUESTS):
            request()
        started = time.perf_counter()
        meter.fold()
        added_up = min(added_up, (time.perf_counter() - started) / REQUESTS * 1e6)
    print(f"note {noted:.2f} µs, added up {added_up:.2f} µs, the library's own metrics {least(library()):.2f} µs")


def library() -> Callable[[], None]:
    """The same figures, raised at once by prometheus_client."""
    registry = CollectorRegistry()
    requests = Counter("requests", "", ["route", "dialect", "method", "status", "outcome"], registry=registry)
    predictions = Counter("predictions", "", ["model", "version", "outcome"], registry=registry)
    rows = Counter("rows", "", ["model", "version"], registry=registry)
    calls, engine_rows = (Counter(name, "", ["engine"], registry=registry) for name in ("calls", "engine_rows"))
    duration = Histogram("duration", "", ["route", "dialect"], buckets=SECONDS, registry=registry)
    stages = Histogram("stages", "", ["model", "stage"], buckets=SECONDS, registry=registry)
    batches = [Histogram(name, "", registry=registry) for name in ("batch_rows", "batch_requests")]

    def request() -> None:
        requests.labels("/predict", "native", "POST", "200", "ok").inc()
        predictions.labels("churn", "1", "ok").inc()
        rows.labels("churn", "1").inc()
        calls.labels("onnx").inc()
        engine_rows.labels("onnx").inc()
        duration.labels("/predict", "native").observe(1e-4)
        for stage in ("decode", "queue", "compute", "encode"):
            stages.labels("churn", stage).observe(1e-5)
        for batch in batches:
            batch.observe(1)

    return request


def least(call: Callable[[], object]) -> float:
    """Microseconds of a call, the least of several rounds: what else the machine does can only add."""
    return min(timeit.repeat(call, number=REQUESTS, repeat=ROUNDS)) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
