from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.core.errors import NotReceived, Unavailable
from service.core.futures import Done
from service.entrypoints.fastapi_app import _Endpoint
from service.entrypoints.limits import IN_PIECES
from service.entrypoints.turns import Turns
from service.protocols.columnar.arrow import decode_table
from service.protocols.http import DuplexReply
from service.protocols.streaming import arrow
from service.protocols.streaming.arrow import ArrowStream
from tests.service.entrypoints.streaming import Count, Echo, Streams, counting, echoing
from tests.service.protocols.streaming.bodies import stream_of
from tests.service.protocols.streaming.held import NUMBERS, FakeHeld
from tests.service.protocols.streaming.held import asked as in_time


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Caller:
    """The other end: what it sends, and what it got. After its messages it is silent, leaves, or is late."""

    def __init__(self, *messages: Any, leaves_after: int | None = None, is_late: bool = False) -> None:
        self._messages = [{"type": "http.request", "body": body, "more_body": more} for body, more in messages]
        self._leaves_after = leaves_after
        self._is_late = is_late
        self.is_silent = asyncio.Event()
        self.left = asyncio.Event()
        self.started: dict[str, Any] = {}
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.in_pieces = 0
        self.read = 0  # messages
        self.read_before = 0  # the answer began

    async def receive(self) -> Any:
        self.read += 1
        if self._messages:
            return self._messages.pop(0)
        if self._is_late:
            raise NotReceived("body", 1)
        self.is_silent.set()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.started = message
            self.read_before = self.read
            return
        if message["body"]:
            self.pieces.append(message["body"])
        self.is_complete = not message.get("more_body", False)
        if self._leaves_after is not None and len(self.pieces) >= self._leaves_after:
            self.left.set()

    def _count(self) -> None:
        self.in_pieces += 1

    async def ask(self, streams: Streams, *headers: tuple[bytes, bytes]) -> None:
        streams.loop.adopt(asyncio.get_running_loop())
        scope = {
            "type": "http", "method": "POST", "path": "/s", "query_string": b"", "headers": headers,
            "http_version": "1.1", "extensions": {IN_PIECES: self._count},
        }  # fmt: skip
        async with asyncio.timeout(20):
            await _Endpoint(streams.api, streams.paths["/s"], Turns(asyncio.get_running_loop))(
                scope, self.receive, self.send
            )


@pytest.mark.anyio
async def test_pieces_are_passed_on_as_they_come() -> None:
    count, caller = Count(), Caller((b"", False))
    streams = counting(count)

    await caller.ask(streams)

    assert caller.started["status"] == 200
    assert dict(caller.started["headers"])[b"content-type"] == b"text/plain"
    assert (caller.pieces, caller.is_complete) == ([b"1", b"2", b"3"], True)
    assert (streams.recorded, count.closed, streams.api.places.taken) == ([(200, None)], True, 0)


@pytest.mark.anyio
async def test_stream_is_given_up_when_its_caller_leaves() -> None:
    count, caller = Count(endless=True), Caller((b"", False), leaves_after=5)
    streams = counting(count)

    await caller.ask(streams)

    assert not caller.is_complete
    assert ([status for status, _ in streams.recorded], count.closed) == ([499], True)
    assert (streams.api.places.taken, streams.api.under_way) == (0, set())


@pytest.mark.anyio
async def test_stream_that_opens_after_its_caller_left_is_closed() -> None:
    count, caller = Count(endless=True), Caller((b"", False))
    opening = asyncio.Event()

    async def late() -> Any:
        await opening.wait()
        return await count.reply()

    streams = Streams(lambda loop: loop.run(late()))
    asking = asyncio.create_task(caller.ask(streams))
    await asyncio.sleep(0.01)
    caller.left.set()
    await asking
    opening.set()
    async with asyncio.timeout(10):
        while not count.closed:
            await asyncio.sleep(0.01)

    assert [status for status, _ in streams.recorded] == [499]


@pytest.mark.anyio
async def test_body_is_answered_piece_by_piece() -> None:
    echo, caller = Echo(), Caller((b"a", True), (b"b", False))
    streams = echoing(echo)

    await caller.ask(streams)

    assert (caller.pieces, caller.is_complete) == ([b"A", b"B", b"END"], True)
    assert caller.in_pieces == 1
    assert (streams.recorded, streams.api.places.taken) == ([(200, None)], 0)
    assert echo.closed


@pytest.mark.anyio
async def test_body_whose_sender_leaves_is_given_up() -> None:
    echo, caller = Echo(), Caller((b"a", True), leaves_after=1)
    streams = echoing(echo)

    await caller.ask(streams)

    assert (caller.pieces, caller.is_complete) == ([b"A"], False)
    assert [status for status, _ in streams.recorded] == [499]
    assert echo.closed


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "read"), [((), 0), (((b"expect", b"100-continue"),), 1)], ids=["sent", "held back"]
)
async def test_body_that_waits_to_be_asked_for_is_read_before_the_answer_begins(headers: Any, read: int) -> None:
    caller = Caller((b"a", True), (b"b", False))

    await caller.ask(echoing(Echo()), *headers)

    assert (caller.read_before, caller.pieces) == (read, [b"A", b"B", b"END"])


