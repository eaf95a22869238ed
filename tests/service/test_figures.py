from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service import __version__, figures
from service.core.artefact_errors import DigestMismatch
from service.core.deadline import Deadline
from service.core.errors import InvalidRequest, ModelFailed, Overloaded
from service.core.messages import UNLOADED, ModelSummary
from service.core.timing import Timing
from service.figures import Figures
from service.guards.guard import AccessRules, guard_of
from service.guards.keys import entry_of, new_key
from service.protocols.api import Api
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.routes import by_path
from service.settings import Settings
from tests.faults.cases import fault
from tests.service.protocols.fake_server import FakeServer, get

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The access log, line by line."""
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(figures, "log_access", lambda **fields: written.append(fields))
    return written


@pytest.fixture
def found() -> Iterator[Figures]:
    """Of a service with two models, in which something waits."""
    catalog = SimpleNamespace(
        summaries=lambda: [
            ModelSummary("shop", (2, 3), {}, "live", 3, {4: "the digest differs"}, {4: "digest-mismatch"}),
            ModelSummary("old", (), {}, UNLOADED, None, {1: UNLOADED}),
        ]
    )
    admission = SimpleNamespace(requests=2, rows=30, bytes=400)
    figures = Figures(Settings(device="cpu"), catalog, admission, lambda: 5)  # type: ignore[arg-type]
    yield figures
    figures.stop()


def outcomes(found: Figures) -> dict[tuple[str, ...], float]:
    found.meter.fold()
    return found.meter.counts.counters["tandem_requests_total"]


def asked() -> HttpRequest:
    http = get("/models/shop")
    http.template, http.dialect = "/models/{name}", "native"
    return http


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        pytest.param(200, None, "ok", id="answered"),
        pytest.param(422, InvalidRequest("no"), "invalid-request", id="refused"),
        pytest.param(503, Overloaded("too much"), "overloaded", id="turned away"),
        pytest.param(500, ModelFailed(), "internal-error", id="model failed"),
        pytest.param(500, KeyError("x"), "internal-error", id="bug"),
        pytest.param(499, None, "client-gone", id="hung up"),
        pytest.param(500, None, "unavailable", id="not well"),
    ],
)
@pytest.mark.usefixtures("lines")
def test_request_is_counted_by_what_came_of_it(
    found: Figures, status: int, error: BaseException | None, outcome: str
) -> None:
    found.request(asked(), HttpReply(status, b""), 0.003, error)

    assert outcomes(found) == {("/models/{name}", "native", "GET", str(status), outcome): 1}


def test_request_leaves_a_line_with_its_trace(found: Figures, lines: list[dict[str, Any]]) -> None:
    http = asked()
    http.headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}

    found.request(http, HttpReply(200, b""), 0.003, None)

    assert lines == [
        {
            "method": "GET", "path": "/models/shop", "status": 200, "ms": 3.0, "request_id": "req-1", "error": None,
            "caller": None, "trace_id": TRACE,
        }
    ]  # fmt: skip


def test_call_is_counted_as_a_request_is(found: Figures, lines: list[dict[str, Any]]) -> None:
    call = SimpleNamespace(
        deadline=Deadline.after(1), request_id="req-1", metadata={}, caller=SimpleNamespace(name="shop")
    )
    call.deadline.timing = Timing()

    found.call("/inference/ModelInfer", call, 422, 1.0, 3.0, InvalidRequest("no"))  # type: ignore[arg-type]

    assert outcomes(found) == {("/inference/ModelInfer", "grpc", "GRPC", "422", "invalid-request"): 1}
    assert (lines[0]["ms"], lines[0]["caller"]) == (2000.0, "shop")


@fault(
    "O10",
    sent="requests without a key, with a wrong one, with one that may not, beyond the limit of one; unknown paths",
    expected="sum of outcomes = requests sent",
)
@pytest.mark.usefixtures("lines")
def test_requests_that_the_guard_refuses_are_counted_too(found: Figures, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [entry_of("shop", key, ["predict"], (), "3/day", None)]}))
    guard = guard_of(AccessRules(keys_file=tmp_path / "keys.json"))
    api = Api(FakeServer(), max_body_bytes=1000, timeout_s=2.0, record=found.request, guard=guard)
    paths = by_path()

    for given in (None, "wrong", key, key, key, key):
        http = get("/models")
        http.headers = {} if given is None else {"x-api-key": given}
        api.answer(paths["/models"], http)
    api.not_found(get("/nowhere"))
    metrics = get("/metrics")
    metrics.headers = {"x-api-key": key}
    api.answer(paths["/metrics"], metrics)

    counted: Counter[str] = Counter()
    for labels, amount in outcomes(found).items():
        counted[labels[-1]] += int(amount)
    assert counted == {"ok": 3, "unauthenticated": 3, "rate-limited": 1, "not-allowed": 1}
    assert not api.under_way


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(DigestMismatch(""), "digest-mismatch", id="refused"),
        pytest.param(SystemExit("a model ended the process"), "load-failed", id="whatever a model raises"),
    ],
)
def test_version_that_does_not_load_is_counted_by_the_reason(
    found: Figures, error: BaseException, outcome: str
) -> None:
    with pytest.raises(type(error)), found.loading():
        raise error
    with found.loading():
        pass
    found.meter.fold()

    assert found.meter.counts.counters["tandem_model_loads_total"] == {(outcome,): 1, ("live",): 1}


def test_scrape_shows_what_is_true_now(found: Figures) -> None:
    text = found.scrape("").result(timeout=0)[0].decode()

    shown = dict(re.findall(r"^(tandem_\S+) (\S+)$", text, re.MULTILINE))
    assert shown == {
        "tandem_requests_in_flight": "5.0",
        "tandem_queue_requests": "2.0",
        "tandem_queue_rows": "30.0",
        "tandem_queue_bytes": "400.0",
        'tandem_model_versions{state="failed"}': "1.0",
        'tandem_model_versions{state="live"}': "2.0",
        'tandem_model_versions{state="unloaded"}': "1.0",
        'tandem_model_versions_failed{code="digest-mismatch"}': "1.0",
        "tandem_processes": "1.0",
        "tandem_log_lines_dropped_total": "0.0",
        f'tandem_build_info{{python="{platform.python_version()}",version="{__version__}"}}': "1.0",
    } | {name: value for name, value in shown.items() if name.startswith("tandem_batch")}


def test_processes_find_each_other_in_the_folder_of_the_settings(tmp_path: Path) -> None:
    nothing = SimpleNamespace(summaries=list)
    empty = SimpleNamespace(requests=0, rows=0, bytes=0)
    settings = Settings(device="cpu", metrics_folder=tmp_path)
    one, two = (Figures(settings, nothing, empty, lambda: 0) for _ in range(2))  # type: ignore[arg-type]
    one.start()
    two.start()

    one.meter.call("onnx", 3)
    one.stop()
    text = two.scrape("").result(timeout=30)[0]
    two.stop()

    assert b'tandem_engine_rows_total{engine="onnx"} 3.0' in text


def test_generation_is_shown_where_there_is_some(found: Figures) -> None:
    before = found.scrape("").result(20)[0].decode()
    found.show_generation(SimpleNamespace(under_way=3, state="half-open"))
    after = found.scrape("").result(20)[0].decode()

    assert "tandem_upstream_breaker{" not in before
    assert 'tandem_upstream_breaker{state="half-open"} 1.0' in after
    assert "tandem_generations_in_flight 3.0" in after
