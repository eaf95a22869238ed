from __future__ import annotations

import asyncio

import pytest

from service.entrypoints.deadlines import Deadlines

pytestmark = pytest.mark.anyio

# Long against what the event loop takes, short for a test. Nothing here must be in time, only in order.
SECONDS = 0.05


async def test_what_is_not_ended_is_late_once_and_in_order() -> None:
    deadlines, late = Deadlines(SECONDS), list[str]()
    done = asyncio.Event()
    for name in ("first", "ended", "last"):
        deadlines.begin(name, lambda name=name: late.append(name))  # type: ignore[misc]
    deadlines.end("ended")
    deadlines.begin("end of the test", done.set)

    await done.wait()

    assert late == ["first", "last"]


async def test_beginning_anew_gives_the_whole_time_again() -> None:
    deadlines, late = Deadlines(SECONDS), list[str]()
    done = asyncio.Event()
    deadlines.begin("again", lambda: late.append("again"))
    deadlines.begin("once", lambda: late.append("once"))
    deadlines.begin("again", done.set)

    await done.wait()

    assert late == ["once"]


async def test_what_has_not_begun_can_be_ended() -> None:
    Deadlines(SECONDS).end("never begun")


async def test_the_first_can_be_made_late_at_once() -> None:
    deadlines, late = Deadlines(3600), list[str]()
    deadlines.begin("first", lambda: late.append("first"))
    deadlines.begin("second", lambda: late.append("second"))

    made = [deadlines.end_first() for _ in range(3)]

    assert made == [True, True, False]
    assert late == ["first", "second"]


async def test_the_timer_rests_while_nothing_is_under_way() -> None:
    deadlines, others = Deadlines(SECONDS), Deadlines(2 * SECONDS)
    rested, done = asyncio.Event(), asyncio.Event()
    deadlines.begin("ended", lambda: None)
    deadlines.end("ended")
    others.begin("a while", rested.set)
    await rested.wait()

    deadlines.begin("later", done.set)

    await done.wait()
