"""Section O: what the service says of itself, on each of the web servers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.protocols.route import Scope
from service.protocols.routes import DIALECTS, table
from tests.conformance.servers import SERVERS, Running, eventually, tandem_serve
from tests.conformance.wire import request, talk
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, MODEL, PREDICT, Front, is_problem

JSON: Final = ("Content-Type", "application/json")
BODY: Final = json.dumps(GOOD).encode()
METHODS: Final = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS")

Figures = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Figures:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(running: Running) -> Figures:
    (reply,) = talk(running.port, [request("GET", "/metrics")])
    assert reply.status == 200, reply.body
    return read(reply.body.decode())


def total(figures: Figures, name: str, **labels: str) -> float:
    return sum(
        value for (found, its), value in figures.items() if found == name and labels.items() <= dict(its).items()
    )


def requests_but_scrapes(figures: Figures) -> float:
    return total(figures, "tandem_requests_total") - total(figures, "tandem_requests_total", route="/metrics")


def series_of(figures: Figures) -> set[Any]:
    return set(figures)


def logged(front: Front, request_id: str) -> dict[str, Any]:
    """The line of this request in the access log."""

    def look() -> dict[str, Any] | None:
        lines = front.running.log.read_text().split("\n")
        found = [json.loads(line) for line in lines if f'"{request_id}"' in line and line.endswith("}")]
        return found[0] if found else None

    return eventually(look, f"the line of {request_id}")


def word(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_letters, k=12))


def a_stranger(chance: random.Random, method: str) -> list[bytes]:
    """Requests that nobody sent before: paths, models, versions, agents, headers."""
    headers = [("User-Agent", word(chance)), (f"X-{word(chance)}", word(chance)), JSON]
    return [
        request(method, f"/{word(chance)}/{word(chance)}", headers=headers),
        request("POST", f"/models/{word(chance)}/predict?{word(chance)}=1", BODY, headers=headers),
        request("POST", f"/models/numbers/versions/{chance.randrange(10**6)}/predict", BODY, headers=headers),
        request("POST", f"/models/numbers/labels/{word(chance)}/predict", BODY, headers=headers),
        request("POST", f"/v2/models/{word(chance)}/infer", BODY, headers=headers),
        request("GET", f"/models/{word(chance)}", headers=headers),
        request("POST", PREDICT, json.dumps({word(chance): 1}).encode(), headers=headers),
    ]


@fault(
    "O01",
    sent="random paths, methods, models, versions, agents, headers, query (210 requests)",
    expected="no metric series but those that the first requests of each kind made",
)
def test_strangers_make_no_series(front: Front, came: Came) -> None:
    chance = random.Random(5)
    for method in METHODS:
        talk(front.port, a_stranger(chance, method))
    scraped(front.running)  # which has a series of its own
    before = series_of(scraped(front.running))

    for _ in range(30):
        talk(front.port, a_stranger(chance, chance.choice(METHODS)))

    after = series_of(scraped(front.running))
    came(f"{len(after)} series, {len(after - before)} new")
    assert after == before


def test_check_for_series_notices_a_label_that_explodes() -> None:
    exploded = read('asked_total{path="/a"} 1.0\n')

    assert series_of(read('asked_total{path="/a"} 2.0\n')) == series_of(exploded)
    assert series_of(read('asked_total{path="/a"} 1.0\nasked_total{path="/b"} 1.0\n')) != series_of(exploded)


@fault(
    "O02",
    sent="CRLF, ANSI codes, quotes, U+2028 in a path, a header, a body; a value of 1 MB",
    expected="one JSON object per line, escaped, cut",
)
def test_nothing_that_is_sent_leaves_its_line(front: Front, came: Came) -> None:
    nasty = '%0D%0A{"event":1}%1B[31m%E2%80%A8%22'
    body = json.dumps({"instances": [["\r\n\x1b[31m\u2028" + "x" * 1_000_000]]}).encode()

    replies = front.send(
        request("POST", f"/models/{nasty}/predict", BODY, headers=[JSON, ("User-Agent", 'a"b\\')]),
        request("GET", f"/{nasty}{'y' * 2000}"),
        request("POST", PREDICT, body, headers=[JSON]),
    )

    for reply in replies:
        line = logged(front, reply.headers["x-request-id"])
        came(reply.status)
        assert len(json.dumps(line)) < 4000
        assert line["status"] == reply.status
    assert "\x1b" not in front.running.log.read_text()


@fault("O03", sent="a valid traceparent", expected="its trace id in the log line")
def test_trace_is_named_in_the_log(front: Front) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    (reply,) = front.send(request("GET", "/health/live", headers=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]))

    assert logged(front, reply.headers["x-request-id"])["trace_id"] == trace


@fault(
    "O03",
    sent="traceparent: zeros, bad hex, version ff; a valid one beside 4 KB of tracestate",
    expected="dropped, no trace in the log; tracestate never read",
)
def test_bad_trace_is_dropped(front: Front) -> None:
    span = "00f067aa0ba902b7"
    bad = [f"00-{'0' * 32}-{span}-01", f"00-{'x' * 32}-{span}-01", f"ff-{'4' * 32}-{span}-01"]

    replies = front.send(*[request("GET", "/health/live", headers=[("traceparent", header)]) for header in bad])
    (huge,) = front.send(
        request(
            "GET",
            "/health/live",
            headers=[("traceparent", f"00-{'4' * 32}-{span}-01"), ("tracestate", "a=" + "b" * 4096)],
        )
    )

    for reply in replies:
        line = logged(front, reply.headers["x-request-id"])
        assert (line["status"], "trace_id" in line) == (200, False)
    assert len(json.dumps(logged(front, huge.headers["x-request-id"]))) < 1000


@fault(
    "O07",
    sent="400, 404, 405, 413, 415, 422, 504 by the service",
    expected="problem+json with a request id that is in the log",
)
def test_every_refusal_is_a_problem_with_an_id_in_the_log(front: Front, came: Came) -> None:
    late = [JSON, ("X-Request-Timeout-Ms", "1")]
    replies = {
        400: front.post(b"{"),
        404: front.send(request("GET", "/nowhere"))[0],
        405: front.send(request("GET", PREDICT))[0],
        413: front.send(request("POST", PREDICT, headers=[JSON, ("Content-Length", str(10**9))]))[0],
        415: front.post(BODY, ("Content-Type", "text/plain")),
        422: front.post(b'{"instances": [[1]]}'),
        504: front.post(json.dumps({"instances": [[0.5, -0.25, 1.0, 2.0]] * 20_000}).encode(), *late),
    }

    for status, reply in replies.items():
        problem = is_problem(reply, status)
        came(status)
        assert logged(front, problem["request_id"])["status"] == status


@fault("O09", sent="GET of every route that needs no key", expected="no versions, paths or names of models")
def test_what_anybody_may_ask_tells_nothing_of_the_inside(front: Front, repository: Path, came: Came) -> None:
    public = [route.path for route in table(DIALECTS) if route.scope is Scope.PUBLIC and route.method == "GET"]
    names = {path.name for path in repository.iterdir()}
    assert {"/health/live", "/health/ready"} <= set(public)

    for path in public:
        reply = front.ask("GET", re.sub(r"{\w+}", "1", path))
        came(f"{path}: {len(reply.content)} bytes")
        assert reply.status_code == 200, path
        told = reply.text + str(reply.headers.get("server", ""))
        assert __version__ not in told
        assert str(repository.parent) not in told
        assert not {name for name in names if f'"{name}"' in told}
        assert not re.search(r"\d\.\d", told)


@fault(
    "O10",
    sent="good ones, and such as are refused for their path, method, type, size, JSON, rows, framing; one cut off",
    expected="sum of outcomes = requests sent",
)
def test_sum_of_outcomes_is_what_was_sent(front: Front, came: Came) -> None:
    before = requests_but_scrapes(scraped(front.running))

    sent = talk(
        front.port,
        [
            *[request("POST", PREDICT, BODY, headers=[JSON])] * 20,
            request("GET", "/nowhere"),
            request("GET", PREDICT),
            request("POST", PREDICT, BODY, headers=[("Content-Type", "text/plain")]),
            request("POST", PREDICT, b"{", headers=[JSON]),
            request("POST", PREDICT, b'{"instances": [["x"]]}', headers=[JSON]),
            request("POST", "/models/nobody/predict", BODY, headers=[JSON]),
            request("GET", "/health/ready"),
        ],
    )
    front.send(request("POST", PREDICT, headers=[JSON, ("Content-Length", str(10**9))]))
    with front.connect() as connection:  # half of a body, and then nothing
        connection.sendall(request("POST", PREDICT, BODY, headers=[JSON])[:-5])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)

    expected = before + len(sent) + 2
    after = eventually(lambda: _once(requests_but_scrapes(scraped(front.running)), expected), f"{expected} requests")
    came(f"{len(sent) + 2} sent, {after - before:g} counted")


def _once(value: float, expected: float) -> float | None:
    assert value <= expected, f"{value:g} counted, {expected:g} sent"
    return value if value == expected else None


@fault(
    "O11",
    sent="requests whose callers hang up, and whose deadline passes",
    expected="queue and in-flight gauges return to zero",
)
def test_gauges_return_to_zero(front: Front, came: Came) -> None:
    rows = json.dumps({"instances": [[0.5, -0.25, 1.0, 2.0]] * 20_000}).encode()
    for _ in range(5):
        with front.connect() as connection:
            connection.sendall(request("POST", PREDICT, rows, headers=[JSON]))
        assert front.post(rows, JSON, ("X-Request-Timeout-Ms", "1")).status == 504

    def gauges() -> dict[str, float]:
        figures = scraped(front.running)
        names = ("tandem_requests_in_flight", "tandem_queue_requests", "tandem_queue_rows", "tandem_queue_bytes")
        return {name: total(figures, name) for name in names}

    eventually(lambda: set(gauges().values()) == {0.0}, "gauges of zero")
    figures = scraped(front.running)
    came(f"late: {total(figures, 'tandem_requests_total', outcome='deadline-passed'):g}")
    assert total(figures, "tandem_requests_total", outcome="deadline-passed") >= 5


# -- several workers -----------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def workers(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    """A server with two workers, and the folder in which they add up."""
    folder, models = tmp_path / "metrics", tmp_path / "models"
    folder.mkdir()
    shutil.copytree(repository / MODEL, models / MODEL)
    with tandem_serve(
        *SERVERS[request.param],
        *("--workers", "2", "--models", str(models)),
        log=tmp_path / "log",
        environment={"TANDEM_METRICS_FOLDER": str(folder), "TANDEM_DEVICE": "cpu"},
    ) as running:
        yield running, folder


def predictions(running: Running) -> float:
    return total(scraped(running), "tandem_predictions_total", model="numbers", outcome="ok")


def predict(running: Running) -> None:
    (reply,) = talk(running.port, [request("POST", PREDICT, BODY, headers=[JSON])])
    assert reply.status == 200, reply.body


@fault(
    "O06",
    sent="100 scrapes at once of two workers; one of them killed",
    expected="sums of both, never less; the dead one's gauges and files go",
)
def test_scrapes_show_all_workers_living_or_dead(workers: tuple[Running, Path], came: Came) -> None:
    running, folder = workers
    eventually(lambda: total(scraped(running), "tandem_processes") == 2, "two workers")
    for _ in range(30):
        predict(running)
    eventually(lambda: predictions(running) == 30, "the sum of both")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        sums = set(pool.map(lambda _: predictions(running), range(100)))
    assert sums == {30}

    victim = next(int(lock.stem.partition("-")[0]) for lock in folder.glob("*-*.lock"))
    os.kill(victim, signal.SIGKILL)
    seen = [30.0]

    def recovered() -> bool:
        with contextlib.suppress(OSError, AssertionError):  # the killed one may still have had connections
            figures = scraped(running)
            seen.append(total(figures, "tandem_predictions_total", model="numbers", outcome="ok"))
            pids = {int(lock.stem.partition("-")[0]) for lock in folder.glob("*-*.lock")}
            return total(figures, "tandem_processes") == 2 and victim not in pids
        return False

    eventually(recovered, "another worker")
    came(f"sums {min(seen):g} to {max(seen):g}; {len(list(folder.iterdir()))} files")
    assert set(seen) == {30.0}
    predict(running)
    eventually(lambda: predictions(running) == 31, "the sum of the dead and the living")
    assert len(list(folder.glob("*.json"))) == 3  # of two workers, and of those that are gone
