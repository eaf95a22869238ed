from __future__ import annotations

import threading

import pytest

from service.core.timing import UNKNOWN, Timing
from service.observability import meter as module
from service.observability.meter import Meter, count_refusal


def ask(meter: Meter, *, method: str = "POST", outcome: str = "ok", timing: Timing | None = None) -> None:
    meter.request("/predict", "native", method, 200, outcome, 0.003, 10.0, timing)


def timing_of(model: str | None, version: int = 0) -> Timing:
    timing = Timing()
    timing.model, timing.version, timing.rows = model, version, 5
    timing.decode_s, timing.submitted_at, timing.begun_at, timing.done_at = 0.1, 1.0, 2.0, 4.0
    return timing


def test_nothing_is_added_up_before_somebody_asks() -> None:
    meter = Meter()

    ask(meter)

    assert meter.counts.counters == {}
    meter.fold()
    assert meter.counts.counters == {"tandem_requests_total": {("/predict", "native", "POST", "200", "ok"): 1}}


def test_method_that_nobody_knows_is_other() -> None:
    meter = Meter()

    ask(meter, method="BREW")
    meter.fold()

    assert list(meter.counts.counters["tandem_requests_total"]) == [("/predict", "native", "other", "200", "ok")]


def test_prediction_is_counted_by_model_and_its_stages_are_timed() -> None:
    meter = Meter()

    ask(meter, timing=timing_of("shop", 3))
    meter.fold()

    counters, histograms = meter.counts.counters, meter.counts.histograms
    assert counters["tandem_predictions_total"] == {("shop", "3", "ok"): 1}
    assert counters["tandem_prediction_rows_total"] == {("shop", "3"): 5}
    sums = {labels: histogram[-1] for labels, histogram in histograms["tandem_stage_duration_seconds"].items()}
    assert sums == {("shop", "decode"): 0.1, ("shop", "queue"): 1, ("shop", "compute"): 2, ("shop", "encode"): 6}


def test_model_that_is_not_there_has_one_name() -> None:
    meter = Meter()

    ask(meter, timing=timing_of(UNKNOWN), outcome="unknown-model")
    meter.fold()

    assert meter.counts.counters["tandem_predictions_total"] == {(UNKNOWN, UNKNOWN, "unknown-model"): 1}


def test_request_that_asks_no_model_is_no_prediction() -> None:
    meter = Meter()

    ask(meter, timing=Timing())
    meter.fold()

    assert "tandem_predictions_total" not in meter.counts.counters


def test_all_other_events_are_counted() -> None:
    meter = Meter()

    meter.batch(7, 2)
    meter.call("onnx", 7)
    meter.fallback("onnx")
    meter.load("live")
    meter.restart("gpu")
    meter.first_token(0.25)
    meter.tokens("prompt", 40)
    meter.tokens("prompt", 2)
    meter.fold()

    assert meter.counts.counters == {
        "tandem_engine_calls_total": {("onnx",): 1},
        "tandem_engine_rows_total": {("onnx",): 7},
        "tandem_engine_fallbacks_total": {("onnx",): 1},
        "tandem_model_loads_total": {("live",): 1},
        "tandem_device_restarts_total": {("gpu",): 1},
        "tandem_generation_tokens_total": {("prompt",): 42},
    }
    assert {name: found[()][-1] for name, found in meter.counts.histograms.items()} == {
        "tandem_batch_rows": 7,
        "tandem_batch_requests": 2,
        "tandem_generation_first_token_seconds": 0.25,
    }


def test_notes_do_not_pile_up_where_nobody_adds_them_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 10)
    meter = Meter()

    for _ in range(25):
        ask(meter)

    assert sum(meter.counts.counters["tandem_requests_total"].values()) == 22


def test_nobody_waits_for_a_scrape_to_note_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 10)
    meter = Meter()

    with meter.lock:  # held by a scrape
        for _ in range(25):
            ask(meter)
    meter.fold()

    assert sum(meter.counts.counters["tandem_requests_total"].values()) == 25


def test_no_note_of_many_threads_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 100)
    meter = Meter()

    threads = [threading.Thread(target=lambda: [ask(meter) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        meter.fold()
    meter.fold()

    assert sum(meter.counts.counters["tandem_requests_total"].values()) == 8000


def test_what_a_web_server_refuses_by_itself_is_counted_too() -> None:
    meter = Meter()

    count_refusal(400, "unreadable-request")
    meter.fold()

    assert meter.counts.counters["tandem_requests_total"] == {("none", "none", "other", "400", "unreadable-request"): 1}
