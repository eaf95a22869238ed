from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.observability import reporter as module
from service.observability.counts import Gauges
from service.observability.meter import Meter
from service.observability.reporter import Reporter, Scraped
from tests.faults.cases import fault

PATIENCE_S = 30.0

Make = Callable[..., tuple[Meter, Reporter]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes reporters, and stops them after the test."""
    with ExitStack() as stack:

        def made(folder: Path | None = None, gauges: Callable[[], Gauges] = dict) -> tuple[Meter, Reporter]:
            meter = Meter()
            reporter = Reporter(meter, gauges, lambda: ["shop"], folder)
            stack.callback(reporter.stop)
            return meter, reporter

        yield made


def calls(scraped: Future[Scraped]) -> float:
    """What the text says of the calls of an engine, 0 where it says nothing."""
    found = re.search(rb'^tandem_engine_calls_total{engine="onnx"} (\S+)$', scraped.result(PATIENCE_S)[0], re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


@pytest.mark.parametrize("is_started", [True, False])
def test_scrape_shows_all_that_was_counted_before_it(make: Make, is_started: bool) -> None:
    meter, reporter = make()
    if is_started:
        reporter.start()

    found = []
    for _ in range(3):
        meter.call("onnx", 1)
        found.append(calls(reporter.scrape("")))

    assert found == [1, 2, 3]


def test_what_a_process_takes_grows_by_what_it_took_since(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([2.0, 5.0])
    monkeypatch.setattr(module, "process_totals", lambda: {"process_cpu_seconds_total": next(taken)})
    meter, reporter = make()

    for _ in range(2):
        reporter.scrape("").result(PATIENCE_S)

    assert meter.counts.counters["process_cpu_seconds_total"] == {(): 5.0}


def test_each_scrape_gets_the_form_it_asked_for(make: Make) -> None:
    _, reporter = make()
    reporter.start()

    text, other = reporter.scrape(""), reporter.scrape("application/openmetrics-text")

    assert text.result(PATIENCE_S)[1].startswith("text/plain")
    assert other.result(PATIENCE_S)[1].startswith("application/openmetrics-text")


@fault("O06", sent="100 scrapes at once", expected="answered together: the figures are read a few times, not 100")
def test_scrapes_that_come_together_are_answered_together(make: Make) -> None:
    may_go, looks = threading.Event(), []

    def gauges() -> Gauges:
        looks.append(None)
        may_go.wait(PATIENCE_S)
        return {}

    meter, reporter = make(gauges=gauges)
    reporter.start()
    meter.call("onnx", 1)

    scrapes = [reporter.scrape("") for _ in range(100)]
    may_go.set()

    assert {calls(scrape) for scrape in scrapes} == {1}
    assert len(looks) <= 4


def test_processes_are_summed_whoever_is_asked(make: Make, tmp_path: Path) -> None:
    (one, first), (two, second) = make(tmp_path), make(tmp_path)
    one.call("onnx", 1)
    two.call("onnx", 1)

    first.scrape("")
    assert calls(second.scrape("")) == 2
    assert calls(first.scrape("")) == 2


def test_others_see_what_a_process_had_counted_when_it_stopped(make: Make, tmp_path: Path) -> None:
    (_, lasting), (meter, ending) = make(tmp_path), make(tmp_path)
    lasting.start()
    ending.start()
    meter.call("onnx", 1)

    ending.stop()

    assert calls(lasting.scrape("")) == 1


def test_start_after_a_stop_counts_nothing_twice(make: Make, tmp_path: Path) -> None:
    meter, reporter = make(tmp_path)
    for _ in range(2):
        reporter.start()
        meter.call("onnx", 1)
        reporter.stop()
    reporter.start()

    assert calls(reporter.scrape("")) == 2


def test_others_see_what_was_counted_without_a_scrape(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PUBLISH_S", 0.01)
    (meter, busy), (_, asked) = make(tmp_path), make(tmp_path)
    busy.start()
    meter.call("onnx", 1)

    patience = threading.Event()
    while calls(asked.scrape("")) == 0:
        patience.wait(0.01)


def test_child_of_a_fork_begins_anew(make: Make, tmp_path: Path) -> None:
    (meter, reporter), (_, other) = make(tmp_path), make(tmp_path)
    meter.call("onnx", 1)
    reporter.scrape("")

    reporter.forget()

    assert meter.counts.counters == {}
    assert calls(other.scrape("")) == 1


def test_folder_that_is_gone_leaves_the_figures_of_this_process(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter, reporter = make(tmp_path / "gone")
    meter.call("onnx", 1)

    assert [calls(reporter.scrape("")) for _ in range(3)] == [1, 1, 1]
    assert caplog.text.count("cannot be used") == 1


def test_failure_fails_its_scrape_and_no_other(make: Make) -> None:
    fails = [True]

    def gauges() -> Gauges:
        if fails:
            raise ValueError("broken")
        return {}

    _, reporter = make(gauges=gauges)
    reporter.start()

    broken = reporter.scrape("")
    with pytest.raises(ValueError, match="broken"):
        broken.result(PATIENCE_S)
    fails.clear()

    assert reporter.scrape("").result(PATIENCE_S)
