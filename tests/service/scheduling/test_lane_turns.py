"""What comes to a lane in one turn of an event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from service.core.deadline import NEVER, Deadline
from service.core.errors import DeadlinePassed, Overloaded, RowsRefused
from service.core.timing import Timing
from service.scheduling.admission import Admission
from service.scheduling.lane import Lane
from service.scheduling.workers import Permits
from tests.service.scheduling.test_lane import Answer, Clock, Measured, Workers, _answer, _request
from tests.service.scheduling.watching import Watching

pytestmark = pytest.mark.anyio

QUICK_S = 1e-6


def _lane(*args: Any, **options: Any) -> Lane:
    return Lane(*args, loop_here=asyncio.get_running_loop, **options)


async def test_on_no_loop_of_the_web_server_nothing_is_gathered() -> None:
    lane = Lane(Measured(QUICK_S), Workers(), permits=Permits(1), merges=True)

    assert lane.submit(_request(1)).done()


async def test_requests_of_one_turn_are_computed_together_at_its_end() -> None:
    engine, observer = Measured(QUICK_S), Watching()
    lane = _lane(engine, Workers(), permits=Permits(1), merges=True, observer=observer)

    futures = [lane.submit(_request(value, rows=value)) for value in (1, 2, 3)]
    assert not any(future.done() for future in futures)
    await asyncio.sleep(0)

    assert [_answer(future) for future in futures] == [1, 2, 3]
    assert engine.calls == [[1, 2, 2, 3, 3, 3]]
    assert observer.batches == [(6, 3)]


async def test_one_request_of_a_turn_is_computed_as_it_came() -> None:
    engine = Measured(QUICK_S)
    lane = _lane(engine, Workers(), permits=Permits(1), merges=True)

    future = lane.submit(_request(1))
    await asyncio.sleep(0)

    assert _answer(future) == 1
    assert engine.calls == [[1]]


async def test_other_outputs_and_other_kinds_of_rows_are_computed_apart() -> None:
    engine = Measured(QUICK_S)
    lane = _lane(engine, Workers(), permits=Permits(1), merges=True)

    futures = [
        lane.submit(_request(1)),
        lane.submit(_request(2, output="proba")),
        lane.submit(_request(3, dtype="f4")),
        lane.submit(_request(4)),
    ]
    await asyncio.sleep(0)

    assert sorted(engine.calls) == [[1, 4], [2], [3]]
    assert list(futures[1].result()) == ["proba"]


async def test_no_batch_is_larger_than_a_batch_may_be() -> None:
    engine = Measured(QUICK_S)
    lane = _lane(engine, Workers(), permits=Permits(1), merges=True, max_batch_rows=4)

    for value in range(5):
        lane.submit(_request(value, rows=2))
    await asyncio.sleep(0)

    assert engine.calls == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]


async def test_a_wrong_request_fails_alone() -> None:
    def refuse(value: float) -> None:
        if value == 2:
            raise RowsRefused

    lane = _lane(Measured(QUICK_S, refuse), Workers(), permits=Permits(1), merges=True)

    futures = [lane.submit(_request(value)) for value in (1, 2, 3)]
    await asyncio.sleep(0)

    assert isinstance(futures[1].exception(), RowsRefused)
    assert (_answer(futures[0]), _answer(futures[2])) == (1, 3)


async def test_an_engine_that_would_end_the_process_ends_its_own_request_only() -> None:
    def leave(value: float) -> None:
        if value == 2:
            raise SystemExit

    lane = _lane(Measured(QUICK_S, leave), Workers(), permits=Permits(1), merges=True)

    futures = [lane.submit(_request(value)) for value in (1, 2)]
    await asyncio.sleep(0)

    assert isinstance(futures[1].exception(), SystemExit)
    assert _answer(futures[0]) == 1


async def test_what_takes_longer_than_was_thought_goes_to_a_worker() -> None:
    workers = Workers()
    lane = _lane(Measured(QUICK_S, hard=[2]), workers, permits=Permits(1), merges=True)

    futures = [lane.submit(_request(value)) for value in (1, 2)]
    await asyncio.sleep(0)
    assert futures[0].done()
    assert not futures[1].done()
    workers.run_all()

    assert _answer(futures[1]) == 2


async def test_late_and_cancelled_requests_are_not_computed() -> None:
    engine, clock = Measured(QUICK_S), Clock()
    lane = _lane(engine, Workers(), permits=Permits(1), merges=True, clock=clock)
    left = Deadline(1000.0, 900.0)

    futures = [lane.submit(_request(1), Deadline(101.0, 1.0)), lane.submit(_request(2), left), lane.submit(_request(3))]
    clock.now = 102.0
    left.cancel()
    await asyncio.sleep(0)

    assert [type(future.exception()) for future in futures] == [DeadlinePassed, DeadlinePassed, type(None)]
    assert engine.ran == [3]


async def test_times_are_noted_of_each() -> None:
    lane = _lane(Measured(QUICK_S), Workers(), permits=Permits(1), merges=True)
    deadlines = [Deadline(1e9, 1e9) for _ in range(2)]
    for deadline in deadlines:
        deadline.timing = Timing()

    for deadline in deadlines:
        lane.submit(_request(1), deadline)
    await asyncio.sleep(0)

    for deadline in deadlines:
        assert deadline.timing is not None
        assert 0 < deadline.timing.begun_at <= deadline.timing.done_at


async def test_what_was_let_in_is_computed_though_the_lane_is_busy_and_the_queue_full_by_then() -> None:
    workers, permits, admission = Workers(), Permits(1), Admission(1, 10_000)
    lane = _lane(Measured(QUICK_S), workers, admission, permits=permits, merges=True)

    futures = [lane.submit(_request(value)) for value in (1, 2, 3)]
    permits.take()
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):  # whoever comes now
        lane.submit(_request(4))
    permits.give()
    workers.run_all()

    assert [_answer(future) for future in futures] == [1, 2, 3]
    assert (admission.rows, admission.bytes, admission.requests) == (0, 0, 0)


@pytest.mark.parametrize(("seconds", "merges"), [(1.0, True), (QUICK_S, False)])
async def test_long_calls_and_those_that_must_not_be_merged_are_not_gathered(seconds: float, merges: bool) -> None:
    workers = Workers()
    lane = _lane(Measured(seconds), workers, permits=Permits(1), merges=merges)

    future: Future[Answer] = lane.submit(_request(1))

    assert future.done() == (not merges)
    workers.run_all()
    assert _answer(future) == 1


async def test_answers_are_each_requests_own_rows() -> None:
    lane = _lane(Measured(QUICK_S), Workers(), permits=Permits(1), merges=True)
    futures = [lane.submit(_request(value, rows=1 + value % 3), NEVER) for value in range(200)]
    await asyncio.sleep(0)

    for value, future in enumerate(futures):
        assert np.asarray(future.result()["predict"]).tolist() == [value] * (1 + value % 3)