@pytest.mark.anyio
async def test_body_is_read_no_further_than_it_is_answered() -> None:
    caller = Caller((b"enough", True), (b"more", True))

    await caller.ask(echoing(Echo()))

    assert (caller.pieces, caller.is_complete) == ([b"ENOUGH", b"END"], True)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [(), ((b"expect", b"100-continue"),)], ids=["sent", "held back"])
@pytest.mark.parametrize("sent", [[(b"a", True)], []])
async def test_body_that_is_late_is_told_so_at_the_end(sent: list[Any], headers: Any) -> None:
    echo, caller = Echo(), Caller(*sent, is_late=True)
    streams = echoing(echo)

    await caller.ask(streams, *headers)

    assert (caller.pieces, caller.is_complete) == ([b"A"] * len(sent) + [b"NotReceived"], True)
    assert [(status, type(error)) for status, error in streams.recorded] == [(200, NotReceived)]
    assert echo.closed


@pytest.mark.anyio
async def test_stream_that_the_server_gives_up_is_told_so_at_the_end() -> None:
    echo, caller = Echo(), Caller((b"a", True))
    streams = echoing(echo)
    asking = asyncio.create_task(caller.ask(streams))
    await caller.is_silent.wait()

    asking.cancel()
    await asking

    assert (caller.pieces, caller.is_complete) == ([b"A", b"Unavailable"], True)
    assert [(status, type(error)) for status, error in streams.recorded] == [(200, Unavailable)]
    assert echo.closed


class Slow(Echo):
    """Takes until it is told to go on for a piece that is complete; `has_begun` with that."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.goes_on = threading.Event()

    def feed(self, piece: bytes) -> Iterator[Future[bytes]]:
        if piece.endswith(b"."):
            self.has_begun.set()
            assert self.goes_on.wait(20), "nobody else was answered meanwhile"
            yield Done(b"DONE")


@pytest.mark.anyio
async def test_others_are_answered_while_what_is_large_is_decoded() -> None:
    slow, caller, other = Slow(), Caller(*[(b"x" * 65_536, True)] * 16, (b".", False)), Caller((b"a", False))
    asking = asyncio.create_task(caller.ask(echoing(slow)))
    await asyncio.to_thread(slow.has_begun.wait, 20)

    await other.ask(echoing(Echo()))
    assert not caller.pieces
    slow.goes_on.set()
    await asking

    assert (other.pieces, caller.pieces) == ([b"A", b"END"], [b"DONE", b"END"])


@pytest.mark.anyio
async def test_others_are_answered_while_a_long_message_of_arrow_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, goes_on = threading.Event(), threading.Event()

    def waiting(pa: Any, table: Any, *more: Any) -> Any:
        if table.num_rows > 1:  # not the example
            has_begun.set()
            assert goes_on.wait(20), "nobody else was answered meanwhile"
        return decode_table(pa, table, *more)

    monkeypatch.setattr(arrow, "decode_table", waiting)
    held = FakeHeld(NUMBERS, merges=False)
    X = np.full((2**24 // 24, 3), 20.0)  # 16 MiB
    sent = stream_of(pa.table({f"x{place}": X[:, place] for place in range(3)}))
    caller = Caller(*((sent[at : at + 65_536], True) for at in range(0, len(sent), 65_536)), (b"", False))
    other = Caller((b"a", False))
    streams = Streams(
        lambda loop: DuplexReply(ArrowStream(held, ("predict",), in_time()), "text/plain"), reads_pieces=True
    )
    asking = asyncio.create_task(caller.ask(streams))
    await asyncio.to_thread(has_begun.wait, 20)

    await other.ask(echoing(Echo()))
    goes_on.set()
    await asking

    assert other.pieces == [b"A", b"END"]
    assert pa.ipc.open_stream(b"".join(caller.pieces)).read_all().num_rows == len(X)


@pytest.mark.anyio
async def test_stream_is_closed_when_no_thread_is_at_it() -> None:
    slow, caller = Slow(), Caller(*[(b"x" * 65_536, True)] * 16, (b".", False))
    asking = asyncio.create_task(caller.ask(echoing(slow)))
    await asyncio.to_thread(slow.has_begun.wait, 20)

    asking.cancel()
    for _ in range(100):  # far more turns than it takes to write the last item
        await asyncio.sleep(0)
    assert (caller.pieces, slow.closed) == ([], 0)
    slow.goes_on.set()
    await asking

    assert (caller.pieces, slow.closed) == ([b"Unavailable"], 1)
