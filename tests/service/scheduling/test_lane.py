from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.deadline import NEVER, Deadline
from service.core.errors import (
    CannotAnswer,
    DeadlinePassed,
    ModelFailed,
    Overloaded,
    RowsRefused,
    Unavailable,
)
from service.core.futures import Done
from service.core.messages import InferRequest
from service.core.table import Matrix, Table, Values
from service.core.timing import Timing
from service.scheduling.admission import Admission
from service.scheduling.lane import TURN_S, TURNS, Lane
from service.scheduling.slices import SLICE_ROWS
from service.scheduling.workers import Permits
from service.scheduling.workers import Workers as RealWorkers
from tests.faults.cases import fault
from tests.service.scheduling.watching import Watching

_PATIENCE_S = 30.0

Answer = dict[str, Values]


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
        if self.waiting:
            self.waiting.popleft()()

    def run_all(self) -> None:
        while self.waiting:
            self.run_one()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """Answers with the first column of the rows it was given, or does what the test says for a value."""

    is_reentrant = True

    def __init__(self, instead: Callable[[float], None] = lambda value: None, log: list[float] | None = None) -> None:
        self.ran: list[float] = [] if log is None else log
        self.calls: list[list[float]] = []
        self._instead = instead

    def run(self, rows: Table, outputs: Sequence[str]) -> Answer:
        assert isinstance(rows, Matrix)
        values = rows.values[:, 0].tolist()
        self.calls.append(values)
        for value in values:
            self.ran.append(value)
            self._instead(value)
        return dict.fromkeys(outputs, rows.values[:, 0])


class Measured(Engine):
    """Says what it takes, and what would take longer: the values in `hard`."""

    def __init__(
        self, seconds: float, instead: Callable[[float], None] = lambda value: None, hard: Sequence[float] = ()
    ) -> None:
        super().__init__(instead)
        self._seconds = seconds
        self._hard = hard

    def seconds(self, rows: int, outputs: tuple[str, ...]) -> float:
        return self._seconds * rows

    def attempt(self, rows: Table, outputs: Sequence[str]) -> Answer:
        assert isinstance(rows, Matrix)
        mask = np.isin(rows.values[:, 0], list(self._hard))
        if mask.any():
            raise CannotAnswer("hard", mask)
        return self.run(rows, outputs)


def _request(value: float, *, rows: int = 1, output: str = "predict", dtype: str = "f8") -> InferRequest:
    return InferRequest(Matrix(np.full((rows, 2), value, dtype=dtype)), (output,))


def _answer(future: Future[Answer], output: str = "predict") -> float:
    values = future.result(_PATIENCE_S)[output]
    assert isinstance(values, np.ndarray)
    assert np.all(values == values[0])
    return float(values[0])


# An idle lane, a busy lane, and turns


@fault("B20", sent="one request, nothing else waiting", expected="computed at once")
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


def test_wide_lane_asks_for_as_many_threads_as_it_may_use() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers, width=3)

    futures = [lane.submit(_request(value)) for value in range(5)]

    assert len(workers.waiting) == 3
    workers.run_all()
    assert [_answer(future) for future in futures] == [0, 1, 2, 3, 4]


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


@fault("B17", sent="threads that ask an engine that is not reentrant", expected="one call at a time")
@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("may_block", [False, True])
def test_never_more_calls_at_a_time_than_the_lane_is_wide(merges: bool, may_block: bool) -> None:
    inside = threading.Lock()

    def alone(value: float) -> None:
        assert inside.acquire(blocking=False), "two calls at a time"
        threading.Event().wait(0)  # lets another thread in, if there is one
        inside.release()

    workers = RealWorkers(4)
    workers.start()
    lane = Lane(Engine(alone), workers, permits=workers.permits, merges=merges)

    def ask(first: int) -> list[float]:
        return [_answer(lane.submit(_request(first + index), may_block=may_block)) for index in range(50)]

    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(ask, (0, 100, 200, 300)))
    workers.stop()

    assert answers == [[float(first + index) for index in range(50)] for first in (0, 100, 200, 300)]


