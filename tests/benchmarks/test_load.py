"""What the load generators say, read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import Load, median, parse, wrk_command

OUTPUT = """Running 2s test @ http://127.0.0.1:8000/predict
  1 threads and 64 connections
Requests/sec:   5000.00
{"requests": 10000, "us": 2000000, "p50_us": 12500, "p99_us": 25000, "max_us": 30000, \
"status": %d, "connect": 0, "read": %d, "write": 0, "timeout": 0}
"""


def test_last_line_tells_throughput_and_latency() -> None:
    output = OUTPUT % (0, 0)

    load = parse(output)

    assert load == Load(rps=5000.0, p50_ms=12.5, p99_ms=25.0, errors={})
    assert load.tail == 2.0


def test_bad_replies_and_broken_connections_are_errors() -> None:
    output = OUTPUT % (4000, 4)

    load = parse(output)

    assert load.errors == {"status": 4000, "read": 4}
    assert load.rps == 3000.0


def test_median_is_taken_of_each_figure_and_errors_are_summed() -> None:
    runs = [Load(100, 1, 9), Load(300, 3, 7, {"read": 1}), Load(200, 2, 8, {"read": 2, "status": 4})]

    load = median(runs)

    assert load == Load(200, 2, 8, {"read": 3, "status": 4})


def test_run_in_which_nothing_was_answered_has_no_tail() -> None:
    load = Load(rps=0, p50_ms=0, p99_ms=0, errors={"status": 64})

    assert load.tail != load.tail


@pytest.mark.parametrize("connections", [1, 64])
def test_wrk_runs_on_one_thread(connections: int) -> None:
    command = wrk_command("http://127.0.0.1:1/", Path("1.jsonl"), connections, 3)

    assert {"-t1", f"-c{connections}", "-d3s"} <= set(command)
    assert command[-2:] == ["--", "1.jsonl"]
