"""What to wait for, where an answer is not there at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any

from service.core.deadline import Deadline
from service.protocols.api import Api
from service.protocols.http import HttpRequest, Reply

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def wait_for(api: Api, http: HttpRequest, future: Future[Reply], receive: Receive) -> Reply | None:
    """The reply to `http`, or None where its caller left.

    `receive` is that of ASGI, of a request whose body was read: it returns when the connection ends.
    """
    await asyncio.sleep(0)  # what is short is computed at the end of this turn of the loop
    if future.done():
        return future.result()
    match await _outcome(future, http.deadline, receive):
        case _Outcome.DONE:
            return future.result()
        case _Outcome.LATE:
            return api.too_late(http)
        case _Outcome.STOPPED:
            return api.stopped(http)
        case _Outcome.GONE:
            api.gone(http)
            return None


class _Outcome(Enum):
    """What came first: the answer, the deadline, the end of the connection, or that of the server."""

    DONE = auto()
    LATE = auto()
    GONE = auto()
    STOPPED = auto()


async def _outcome(future: Future[Reply], deadline: Deadline, receive: Receive) -> _Outcome:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[_Outcome] = loop.create_future()

    def come(outcome: _Outcome) -> None:
        if not first.done():
            first.set_result(outcome)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        come(_Outcome.GONE)

    def done(_: Future[Reply]) -> None:
        # After a deadline the loop may be gone before the answer comes.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(come, _Outcome.DONE)

    future.add_done_callback(done)
    late = loop.call_later(deadline.at - time.monotonic(), come, _Outcome.LATE)
    watching = loop.create_task(watch())
    try:
        return await first
    except asyncio.CancelledError:  # the time of grace is over; the caller is still told
        return _Outcome.STOPPED
    finally:
        late.cancel()
        watching.cancel()