def test_busy_lane_does_not_keep_others_waiting() -> None:
    workers = Workers()
    log: list[float] = []
    busy, other = Lane(Engine(log=log), workers, clock=Clock()), Lane(Engine(log=log), workers, clock=Clock())

    for value in range(10 * TURNS):
        busy.submit(_request(value))
    other.submit(_request(-1))
    workers.run_all()

    assert log.index(-1) == TURNS
    assert len(log) == 10 * TURNS + 1


def test_lane_whose_calls_take_long_hands_its_thread_back_sooner() -> None:
    workers, clock = Workers(), Clock()
    log: list[float] = []

    def work(value: float) -> None:
        clock.now += TURN_S

    busy, other = Lane(Engine(work, log), workers, clock=clock), Lane(Engine(log=log), workers, clock=clock)

    for value in range(3):
        busy.submit(_request(value))
    other.submit(_request(-1))
    workers.run_all()

    assert log == [0, -1, 1, 2]


def test_lane_counts_its_calls_and_rows() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers, merges=True, permits=Permits(1))
    lane.submit(_request(1, rows=2), may_block=True)

    left = Deadline(math.inf, 10.0)
    lane.submit(_request(2), left)
    left.cancel()
    lane.submit(_request(3, rows=4))
    workers.run_all()

    assert (lane.calls, lane.rows) == (2, 7)


def test_observer_is_told_what_is_computed_together() -> None:
    workers, told = Workers(), Watching()
    lane = Lane(Engine(), workers, merges=True, permits=Permits(1), observer=told)

    lane.submit(_request(1, rows=2), may_block=True)
    lane.submit(_request(2, rows=3))
    lane.submit(_request(3, rows=4))
    workers.run_all()

    assert told.batches == [(2, 1), (7, 2)]


@pytest.mark.parametrize("may_block", [True, False])
def test_request_knows_when_it_was_computed(may_block: bool) -> None:
    workers = Workers()
    lane = Lane(Engine(), workers, merges=True, permits=Permits(1))
    deadline = Deadline.after(_PATIENCE_S)
    deadline.timing = Timing()
    deadline.timing.decoded(time.perf_counter(), 1)

    lane.submit(_request(1), deadline, may_block=may_block)
    workers.run_all()

    timing = deadline.timing
    assert timing.submitted_at <= timing.begun_at <= timing.done_at <= time.perf_counter()


# Batches


def test_requests_that_wait_are_computed_together() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers, merges=True)

    futures = [lane.submit(_request(value, rows=rows)) for value, rows in enumerate((1, 3, 2))]
    workers.run_all()

    assert engine.calls == [[0, 1, 1, 1, 2, 2]]
    assert [_answer(future) for future in futures] == [0, 1, 2]


def test_engine_that_looks_at_other_rows_is_asked_one_by_one() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers, merges=False)

    for value in range(3):
        lane.submit(_request(value))
    workers.run_all()

    assert engine.calls == [[0], [1], [2]]


@fault("B02", sent="requests of other outputs or types in one queue", expected="not merged")
def test_only_requests_of_a_kind_are_computed_together() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers, merges=True)

    for value, (output, dtype) in enumerate([("predict", "f8"), ("proba", "f8"), ("predict", "f4")] * 2):
        lane.submit(_request(value, output=output, dtype=dtype))
    workers.run_all()

    assert engine.calls == [[0, 3], [1, 4], [2, 5]]


def test_batch_grows_up_to_its_rows() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers, merges=True, max_batch_rows=4)

    for value, rows in enumerate((3, 1, 1, 9, 2, 2, 1)):
        lane.submit(_request(value, rows=rows))
    workers.run_all()

    assert [len(call) for call in engine.calls] == [4, 1, 9, 4, 1]


