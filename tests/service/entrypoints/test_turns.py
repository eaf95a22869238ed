"""Whose turn it is on a loop; that health is asked in between is shown in `test_uvicorn_whole.py`."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from service.entrypoints.turns import Turns

pytestmark = pytest.mark.anyio


def ticking(turn: int) -> Turns:
    """Turns of so many pieces of work."""
    clock = count()
    return Turns(asyncio.get_running_loop, turn_s=turn, clock=lambda: float(next(clock)))


async def test_work_is_done_in_order_some_of_it_each_turn() -> None:
    turns, done = ticking(2), []
    for number in range(5):
        turns.add(lambda number=number: done.append(number))

    assert done == []
    seen = []
    while len(done) < 5:
        await asyncio.sleep(0)
        seen.append(list(done))
    assert seen == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


async def test_what_work_adds_comes_last() -> None:
    turns, done = ticking(100), []

    def first() -> None:
        turns.add(lambda: done.append("third"))
        done.append("first")

    turns.add(first)
    turns.add(lambda: done.append("second"))
    await asyncio.sleep(0)

    assert done == ["first", "second", "third"]
    turns.add(lambda: done.append("later"))
    await asyncio.sleep(0)
    assert done[3:] == ["later"]


async def test_work_that_fails_keeps_nobody_else_from_their_turn() -> None:
    turns, done, failed = ticking(100), [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    turns.add(lambda: 1 // 0)
    turns.add(lambda: done.append("second"))

    while not done:
        await asyncio.sleep(0)
    assert [type(error) for error in failed] == [ZeroDivisionError]


async def test_a_result_is_waited_for() -> None:
    assert await ticking(1).result(lambda: "found") == "found"


async def test_nothing_is_done_for_a_task_that_is_over() -> None:
    turns, done = ticking(1), []
    task = asyncio.ensure_future(turns.result(lambda: done.append("work")))
    turns.add(lambda: None)
    await asyncio.sleep(0)
    task.cancel()

    while turns._waiting:
        await asyncio.sleep(0)
    assert done == []
