from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.runtimes.channel import Channel, ChannelClosed, Garbage
from service.runtimes.shared_memory import Block, file_of
from service.runtimes.wire import Packing, unpack_array

_SMALL, _LARGE = 10, 100_000


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    a, b = socket.socketpair()
    channels = Channel(a), Channel(b)
    yield channels
    for channel in channels:
        channel.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Channel]]:
    """A socket to write anything into, and the channel that reads it."""
    a, b = socket.socketpair()
    channel = Channel(b)
    yield a, channel
    a.close()
    channel.close()


def _packed(values: NDArray[Any]) -> tuple[dict[str, Any], Packing]:
    packing = Packing()
    return {"it": packing.add(values)}, packing


def _send(channel: Channel, values: NDArray[Any]) -> Block | None:
    message, packing = _packed(values)
    block = channel.pool.take(packing.size) if len(values) == _LARGE else None
    channel.send(message, packing, block)
    return block


def _read(channel: Channel) -> NDArray[Any]:
    message, block = channel.receive()
    return unpack_array(message["it"], block)


def _frame(header: bytes, inline: bytes = b"") -> bytes:
    return struct.pack("<4sII", b"TDM1", len(header), len(inline)) + header + inline


@pytest.mark.parametrize("size", [0, _SMALL, _LARGE, 3_000_000])
def test_numbers_arrive_whichever_way_they_go(ends: tuple[Channel, Channel], size: int) -> None:
    values = np.arange(float(size))

    _send(ends[0], values)

    got = _read(ends[1])
    assert np.array_equal(got, values)
    assert got.flags.aligned and got.flags.writeable