@fault("B11", sent="one kind of request that fills every batch", expected="others have their turn after one batch")
def test_kind_that_fills_one_batch_after_another_keeps_no_other_waiting() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers, merges=True, max_batch_rows=2)

    for value in range(6):
        lane.submit(_request(value))
    lane.submit(_request(-1, output="proba"))
    workers.run_all()

    assert engine.calls == [[0, 1], [-1], [2, 3], [4, 5]]


def test_request_that_comes_while_the_lane_computes_joins_the_next_batch() -> None:
    workers = Workers()
    futures: list[Future[Answer]] = []

    def others(value: float) -> None:
        if value == 0:
            futures.extend(lane.submit(_request(later)) for later in (1, 2, 3))

    engine = Engine(others)
    lane = Lane(engine, workers, merges=True)

    futures.append(lane.submit(_request(0)))
    workers.run_all()

    assert engine.calls == [[0], [1, 2, 3]]
    assert [_answer(future) for future in futures] == [0, 1, 2, 3]


# Failures


@fault("B01", "B14", sent="one request that makes the model raise or exit, others beside it", expected="fails alone")
@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ModelFailed(), id="ours"),
        pytest.param(RowsRefused(), id="the rows'"),
        pytest.param(SystemExit(1), id="code in the model exits"),
        pytest.param(KeyboardInterrupt(), id="interrupt"),
    ],
)
def test_call_that_fails_fails_alone(error: BaseException, merges: bool) -> None:
    def fail(value: float) -> None:
        if value == 1:
            raise error

    workers = Workers()
    lane = Lane(Engine(fail), workers, merges=merges)
    futures = [lane.submit(_request(value)) for value in range(5)]
    workers.run_all()

    assert futures[1].exception(0) is error
    assert [_answer(futures[index]) for index in (0, 2, 3, 4)] == [0, 2, 3, 4]


def test_one_bad_request_among_many_costs_few_calls() -> None:
    def fail(value: float) -> None:
        if value == 7:
            raise RowsRefused

    workers, engine = Workers(), Engine(fail)
    lane = Lane(engine, workers, merges=True)
    futures = [lane.submit(_request(value)) for value in range(64)]
    workers.run_all()

    assert [index for index, future in enumerate(futures) if future.exception(0)] == [7]
    assert len(engine.calls) == 1 + 2 * 6


