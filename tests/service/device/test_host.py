from __future__ import annotations

import socket
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.core.table import Matrix
from service.device.engines import Engines
from service.device.guard import Watch
from service.device.host import Desk, beat, prepare_gpu
from service.runtimes.channel import Channel, ChannelClosed
from service.runtimes.device_errors import DeviceUnavailable, unpack_error
from service.runtimes.device_process import BEAT, Exit
from service.runtimes.wire import Packing, pack_table, unpack_answers
from tests.service.device.fake_engines import PATIENCE_S, Opener


@pytest.fixture
def desk(engines: Engines) -> Iterator[tuple[socket.socket, Channel]]:
    """The other end of a connection that is being served, as a socket and as a channel that has said hello."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    thread = threading.Thread(target=Desk(Channel(theirs), engines).serve)
    thread.start()
    channel = Channel(ours)
    assert "hello" in channel.receive()[0]
    yield ours, channel
    channel.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def _open(channel: Channel, spec: dict[str, Any]) -> str:
    channel.send({"id": 0, "ask": "open", "spec": spec})
    message, _ = channel.receive()
    return str(message["engine"])


def _ask(channel: Channel, number: int, key: str, value: float) -> None:
    packing = Packing()
    rows = pack_table(packing, Matrix(np.array([[value]])))
    question = {"id": number, "ask": "run", "engine": key, "outputs": ["predict"], "within_s": 30.0, "rows": rows}
    channel.send(question, packing)


def _answer(channel: Channel) -> tuple[int, float]:
    message, block = channel.receive()
    values = unpack_answers(message["answers"], block)["predict"]
    assert isinstance(values, np.ndarray)
    return message["id"], float(values[0])


def test_requests_that_arrive_while_the_engine_computes_are_one_batch(
    desk: tuple[socket.socket, Channel], opener: Opener
) -> None:
    channel, engine = desk[1], opener.engine
    key = _open(channel, {"merges": True})
    engine.gate.clear()
    _ask(channel, 1, key, 1.0)
    assert engine.begun.wait(PATIENCE_S)
    for number in (2, 3, 4):
        _ask(channel, number, key, float(number))
    # Once this has been answered, the questions before it have been read.
    _open(channel, {"merges": True})

    engine.gate.set()

    assert dict(_answer(channel) for _ in range(4)) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    assert engine.batches == [1, 3]


def test_short_calls_are_merged_where_several_came_at_once(desk: tuple[socket.socket, Channel], opener: Opener) -> None:
    channel, engine = desk[1], opener.engine
    key = _open(channel, {"merges": True})
    _ask(channel, 1, key, 1.0)
    _answer(channel)  # from now on, a call is known to be short
    engine.gate.clear()
    a, b = socket.socketpair()
    for number in (2, 3, 4):
        _ask(Channel(a), number, key, float(number))
    desk[0].sendall(b.recv(100_000))
    # Once this has been answered, the questions before it have been read, although the first computes.
    _open(channel, {"merges": True})

    engine.gate.set()

    assert dict(_answer(channel) for _ in range(3)) == {2: 2.0, 3: 3.0, 4: 4.0}
    assert len(engine.batches) < 4
    a.close()
    b.close()


def test_question_to_an_engine_that_is_not_open_is_refused(desk: tuple[socket.socket, Channel]) -> None:
    _ask(desk[1], 1, "nobody", 1.0)

    message, block = desk[1].receive()

    assert isinstance(unpack_error(message["error"], block), DeviceUnavailable)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({}, id="nothing asked"),
        pytest.param({"ask": "die"}, id="asked for something else"),
        pytest.param({"ask": "run"}, id="half a question"),
        pytest.param({"ask": "open", "id": 1, "spec": 3}, id="a spec that is none"),
        pytest.param({"ask": "run", "id": "x", "outputs": [], "rows": {}}, id="a number that is none"),
        pytest.param({"ask": "run", "id": 1, "outputs": 3, "rows": {}}, id="outputs that are none"),
        pytest.param({"ask": "run", "id": 1, "outputs": [], "rows": {"columns": []}}, id="no rows"),
        pytest.param(
            {"ask": "run", "id": 1, "outputs": [], "rows": {"matrix": {"dtype": "<f8", "shape": [10**9, 9], "at": 0}}},
            id="rows that did not come",
        ),
    ],
)
def test_garbage_ends_the_connection(desk: tuple[socket.socket, Channel], message: dict[str, Any]) -> None:
    desk[1].send(message)

    with pytest.raises(ChannelClosed):
        desk[1].receive()


def test_end_of_a_connection_lets_its_engines_go(engines: Engines, opener: Opener) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Desk(Channel(theirs), engines).serve)
    thread.start()
    channel = Channel(ours)
    channel.receive()
    key = _open(channel, {})

    channel.close()
    thread.join(PATIENCE_S)

    with pytest.raises(DeviceUnavailable):
        engines.get(key)


@pytest.fixture
def no_alarm(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The kernel's timer would end the tests."""
    armed: list[float] = []
    monkeypatch.setattr("service.device.host.signal.setitimer", lambda which, seconds: armed.append(seconds))
    return armed


def test_heart_beats_and_stops_with_the_parent(no_alarm: list[float]) -> None:
    parent, child = socket.socketpair()
    left: list[Exit] = []
    thread = threading.Thread(target=beat, args=(child, [Watch(60)], 7.0, left.append))
    thread.start()
    first = parent.recv(1)

    parent.close()
    thread.join(PATIENCE_S)

    assert (first, left) == (BEAT, [Exit.PARENT_GONE])
    assert no_alarm[0] == 7.0
    child.close()


def test_heart_stops_for_a_call_past_hope(no_alarm: list[float]) -> None:
    parent, child = socket.socketpair()
    now = [0.0]
    watch, left = Watch(5, lambda: now[0]), []
    with watch:
        now[0] = 6.0
        beat(child, [Watch(60), watch], 7.0, left.append)

    assert left == [Exit.CALL_HUNG]
    parent.close()
    child.close()


def test_heart_beats_on_while_the_parent_is_stopped(no_alarm: list[float]) -> None:
    parent, child = socket.socketpair()
    child.setblocking(False)
    with pytest.raises(BlockingIOError):
        _flood(child)
    now = [0.0]
    watch, left = Watch(5, lambda: now[0]), []

    with watch:
        now[0] = 6.0
        beat(child, [watch], 7.0, left.append)

    assert left == [Exit.CALL_HUNG]
    parent.close()
    child.close()


def _flood(connection: socket.socket) -> None:
    while True:
        connection.send(bytes(4096))


def test_memory_pool_is_set_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    rmm = types.ModuleType("rmm")
    rmm.mr = types.SimpleNamespace(  # type: ignore[attr-defined]
        CudaAsyncMemoryResource=lambda: "pool", set_current_device_resource=lambda pool: done.append(f"rmm: {pool}")
    )
    allocators = types.ModuleType("rmm.allocators.cupy")
    allocators.rmm_cupy_allocator = "rmm's"  # type: ignore[attr-defined]
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(set_allocator=lambda it: done.append(f"cupy: {it}"))  # type: ignore[attr-defined]
    cupy.arange = lambda n: done.append("allocated") or np.arange(n)  # type: ignore[attr-defined]
    for name, module in {"rmm": rmm, "rmm.allocators.cupy": allocators, "cupy": cupy}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "rmm.allocators", types.ModuleType("rmm.allocators"))

    prepare_gpu()

    assert done == ["rmm: pool", "cupy: rmm's", "allocated"]