def test_block_is_told_once_and_used_again(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    seen = []
    for value in (1.0, 2.0, 3.0):
        block = _send(sender, np.full(_LARGE, value))
        seen.append(float(_read(receiver)[0]))
        assert block is not None
        sender.pool.give(block)

    assert seen == [1.0, 2.0, 3.0]
    assert block.number == 0


def test_block_that_is_back_before_its_sender_went_on_can_be_used(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = ends
    answered: list[float] = []

    def close_late(fd: int) -> None:
        """What the sender does next, after the other side answered and somebody else has the block."""
        monkeypatch.undo()
        answered.append(float(_read(receiver)[0]))
        sender.send(message, packing, block)
        answered.append(float(_read(receiver)[0]))
        os.close(fd)

    message, packing = _packed(np.ones(_LARGE))
    block = sender.pool.take(packing.size)
    monkeypatch.setattr("service.runtimes.channel.os.close", close_late)

    sender.send(message, packing, block)

    assert answered == [1.0, 1.0]


def test_answer_comes_in_the_block_of_its_question(ends: tuple[Channel, Channel]) -> None:
    asker, answerer = ends
    block = _send(asker, np.arange(float(_LARGE)))
    assert block is not None
    message, memory = answerer.receive()
    rows = unpack_array(message["it"], memory)

    # A view of the rows, and out of order: written over them as it is read, it would spoil itself.
    answer, packing = _packed(rows[::-1][: _LARGE // 2])
    answer["copy"] = packing.add(rows[: _LARGE // 3])
    answerer.answer_in(message["block"], answer, packing)

    got, _ = asker.receive()
    assert np.array_equal(unpack_array(got["it"], block.memory), np.arange(_LARGE - 1.0, _LARGE // 2 - 1, -1))
    assert np.array_equal(unpack_array(got["copy"], block.memory), np.arange(_LARGE // 3))


def test_answer_that_does_not_fit_into_the_block_goes_its_own_way(ends: tuple[Channel, Channel]) -> None:
    asker, answerer = ends
    _send(asker, np.arange(float(_LARGE)))
    message, _ = answerer.receive()

    answer, packing = _packed(np.arange(1e6))
    answerer.answer_in(message["block"], answer, packing)

    assert np.array_equal(_read(asker), np.arange(1e6))


def test_messages_arrive_in_order_whatever_their_size(ends: tuple[Channel, Channel]) -> None:
    sizes = [_SMALL, 20_000, _SMALL, 20_000, 0]  # 160 kB without a block go through a file
    for size in sizes:
        message, packing = _packed(np.zeros(size))
        ends[0].send(message, packing)

    assert [len(_read(ends[1])) for _ in sizes] == sizes


def test_end_of_the_other_side_is_noticed(ends: tuple[Channel, Channel]) -> None:
    ends[0].close()

    with pytest.raises(ChannelClosed):
        ends[1].receive()
    with pytest.raises(ChannelClosed):
        ends[1].send({})


def test_other_side_that_takes_nothing_closes_the_channel() -> None:
    a, b = socket.socketpair()
    channel = Channel(a, send_timeout_s=0.05)
    message, packing = _packed(np.zeros(7000))

    def flood() -> None:
        for _ in range(1000):
            channel.send(message, packing)

    with pytest.raises(ChannelClosed):
        flood()

    channel.close()
    b.close()


def test_whether_more_can_be_read_is_known_without_reading(ends: tuple[Channel, Channel]) -> None:
    before = ends[1].has_more()
    ends[0].send({"a": 1})

    assert (before, ends[1].has_more()) == (False, True)
    assert ends[1].receive()[0] == {"a": 1}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack("<4sII", b"TDM1", 2**32 - 1, 0), id="a header of 4 GiB"),
        pytest.param(struct.pack("<4sII", b"TDM1", 2, 2**32 - 1) + b"{}", id="a block of 4 GiB"),
        pytest.param(_frame(b"{"), id="no JSON"),
        pytest.param(_frame(b"[]"), id="no object"),
        pytest.param(_frame(b"\xff\xff"), id="no text"),
        pytest.param(_frame(b'{"at":3}'), id="a place that is none"),
        pytest.param(_frame(b'{"at":{"file":10}}'), id="a file that did not come"),
        pytest.param(_frame(b'{"at":{"block":0,"size":1}}'), id="a block that did not come"),
        pytest.param(_frame(b'{"at":{"block":0,"size":1,"capacity":4096}}'), id="a block without its file"),
        pytest.param(_frame(b'{"at":{"block":-1,"size":1}}'), id="a negative number"),
        pytest.param(_frame(b'{"at":{"yours":1.5}}'), id="half a byte"),
    ],
)
def test_garbage_is_told_from_an_end(raw: tuple[socket.socket, Channel], sent: bytes) -> None:
    raw[0].sendall(sent)

    with pytest.raises(Garbage):
        raw[1].receive()


@pytest.mark.parametrize(
    ("at", "size"),
    [
        pytest.param({"file": 1000}, 10, id="smaller than promised"),
        pytest.param({"file": 2**62}, 10, id="far smaller"),
        pytest.param({"block": 0, "size": 20, "capacity": 10}, 10, id="block smaller than its content"),
        pytest.param({"nothing": 1}, 10, id="a file for nothing"),
        pytest.param(None, 10, id="a file that nobody announced"),
    ],
)
def test_descriptor_that_does_not_fit_is_garbage(raw: tuple[socket.socket, Channel], at: Any, size: int) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    fd = file_of([memoryview(bytes(size))])
    data = _frame(orjson.dumps({} if at is None else {"at": at}))

    raw[0].sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)

    with pytest.raises(Garbage):
        raw[1].receive()
    assert before in (0, len(os.listdir("/proc/self/fd")))


def test_handful_of_descriptors_is_garbage_and_leaves_none(raw: tuple[socket.socket, Channel]) -> None:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    raw[0].sendmsg([_frame(b"{}")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

    with pytest.raises(Garbage):
        raw[1].receive()
    assert before in (0, len(os.listdir("/proc/self/fd")))
    for fd in fds:
        os.close(fd)


@given(sent=st.one_of(st.binary(), st.builds(_frame, st.binary(), st.binary())))
def test_no_bytes_do_more_than_close_the_channel(sent: bytes) -> None:
    a, b = socket.socketpair()
    channel = Channel(b)
    a.sendall(sent)
    a.close()

    def read_all() -> None:
        while True:
            channel.receive()

    with pytest.raises((Garbage, ChannelClosed)):
        read_all()

    channel.close()