@fault(
    "B04",
    sent="an engine that answers too few rows of a batch",
    expected="asked again in halves, each gets its own",
)
def test_engine_that_loses_rows_gives_nobody_anothers_answer() -> None:
    class Losing(Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> Answer:
            answers = super().run(rows, outputs)
            if rows.n_rows > 1:
                return {name: values[1:] for name, values in answers.items()}  # type: ignore[index,misc]
            return answers

    workers = Workers()
    lane = Lane(Losing(), workers, merges=True)
    futures = [lane.submit(_request(value)) for value in range(3)]
    workers.run_all()

    assert [_answer(future) for future in futures] == [0, 1, 2]


def test_call_on_the_callers_thread_that_fails_leaves_the_lane_idle() -> None:
    def fail(value: float) -> None:
        if value == 1:
            raise SystemExit

    permits, lane_engine = Permits(1), Engine(fail)
    lane = Lane(lane_engine, Workers(), permits=permits)

    futures = [lane.submit(_request(value), may_block=True) for value in (1, 2)]

    assert isinstance(futures[0].exception(0), SystemExit)
    assert _answer(futures[1]) == 2
    assert permits.try_take()


# Where a call is computed


@pytest.mark.parametrize(
    ("seconds", "rows", "is_here"),
    [
        pytest.param(50e-6, 1, True, id="short"),
        pytest.param(50e-6, 3, False, id="long"),
        pytest.param(math.inf, 1, False, id="unknown"),
    ],
)
def test_call_that_is_shorter_than_a_hop_is_computed_where_it_stands(seconds: float, rows: int, is_here: bool) -> None:
    workers = Workers()
    lane = Lane(Measured(seconds), workers, permits=Permits(1), hop_s=100e-6)

    future = lane.submit(_request(1, rows=rows))

    assert future.done() is is_here
    assert len(workers.waiting) == (not is_here)


def test_caller_that_would_only_wait_computes_however_long_it_takes() -> None:
    workers = Workers()
    lane = Lane(Measured(10.0), workers, permits=Permits(1))

    future = lane.submit(_request(1), may_block=True)

    assert isinstance(future, Done)
    assert _answer(future) == 1
    assert not workers.waiting


def test_nothing_is_computed_where_it_stands_without_a_permit() -> None:
    workers, permits = Workers(), Permits(1)
    lane = Lane(Measured(0.0), workers, permits=permits)
    permits.take()

    future = lane.submit(_request(1), may_block=True)

    assert not future.done()
    permits.give()
    workers.run_all()
    assert _answer(future) == 1


def test_permits_are_given_back() -> None:
    workers, permits = Workers(), Permits(2)
    lane = Lane(Measured(1.0), workers, permits=permits, width=2, merges=True)

    lane.submit(_request(1), may_block=True)
    lane.submit(_request(2))
    workers.run_all()

    assert [permits.try_take() for _ in range(3)] == [True, True, False]


def test_who_comes_while_somebody_waits_does_not_overtake() -> None:
    workers, engine = Workers(), Measured(0.0)
    permits = Permits(1)
    lane = Lane(engine, workers, permits=permits, width=2)
    permits.take()
    lane.submit(_request(1))
    permits.give()

    lane.submit(_request(2))
    workers.run_all()

    assert engine.ran == [1, 2]


def test_those_who_come_while_a_caller_computes_are_left_to_a_worker() -> None:
    workers = Workers()
    futures: list[Future[Answer]] = []

    def others(value: float) -> None:
        if value == 0:
            futures.extend(lane.submit(_request(later), may_block=True) for later in (1, 2))

    engine = Engine(others)
    lane = Lane(engine, workers, permits=Permits(1), merges=True)

    first = lane.submit(_request(0), may_block=True)

    assert first.done()
    assert not any(future.done() for future in futures)
    workers.run_all()
    assert engine.calls == [[0], [1, 2]]


def test_caller_does_not_begin_alone_where_many_come_together() -> None:
    workers = Workers()
    lane = Lane(Measured(1.0), workers, permits=Permits(1), merges=True)
    for value in range(3):
        lane.submit(_request(value))
    workers.run_all()

    crowded = [lane.submit(_request(value), may_block=True) for value in (3,)]
    workers.run_all()
    calm = lane.submit(_request(4), may_block=True)

    assert not isinstance(crowded[0], Done)
    assert isinstance(calm, Done)


def test_call_that_turns_out_long_goes_to_a_worker() -> None:
    workers, permits = Workers(), Permits(1)
    lane = Lane(Measured(0.0, hard=[7]), workers, permits=permits)

    future = lane.submit(_request(7))

    assert not future.done()
    assert permits.try_take()
    permits.give()
    workers.run_all()
    assert _answer(future) == 7


def test_caller_that_may_block_goes_through_with_a_call_that_turns_out_long() -> None:
    lane = Lane(Measured(0.0, hard=[7]), Workers(), permits=Permits(1))

    assert _answer(lane.submit(_request(7), may_block=True)) == 7


# Deadlines and callers who leave


@fault("B05", sent="a request cancelled in the queue", expected="never computed")
def test_cancelled_call_is_not_run() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers)
    deadlines = [Deadline(math.inf, 10.0) for _ in range(3)]
    futures = [lane.submit(_request(value), deadline) for value, deadline in enumerate(deadlines)]

    deadlines[1].cancel()
    workers.run_all()

    assert engine.ran == [0, 2]
    assert isinstance(futures[1].exception(0), DeadlinePassed)


