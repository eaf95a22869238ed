"""Every metric there is: its name, kind, labels and unit. `docs/metrics.md` is held to this table."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

# From a tenth of a millisecond, which a short prediction takes, to the longest deadline that is usual.
SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0)
# Until a language model begins; a long prompt on a small machine takes minutes.
LONG_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
REQUESTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `name` is the one that is shown; `per_model` families have a model as their first label.

    Over several processes counters and histograms are summed. So are gauges, unless all processes see the same
    thing (`is_shared`): then it is the largest.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    is_shared: bool = False

    @property
    def per_model(self) -> bool:
        return self.labels[:1] == ("model",)


_ALL: Final = (
    Family(
        "tandem_requests_total", "counter", "Requests and calls that were answered, by what came of them.",
        ("route", "dialect", "method", "status", "outcome"),
    ),
    Family(
        "tandem_request_duration_seconds", "histogram", "From a request's headers to its reply.",
        ("route", "dialect"), "seconds", SECONDS,
    ),
    Family("tandem_requests_in_flight", "gauge", "Requests and calls that are being answered."),
    Family(
        "tandem_predictions_total", "counter", "Predictions asked for, by what came of them.",
        ("model", "version", "outcome"),
    ),
    Family("tandem_prediction_rows_total", "counter", "Rows that predictions were asked for.", ("model", "version")),
    Family(
        "tandem_stage_duration_seconds", "histogram", "What a prediction takes: decode, queue, compute, encode.",
        ("model", "stage"), "seconds", SECONDS,
    ),
    Family("tandem_batch_rows", "histogram", "Rows that were computed together.", (), "rows", ROWS),
    Family("tandem_batch_requests", "histogram", "Requests that were computed together.", (), "requests", REQUESTS),
    Family("tandem_engine_calls_total", "counter", "Calls of an engine.", ("engine",)),
    Family("tandem_engine_rows_total", "counter", "Rows that an engine was asked for.", ("engine",)),
    Family(
        "tandem_engine_fallbacks_total", "counter", "Calls that an engine could not answer, so that another one was.",
        ("engine",),
    ),
    Family("tandem_queue_requests", "gauge", "Requests whose rows wait to be computed."),
    Family("tandem_queue_rows", "gauge", "Rows that wait to be computed.", (), "rows"),
    Family("tandem_queue_bytes", "gauge", "Memory of the rows that wait.", (), "bytes"),
    Family("tandem_model_versions", "gauge", "Versions of models.", ("state",), is_shared=True),
    Family("tandem_model_versions_failed", "gauge", "Versions that are not served, by why.", ("code",), is_shared=True),
    Family("tandem_model_loads_total", "counter", "Versions that were loaded, or why one was not.", ("outcome",)),
    Family(
        "tandem_device_restarts_total", "counter", "Ends of a process beside the web processes that nobody asked for.",
        ("process",),
    ),
    Family("tandem_generations_in_flight", "gauge", "Texts that a language model makes now."),
    Family(
        "tandem_generation_first_token_seconds", "histogram", "From a request's headers to the first text of a stream.",
        (), "seconds", LONG_SECONDS,
    ),
    Family(
        "tandem_generation_tokens_total", "counter", "Tokens of prompts and completions, as the language model counts.",
        ("kind",),
    ),
    Family("tandem_upstream_breaker", "gauge", "Processes by whether they ask the language model.", ("state",)),
    Family("tandem_gpu_utilization_ratio", "gauge", "Busy share of the last moments, 0 to 1.", ("gpu",), "ratio",
           is_shared=True),
    Family("tandem_gpu_memory_used_bytes", "gauge", "Memory of the GPU that is in use.", ("gpu",), "bytes",
           is_shared=True),
    Family("tandem_gpu_memory_total_bytes", "gauge", "Memory of the GPU.", ("gpu",), "bytes", is_shared=True),
    Family("tandem_log_lines_dropped_total", "counter", "Lines of the log that nobody took in time."),
    Family("tandem_processes", "gauge", "Processes that these figures are of."),
    Family("tandem_build_info", "gauge", "What runs here; always 1.", ("version", "python"), is_shared=True),
    Family("process_cpu_seconds_total", "counter", "CPU time of all processes.", (), "seconds"),
    Family("process_resident_memory_bytes", "gauge", "Resident memory of all processes.", (), "bytes"),
    Family("process_open_fds", "gauge", "Open files of all processes."),
)  # fmt: skip

FAMILIES: Final = MappingProxyType({family.name: family for family in _ALL})
