"""Models that fail, and queues that are full, behind each web server. What needs a fake clock or an engine that obeys
the test is shown in tests/service/scheduling, processes that die in tests/service/runtimes/test_device_process.py."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import numpy as np
import pytest

from service.observability.stray import LINES
from tests.conformance.servers import SERVERS, eventually, tandem_serve
from tests.faults.cases import Came, fault
from tests.faults.fronts import MODEL, PATIENCE_S, Front, is_problem
from tests.faults.odd import Act, Odd
from training.export import export

QUEUE_ROWS: Final = 8
PREDICT: Final = "/models/odd/predict"


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the gate; its `models` are the odd one and a good one."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(repository / MODEL, folder / "models" / MODEL)
    X = np.column_stack([np.arange(10.0), np.zeros(10)])
    export(Odd(str(folder)).fit(X), X, name="odd", repository=folder / "models")
    return folder


@pytest.fixture(scope="module", params=SERVERS)
def front(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One computing thread, and a queue of a few rows."""
    arguments = (*SERVERS[request.param], "--models", str(folder / "models"), "--trust", "tests.faults.odd.Odd")
    environment = {"TANDEM_THREADS": "1", "TANDEM_QUEUE_ROWS": str(QUEUE_ROWS)}
    log = tmp_path_factory.mktemp("logs") / request.param
    with tandem_serve(*arguments, log=log, environment=environment) as server:
        yield Front(request.param, server)


@pytest.fixture(autouse=True)
def _is_well_after(front: Front) -> Iterator[None]:
    since = front.running.log.stat().st_size
    yield
    front.is_well(since)


def ask(front: Front, value: float, act: Act = Act.ANSWER, **headers: str) -> httpx.Response:
    return front.ask(path=PREDICT, json={"instances": [[value, float(act)]]}, headers=headers)


def answer(reply: httpx.Response) -> float:
    assert reply.status_code == 200, reply.text
    (value,) = reply.json()["predictions"]
    return float(value)


@contextmanager
def closed_gate(front: Front, folder: Path) -> Iterator[None]:
    """One request computes, and goes on only afterwards: what comes meanwhile is queued."""
    (folder / "waits").unlink(missing_ok=True)
    (folder / "closed").touch()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(ask, front, 0.0, Act.WAIT)
        try:
            eventually(lambda: (folder / "waits").exists(), "the first request to be under way")
            yield
        finally:
            (folder / "closed").unlink()
        assert answer(first.result(PATIENCE_S)) == 0.0


def queued(front: Front, folder: Path, acts: list[Act]) -> list[httpx.Response]:
    """Replies to requests that waited together, each of which asks for twice its own place."""
    with ThreadPoolExecutor(len(acts)) as threads:
        with closed_gate(front, folder):
            asked = [threads.submit(ask, front, float(place), act) for place, act in enumerate(acts)]
            time.sleep(0.3)  # until they are in; those that come later are only merged with fewer
        return [one.result(PATIENCE_S) for one in asked]


@fault(
    "B01", "B14", sent="one request among others that makes the model raise, exit, recurse", expected="500 for it alone"
)
@pytest.mark.parametrize("act", [Act.RAISE, Act.EXIT, Act.INTERRUPT, Act.NO_MEMORY, Act.RECURSE])
def test_request_that_no_model_can_stand_fails_alone(act: Act, front: Front, folder: Path, came: Came) -> None:
    replies = queued(front, folder, [Act.ANSWER, act, Act.ANSWER, Act.ANSWER])
    came(*(reply.status_code for reply in replies))

    bad = replies.pop(1)
    if act is not Act.RAISE:  # a ValueError may be the rows' own fault, and then it is 422
        is_problem(bad, 500)
    assert bad.status_code in (422, 500)
    assert "no model can stand" not in bad.text
    assert [answer(reply) for reply in replies] == [0.0, 4.0, 6.0]