@fault("B06", sent="a request cancelled while it is computed", expected="the answer is thrown away, the lane goes on")
def test_call_under_way_cannot_be_cancelled() -> None:
    workers = Workers()
    cancelled: list[bool] = []
    futures: list[Future[Answer]] = []
    lane = Lane(Engine(lambda value: cancelled.append(futures[0].cancel())), workers)

    futures.append(lane.submit(_request(1)))
    workers.run_all()

    assert cancelled == [False]
    assert _answer(futures[0]) == 1


@fault("B07", sent="a deadline that passes in the queue", expected="DeadlinePassed, no row computed")
@pytest.mark.parametrize("merges", [False, True])
def test_call_whose_deadline_is_over_takes_no_row(merges: bool) -> None:
    workers, engine, clock = Workers(), Engine(), Clock()
    lane = Lane(engine, workers, merges=merges, clock=clock)
    hung_up = Deadline(1000.0, 900.0)
    futures = [
        lane.submit(_request(value), deadline)
        for value, deadline in enumerate((Deadline(110.0, 10.0), Deadline(120.0, 20.0), hung_up))
    ]

    clock.now = 115.0
    hung_up.cancel()
    workers.run_all()

    assert engine.ran == [1]
    assert [type(future.exception(0)) for future in futures] == [DeadlinePassed, type(None), DeadlinePassed]
    assert str(futures[0].exception(0)) == "no answer within 10 seconds"


def test_call_whose_deadline_is_over_is_not_computed_where_it_stands() -> None:
    engine = Measured(0.0)
    lane = Lane(engine, Workers(), permits=Permits(1), clock=Clock())

    future = lane.submit(_request(1), Deadline(99.0, 5.0))

    assert isinstance(future.exception(0), DeadlinePassed)
    assert engine.ran == []


def test_all_that_is_dropped_makes_room() -> None:
    workers, clock = Workers(), Clock()
    admission = Admission(100, 10_000)
    lane = Lane(Engine(), workers, admission, clock=clock, merges=True)
    left = Deadline(math.inf, 10.0)
    lane.submit(_request(1), left)
    left.cancel()
    lane.submit(_request(2), Deadline(101.0, 1.0))
    lane.submit(_request(3))

    clock.now = 102.0
    workers.run_all()

    assert (admission.rows, admission.bytes) == (0, 0)


def test_answer_can_ask_again() -> None:
    workers = Workers()
    lane = Lane(Engine(), workers)
    following: list[Future[Answer]] = []

    lane.submit(_request(1)).add_done_callback(lambda _: following.append(lane.submit(_request(2))))
    workers.run_all()

    assert _answer(following[0]) == 2


# Too much, and the end


@fault("B08", sent="one row more than may wait", expected="Overloaded")
def test_more_than_may_wait_is_turned_away_at_once() -> None:
    workers = Workers()
    admission = Admission(3, 10_000)
    lane, other = (Lane(Engine(), workers, admission) for _ in range(2))
    accepted = [lane.submit(_request(1, rows=2)), other.submit(_request(2))]

    with pytest.raises(Overloaded):
        other.submit(_request(3))

    workers.run_all()
    assert [_answer(future) for future in accepted] == [1, 2]
    assert (admission.rows, admission.bytes) == (0, 0)


def test_caller_who_is_turned_away_hears_how_long_the_batches_will_take() -> None:
    class Flat(Measured):
        """A batch takes 8 seconds, however large."""

        def seconds(self, rows: int, outputs: tuple[str, ...]) -> float:
            return 8.0

    lane = Lane(Flat(8.0), Workers(), Admission(15, 10_000), merges=True, max_batch_rows=16)
    for value in range(15):
        lane.submit(_request(value))

    with pytest.raises(Overloaded) as refusal:
        lane.submit(_request(16))

    assert refusal.value.retry_after_s == 8


