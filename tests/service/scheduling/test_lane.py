from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import ModelFailed, Unavailable
from service.core.messages import InferRequest
from service.core.table import Matrix, Table, Values
from service.scheduling.lane import TURNS, Lane

_PATIENCE_S = 30.0


class Workers(Executor):
    """Worker threads without threads: what was submitted runs when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.is_stopped = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.is_stopped:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.waiting.append(fn)
        return Future()

    def run_one(self) -> None:
        self.waiting.popleft()()

    def run_all(self) -> None:
        while self.waiting:
            self.run_one()


class Engine:
    """Answers with the rows it was given, or does what the test says for them."""

    def __init__(self, instead: Callable[[float], None] = lambda value: None, log: list[float] | None = None) -> None:
        self.ran: list[float] = [] if log is None else log
        self._instead = instead

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        value = float(rows.values[0, 0])
        self.ran.append(value)
        self._instead(value)
        return dict.fromkeys(outputs, rows.values[:, 0])


def _request(value: float) -> InferRequest:
    return InferRequest(Matrix(np.array([[value]])), ("predict",))


def _answer(future: Future[dict[str, Values]]) -> float:
    values = future.result(_PATIENCE_S)["predict"]
    assert isinstance(values, np.ndarray)
    return float(values[0])


def test_idle_lane_starts_at_once() -> None:
    workers = Workers()

    Lane(Engine(), workers).submit(_request(1))

    assert len(workers.waiting) == 1


def test_busy_lane_asks_for_one_thread_only() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers)

    for value in range(5):
        lane.submit(_request(value))

    assert len(workers.waiting) == 1


def test_lane_that_is_done_takes_no_thread() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers)
    lane.submit(_request(1))
    workers.run_all()

    again = lane.submit(_request(2))
    workers.run_all()

    assert _answer(again) == 2


@given(st.lists(st.integers(1, 2 * TURNS + 3), max_size=5))
def test_order_of_arrival_is_kept_and_each_gets_its_own_answer(bursts: list[int]) -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers)
    futures = []

    for burst in bursts:
        futures += [lane.submit(_request(len(futures) + index)) for index in range(burst)]
        workers.run_one()
    workers.run_all()

    assert engine.ran == list(range(len(futures)))
    assert [_answer(future) for future in futures] == engine.ran


def test_never_two_calls_at_a_time() -> None:
    inside = threading.Lock()

    def alone(value: float) -> None:
        assert inside.acquire(blocking=False), "two calls at a time"
        threading.Event().wait(0)  # lets another thread in, if there is one
        inside.release()

    with ThreadPoolExecutor(4) as workers:
        lane = Lane(Engine(alone), workers)

        def ask(first: int) -> list[float]:
            return [_answer(lane.submit(_request(first + index))) for index in range(50)]

        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(ask, (0, 100, 200, 300)))

    assert answers == [[float(first + index) for index in range(50)] for first in (0, 100, 200, 300)]


def test_busy_lane_does_not_keep_others_waiting() -> None:
    workers = Workers()
    log: list[float] = []
    busy, other = Lane(Engine(log=log), workers), Lane(Engine(log=log), workers)

    for value in range(10 * TURNS):
        busy.submit(_request(value))
    other.submit(_request(-1))
    workers.run_all()

    assert log.index(-1) == TURNS
    assert len(log) == 10 * TURNS + 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ModelFailed(), id="ours"),
        pytest.param(SystemExit(1), id="code in the model exits"),
        pytest.param(KeyboardInterrupt(), id="interrupt"),
    ],
)
def test_call_that_fails_fails_alone(error: BaseException) -> None:
    def fail(value: float) -> None:
        if value == 1:
            raise error

    workers = Workers()
    lane = Lane(Engine(fail), workers)
    futures = [lane.submit(_request(value)) for value in range(3)]
    workers.run_all()

    assert futures[1].exception(0) is error
    assert [_answer(futures[0]), _answer(futures[2])] == [0, 2]


def test_cancelled_call_is_not_run() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers)
    futures = [lane.submit(_request(value)) for value in range(3)]

    assert futures[1].cancel()
    workers.run_all()

    assert engine.ran == [0, 2]


def test_call_under_way_cannot_be_cancelled() -> None:
    workers = Workers()
    cancelled: list[bool] = []
    futures: list[Future[dict[str, Values]]] = []
    lane = Lane(Engine(lambda value: cancelled.append(futures[0].cancel())), workers)

    futures.append(lane.submit(_request(1)))
    workers.run_all()

    assert cancelled == [False]
    assert _answer(futures[0]) == 1


def test_call_submitted_by_the_answer_before_is_run() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers)
    following: list[Future[dict[str, Values]]] = []

    lane.submit(_request(1)).add_done_callback(lambda _: following.append(lane.submit(_request(2))))
    workers.run_all()

    assert _answer(following[0]) == 2


def test_calls_accepted_before_the_workers_stop_are_finished() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers)
    futures = [lane.submit(_request(value)) for value in range(3 * TURNS)]

    workers.is_stopped = True
    workers.run_all()

    assert all(future.done() for future in futures)
    assert len(engine.ran) == 3 * TURNS


def test_calls_after_the_workers_stopped_are_told_so() -> None:
    workers = Workers()
    workers.is_stopped = True
    lane = Lane(Engine(), workers)

    futures = [lane.submit(_request(value)) for value in range(2)]

    for future in futures:
        assert isinstance(future.exception(0), Unavailable)
