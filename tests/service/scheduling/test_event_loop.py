from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from service.core.loop import Turning
from service.scheduling.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.stop()


class Source:
    """Counts, and knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def count(self, to: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(to):
                yield number
                await asyncio.sleep(0)
        finally:
            self.closed.set()


async def _thread() -> str:
    return threading.current_thread().name


def test_work_runs_on_a_thread_of_its_own_and_always_on_the_same(loop: EventLoop) -> None:
    assert {loop.run(_thread()).result(10) for _ in range(3)} == {"tandem-loop"}


def test_what_work_raises_comes_out_of_its_future(loop: EventLoop) -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        loop.run(fail()).result(10)


def test_work_whose_future_is_cancelled_is_cancelled(loop: EventLoop) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = loop.run(wait())
    assert begun.wait(10)

    future.cancel()

    assert ended.wait(10)


def test_thread_iterates_over_what_the_loop_yields(loop: EventLoop) -> None:
    assert list(loop.iterate(Source().count(5))) == [0, 1, 2, 3, 4]


def test_what_is_left_before_its_end_is_closed(loop: EventLoop) -> None:
    source = Source()
    numbers: Any = loop.iterate(source.count(1000))
    assert next(numbers) == 0

    numbers.close()

    assert source.closed.is_set()


def test_what_the_source_raises_reaches_the_thread(loop: EventLoop) -> None:
    async def fail() -> AsyncGenerator[int, None]:
        yield 1
        raise OSError("gone")

    numbers = loop.iterate(fail())
    assert next(numbers) == 1

    with pytest.raises(OSError, match="gone"):
        next(numbers)


def test_work_that_is_under_way_at_the_end_is_cancelled() -> None:
    loop = EventLoop()
    future = loop.run(asyncio.sleep(60))

    loop.stop()

    with pytest.raises(CancelledError):
        future.result(10)


def test_loop_of_a_web_server_is_used_and_left_running() -> None:
    async def ask() -> str:
        loop = EventLoop()
        loop.adopt(asyncio.get_running_loop())
        name = await asyncio.wrap_future(loop.run(_thread()))
        loop.stop()
        await asyncio.sleep(0)
        return name

    assert asyncio.run(ask()) == threading.current_thread().name


def test_child_that_was_forked_begins_anew(loop: EventLoop) -> None:
    loop.run(_thread()).result(10)
    child = EventLoop()
    child.__dict__.update(loop.__dict__)

    child.forget()

    assert child.run(_thread()).result(10) == "tandem-loop"
    child.stop()


def test_only_the_loop_of_the_web_server_is_here_and_only_while_it_runs(loop: EventLoop) -> None:
    async def look() -> Turning | None:
        return loop.here()

    assert loop.here() is None
    assert loop.run(look()).result() is None  # a loop of our own
    loop.stop()

    async def serve() -> Turning | None:
        assert loop.here() is None
        loop.adopt(asyncio.get_running_loop())
        assert await asyncio.to_thread(loop.here) is None
        return loop.here()

    assert asyncio.run(serve()) is not None
    assert loop.here() is None


def test_what_reads_by_turns_is_here_on_its_thread_only(loop: EventLoop) -> None:
    class Reader:
        def call_soon(self, call: Callable[..., object], *arguments: Any) -> None: ...

    reader = Reader()
    elsewhere: list[Turning | None] = []

    loop.reads(reader)
    thread = threading.Thread(target=lambda: elsewhere.append(loop.here()))
    thread.start()
    thread.join()

    assert loop.here() is reader
    assert elsewhere == [None]
    loop.forget()
    assert loop.here() is None