def test_queue_of_calls_that_take_longer_than_was_measured_admits_fewer() -> None:
    took = threading.Event()
    admission = Admission(1000, 100_000, max_s=0.2)
    lane = Lane(Measured(0.001, lambda value: took.wait(0.01) and None), workers := Workers(), admission)
    before = _admitted(lane)
    workers.run_all()

    after = _admitted(lane)

    workers.run_all()
    # A fifth of a second's worth of calls of a millisecond, and then of ten.
    assert before > 5 * after


def _admitted(lane: Lane) -> int:
    """How many calls the lane takes before it turns one away."""
    for number in range(1000):
        try:
            lane.submit(_request(number))
        except Overloaded:
            return number
    return 1000


def test_calls_accepted_before_the_workers_stop_are_finished() -> None:
    workers, engine = Workers(), Engine()
    lane = Lane(engine, workers)
    futures = [lane.submit(_request(value)) for value in range(3 * TURNS)]

    workers.is_stopped = True
    workers.run_all()

    assert all(future.done() for future in futures)
    assert len(engine.ran) == 3 * TURNS


def test_calls_that_came_while_a_caller_computed_are_finished_though_the_workers_stop() -> None:
    workers = Workers()
    futures: list[Future[Answer]] = []

    def others(value: float) -> None:
        if value == 0:
            futures.extend(lane.submit(_request(later)) for later in range(1, 2 * TURNS))
            workers.is_stopped = True

    lane = Lane(Engine(others), workers, permits=Permits(1))

    lane.submit(_request(0), may_block=True)

    assert [_answer(future) for future in futures] == list(range(1, 2 * TURNS))


def test_call_that_comes_too_late_spoils_nothing_of_what_is_under_way() -> None:
    workers = Workers()
    futures: list[Future[Answer]] = []

    def others(value: float) -> None:
        if value == 0:
            workers.is_stopped = True
            futures.extend(lane.submit(_request(later)) for later in (1, 2))

    lane = Lane(Engine(others), workers, width=2)

    futures.append(lane.submit(_request(0)))
    workers.run_all()

    assert [_answer(future) for future in futures] == [0, 1, 2]


def test_calls_after_the_workers_stopped_are_told_so() -> None:
    workers = Workers()
    workers.is_stopped = True
    admission = Admission(100, 10_000)
    lane = Lane(Engine(), workers, admission)

    futures = [lane.submit(_request(value)) for value in range(2)]

    for future in futures:
        assert isinstance(future.exception(0), Unavailable)
    assert (admission.rows, admission.bytes) == (0, 0)


def test_short_calls_after_the_workers_stopped_are_told_so_too() -> None:
    workers = RealWorkers(1)
    workers.start()
    lane = Lane(Measured(0.0), workers, permits=workers.permits)

    workers.stop()

    assert isinstance(lane.submit(_request(1), may_block=True).exception(0), Unavailable)


# Laws

_EVENTS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from(["predict", "proba"]),
        st.sampled_from(["f8", "f4"]),
        st.integers(1, 5),
        st.sampled_from([None, 1.0, 5.0]),
        st.booleans(),
        st.sampled_from(["good", "good", "good", "poison", "hard"]),
    ),
    st.tuples(st.just("hang up"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.floats(0, 3)),
    st.tuples(st.just("work")),
    st.tuples(st.just("turn")),
    st.tuples(st.just("stop")),
)