@fault(
    "B04", sent="a model that answers too few or too many rows, others beside it", expected="500, nobody gets another's"
)
@pytest.mark.parametrize("act", [Act.FEWER_ROWS, Act.MORE_ROWS])
def test_model_that_loses_rows(act: Act, front: Front, folder: Path, came: Came) -> None:
    replies = queued(front, folder, [Act.ANSWER, act, Act.ANSWER])
    came(*(reply.status_code for reply in replies))

    is_problem(replies[1], 500)
    assert [answer(replies[place]) for place in (0, 2)] == [0.0, 4.0]


@fault("B07", sent="a request whose deadline passes in the queue", expected="504 at the deadline, never computed")
def test_deadline_in_the_queue(front: Front, folder: Path, came: Came) -> None:
    with closed_gate(front, folder):
        begun = time.monotonic()
        reply = ask(front, 1.0, Act.CRASH, **{"X-Request-Timeout-Ms": "200"})  # were it computed, nobody would be left
        took_s = time.monotonic() - begun
    came(reply.status_code)

    is_problem(reply, 504)
    assert took_s < PATIENCE_S / 2


@fault(
    "B08", sent=f"twice as many requests as may wait ({QUEUE_ROWS})", expected="the overflow gets 503 at once, no other"
)
def test_full_queue(front: Front, folder: Path, came: Came) -> None:
    with ThreadPoolExecutor(2 * QUEUE_ROWS) as threads:
        with closed_gate(front, folder):
            asked = [threads.submit(ask, front, float(place)) for place in range(2 * QUEUE_ROWS)]
            # While the gate is closed nobody is answered but those who are refused.
            eventually(lambda: sum(one.done() for one in asked) >= QUEUE_ROWS, "the overflow to be refused")
            refused: list[Future[httpx.Response]] = [one for one in asked if one.done()]
        replies = [one.result(PATIENCE_S) for one in asked]
    came(*sorted(reply.status_code for reply in replies))

    assert len(refused) == QUEUE_ROWS
    for one in refused:
        is_problem(one.result(), 503)
        assert int(one.result().headers["retry-after"]) >= 1
    assert [answer(reply) for one, reply in zip(asked, replies, strict=True) if one not in refused] == [
        2.0 * place for place, one in enumerate(asked) if one not in refused
    ]


@fault(
    "B16",
    sent="a model that changes its rows and numpy's random state, others beside it",
    expected="the others' own answers",
)
def test_model_that_spoils_its_rows(front: Front, folder: Path, came: Came) -> None:
    replies = queued(front, folder, [Act.ANSWER, Act.SPOIL, Act.ANSWER, Act.ANSWER])
    came(*(reply.status_code for reply in replies))

    assert [answer(reply) for reply in replies] == [0.0, 2.0, 4.0, 6.0]
    assert answer(ask(front, 5.0)) == 10.0


@fault(
    "B19", sent="30 requests to a model that prints and warns on every call", expected="answered; a few lines of JSON"
)
def test_model_that_talks(front: Front, came: Came) -> None:
    before = front.running.log.stat().st_size
    values = [answer(ask(front, float(place), Act.PRINT)) for place in range(30)]
    told = front.running.log.read_bytes()[before:].splitlines()
    talk = [line for line in told if b"that talks" in line or b"complains" in line or b"that warns" in line]
    came("answered", f"{len(talk)} lines in the log")

    assert values == [2.0 * place for place in range(30)]
    assert 0 < len(talk) <= LINES


@fault("B20", sent="one request at a time, nothing else waiting", expected="no wait for others")
def test_single_client_never_waits_for_others(front: Front, came: Came) -> None:
    took_s = []
    for place in range(10):
        begun = time.perf_counter()
        assert answer(ask(front, float(place))) == 2.0 * place
        took_s.append(time.perf_counter() - begun)
    came(f"{min(took_s) * 1000:.1f} ms")

    # A window of waiting would be in each of them; no window that is any use is as long as this.
    assert min(took_s) < 1.0
