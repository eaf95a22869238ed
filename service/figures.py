"""What is written down of a running service: a line in the access log for each request, and figures of all of them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from service import __version__
from service.core.messages import UNLOADED
from service.observability.counts import Gauges
from service.observability.logs import log_access
from service.observability.machine import Gpus
from service.observability.meter import Meter
from service.observability.reporter import Reporter, Scraped
from service.protocols.api import CLIENT_GONE
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.status import refusal_of
from service.protocols.trace import trace_id
from service.repository.catalog import Catalog
from service.repository.versions import code_of
from service.scheduling.admission import Admission
from service.settings import Settings

if TYPE_CHECKING:
    from service.protocols.rpc import Call  # which needs protobuf

OK: Final = "ok"
GONE: Final = "client-gone"
# A reply that says no without an error: the health question of platforms that read nothing but the status.
NOT_WELL: Final = "unavailable"
LIVE: Final = "live"


class Generating(Protocol):
    """Makes texts by a language model; see `generation.generator`."""

    @property
    def under_way(self) -> int: ...

    @property
    def state(self) -> str: ...


class Figures:
    """Starts and stops with the service.

    Args:
        under_way: how many requests are being answered.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, admission: Admission, under_way: Callable[[], int]
    ) -> None:
        self.meter = Meter()
        self._catalog = catalog
        self._admission = admission
        self._under_way = under_way
        self._generator: Generating | None = None
        self._gpus = Gpus() if settings.device != "cpu" else None
        self._reporter = Reporter(self.meter, self._gauges, self._models, settings.metrics_folder)

    def show_generation(self, generator: Generating) -> None:
        """From now on it is shown what `generator` does."""
        self._generator = generator

    def start(self) -> None:
        self._reporter.start()

    def stop(self) -> None:
        self._reporter.stop()

    def forget(self) -> None:
        """For a forked child: nothing was counted yet."""
        self._reporter.forget()

    def scrape(self, accept: str) -> Future[Scraped]:
        return self._reporter.scrape(accept)

    def request(self, http: HttpRequest, reply: HttpReply, seconds: float, error: BaseException | None) -> None:
        """It was answered, or its caller hung up."""
        self.meter.request(
            http.template, http.dialect, http.method, reply.status, _outcome(reply.status, error), seconds,
            http.started_at + seconds, http.deadline.timing,
        )  # fmt: skip
        log_access(
            method=http.method,
            path=http.path,
            status=reply.status,
            ms=seconds * 1000,
            request_id=http.request_id,
            error=error,
            caller=http.caller.name if http.caller is not None else None,
            trace_id=trace_id(http.headers.get("traceparent")),
        )

    def call(
        self, path: str, call: Call, status: int, started_at: float, ended_at: float, error: Exception | None
    ) -> None:
        """A gRPC call was answered, with the status that the answer would have over HTTP."""
        seconds, outcome = ended_at - started_at, _outcome(status, error)
        self.meter.request(path, "grpc", "GRPC", status, outcome, seconds, ended_at, call.deadline.timing)
        log_access(
            method="GRPC",
            path=path,
            status=status,
            ms=seconds * 1000,
            request_id=call.request_id,
            error=error,
            caller=call.caller.name if call.caller is not None else None,
            trace_id=trace_id(call.metadata.get("traceparent")),
        )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around the loading of a version: how it went is counted, and why it failed."""
        try:
            yield
        except (Exception, SystemExit) as error:  # code in a model may call sys.exit
            self.meter.load(code_of(error))
            raise
        self.meter.load(LIVE)

    def _models(self) -> set[str]:
        return {summary.name for summary in self._catalog.summaries()}

    def _gauges(self) -> Gauges:
        states = {"live": 0, "failed": 0, UNLOADED: 0}
        codes: Counter[str] = Counter()
        for summary in self._catalog.summaries():
            states["live"] += len(summary.versions)
            states[UNLOADED if summary.state == UNLOADED else "failed"] += len(summary.reasons)
            codes.update(summary.codes.values())
        return {
            ("tandem_build_info", (__version__, platform.python_version())): 1.0,
            ("tandem_requests_in_flight", ()): float(self._under_way()),
            ("tandem_queue_requests", ()): float(self._admission.requests),
            ("tandem_queue_rows", ()): float(self._admission.rows),
            ("tandem_queue_bytes", ()): float(self._admission.bytes),
            **{("tandem_model_versions", (state,)): float(count) for state, count in states.items()},
            **{("tandem_model_versions_failed", (code,)): float(count) for code, count in codes.items()},
            **(self._gpus.gauges() if self._gpus is not None else {}),
            **(_of_generation(self._generator) if self._generator is not None else {}),
        }


def _of_generation(generator: Generating) -> Gauges:
    return {
        ("tandem_generations_in_flight", ()): float(generator.under_way),
        ("tandem_upstream_breaker", (generator.state,)): 1.0,
    }


def _outcome(status: int, error: BaseException | None) -> str:
    """What came of a request, in one of the words that callers find in `type` of a problem, or a few others."""
    if error is not None:
        return refusal_of(error).kind
    if status == CLIENT_GONE:
        return GONE
    return OK if status < 400 else NOT_WELL