class Play:
    """A lane, and whatever may happen to it, in any order, while it computes too."""

    def __init__(self, events: list[Any], *, merges: bool, width: int, seconds: float, max_rows: int) -> None:
        self.events = deque(events)
        self.clock = Clock()
        self.workers = Workers()
        self.permits = Permits(width)
        self.admission = Admission(40, 100_000)
        self.asked: dict[float, tuple[InferRequest, Deadline, str]] = {}
        self.futures: dict[float, Future[Answer]] = {}
        self.refused = 0
        self.engine = Measured(seconds, self.compute)
        self.engine.attempt = self.attempt  # type: ignore[method-assign]
        self.lane = Lane(
            self.engine, self.workers, self.admission, permits=self.permits, width=width, merges=merges,
            max_batch_rows=max_rows, hop_s=1e-3, clock=self.clock, loop_here=asyncio._get_running_loop,
        )  # fmt: skip

    def attempt(self, rows: Table, outputs: Sequence[str]) -> Answer:
        assert isinstance(rows, Matrix)
        if any(self.asked[value][2] == "hard" for value in rows.values[:, 0].tolist()):
            raise CannotAnswer("hard", np.ones(rows.n_rows, dtype=bool))
        return self.engine.run(rows, outputs)

    def compute(self, value: float) -> None:
        if self.events and self.events[0][0] != "work":  # the threads are in the engine
            self.happen(self.events.popleft())
        if self.asked[value][2] == "poison":
            raise RowsRefused

    def happen(self, event: Any) -> None:
        match event:
            case ("submit", output, dtype, rows, seconds, may_block, what):
                value = float(len(self.asked))
                request = _request(value, rows=rows, output=output, dtype=dtype)
                deadline = NEVER if seconds is None else Deadline(self.clock.now + seconds, seconds)
                self.asked[value] = request, deadline, what
                try:
                    self.futures[value] = self.lane.submit(request, deadline, may_block=may_block)
                except Overloaded:
                    self.refused += 1
            case ("hang up", number) if float(number) in self.asked and self.asked[number][1] is not NEVER:
                self.asked[number][1].cancel()
            case ("wait", seconds):
                self.clock.now += seconds
            case ("work",):
                self.workers.run_one()
            case ("stop",):
                self.permits.close()
                self.workers.is_stopped = True

    async def perform(self) -> None:
        """On an event loop, which goes on where an event says so."""
        while self.events:
            event = self.events.popleft()
            if event == ("turn",):
                await asyncio.sleep(0)
            else:
                self.happen(event)
        await asyncio.sleep(0)
        self.workers.run_all()

    def check(self) -> None:
        for value, future in self.futures.items():
            request, deadline, what = self.asked[value]
            assert future.done(), "lost"
            match future.exception(0):
                case None:
                    answer = future.result(0)
                    assert list(answer) == list(request.outputs)
                    assert np.asarray(answer[request.outputs[0]]).tolist() == [value] * request.rows.n_rows
                    assert what != "poison"
                case DeadlinePassed():
                    assert deadline is not NEVER
                case RowsRefused():
                    assert what == "poison"
                case Unavailable():
                    assert self.workers.is_stopped
                case error:
                    raise AssertionError(error)


@fault(
    "B03",
    sent="any mix of sizes, failures, deadlines and callers who leave",
    expected="each its own answer, or its own error",
)
@given(
    events=st.lists(_EVENTS, max_size=40),
    merges=st.booleans(),
    width=st.integers(1, 3),
    seconds=st.sampled_from([1e-5, 1.0, math.inf]),
    max_rows=st.integers(1, 12),
    on_loop=st.booleans(),
)
def test_whatever_happens_every_future_completes_with_its_own_answer(
    events: list[Any], merges: bool, width: int, seconds: float, max_rows: int, on_loop: bool
) -> None:
    play = Play(events, merges=merges, width=width, seconds=seconds, max_rows=max_rows)

    if on_loop:
        asyncio.run(play.perform())
    else:
        while play.events:
            play.happen(play.events.popleft())
        play.workers.run_all()

    play.check()
    assert (play.admission.rows, play.admission.bytes) == (0, 0)
    play.permits.open()
    for call in play.engine.calls:
        requests = [play.asked[value][0] for value in dict.fromkeys(call)]
        assert len({(request.outputs, request.rows.values.dtype) for request in requests}) == 1  # type: ignore[union-attr]
        assert len(requests) == 1 or (merges and len(call) <= max_rows)


def test_many_threads_at_once_get_their_own_answers() -> None:
    workers = RealWorkers(2)
    workers.start()
    admission = Admission(10**6, 10**9)

    def fail(value: float) -> None:
        if value % 10 == 7:
            raise RowsRefused

    lane = Lane(Measured(1e-5, fail), workers, admission, permits=workers.permits, width=2, merges=True)

    def ask(caller: int) -> list[float | None]:
        values = [caller * 1000 + index for index in range(100)]
        futures = [lane.submit(_request(v), may_block=bool(caller % 2), deadline=NEVER) for v in values]
        return [None if future.exception(_PATIENCE_S) else _answer(future) for future in futures]

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(ask, range(8)))
    workers.stop()

    assert answers == [
        [None if index % 10 == 7 else caller * 1000 + index for index in range(100)] for caller in range(8)
    ]
    assert (admission.rows, admission.bytes) == (0, 0)


# Many rows in one request


class Sized(Engine):
    """Knows only how many rows it was asked for, and does in between what the test says."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self._between = between

    def run(self, rows: Table, outputs: Sequence[str]) -> Answer:
        self.sizes.append(rows.n_rows)
        self._between()
        return dict.fromkeys(outputs, np.full(rows.n_rows, 7.0))


@fault("B10", sent="a request larger than the largest batch", expected="computed in slices, answered in order")
@pytest.mark.parametrize("may_block", [False, True])
def test_many_rows_are_asked_in_slices_where_that_makes_no_difference(may_block: bool) -> None:
    engine, workers = Sized(), Workers()
    lane = Lane(engine, workers, permits=Permits(1), merges=True)

    future = lane.submit(_request(1, rows=3 * SLICE_ROWS - 5), may_block=may_block)
    workers.run_all()

    assert _answer(future) == 7.0
    assert len(future.result()["predict"]) == 3 * SLICE_ROWS - 5  # type: ignore[arg-type]
    assert max(engine.sizes) == SLICE_ROWS


def test_many_rows_are_asked_at_once_where_they_depend_on_each_other() -> None:
    engine, workers = Sized(), Workers()

    Lane(engine, workers, merges=False).submit(_request(1, rows=3 * SLICE_ROWS))
    workers.run_all()

    assert engine.sizes == [3 * SLICE_ROWS]


@pytest.mark.parametrize("may_block", [False, True])
@pytest.mark.parametrize("how", ["late", "gone"])
def test_what_nobody_waits_for_any_more_ends_with_its_slice(how: str, may_block: bool) -> None:
    clock, deadline, workers = Clock(), Deadline(105.0, 5.0), Workers()

    def happen() -> None:
        if how == "gone":
            deadline.cancel()
        clock.now += 6.0

    engine = Sized(happen)
    lane = Lane(engine, workers, permits=Permits(1), merges=True, clock=clock)

    future = lane.submit(_request(1, rows=5 * SLICE_ROWS), deadline, may_block=may_block)
    workers.run_all()

    assert isinstance(future.exception(_PATIENCE_S), DeadlinePassed)
    assert engine.sizes == [SLICE_ROWS]


class Told(Permits):
    """Writes down what is taken and given."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(1)
        self.log = log

    def take(self) -> None:
        super().take()
        self.log.append("take")

    def give(self) -> None:
        self.log.append("give")
        super().give()


@fault("B11", sent="a giant request, others that wait for the permit", expected="they compute between two slices")
def test_others_may_compute_between_two_slices() -> None:
    log: list[str] = []
    workers = Workers()
    lane = Lane(Sized(lambda: log.append("slice")), workers, permits=Told(log), merges=True)

    lane.submit(_request(1, rows=3 * SLICE_ROWS))
    workers.run_all()

    assert log[:8] == ["take", "slice", "give", "take", "slice", "give", "take", "slice"]
