from __future__ import annotations

import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import RequestTooLarge, UnreadableRequest
from service.protocols.streaming.cuts import Lines, Messages
from tests.service.protocols.streaming.bodies import pieces, stream_of


def cut_lines(*given_pieces: bytes, most: int = 100) -> list[bytes]:
    lines = Lines(most)
    return [line for piece in given_pieces for line in lines.cut(piece)] + lines.rest()


@given(
    lines=st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    cuts=st.lists(st.integers(0, 100), max_size=6),
)
def test_lines_are_the_same_however_they_come(lines: list[bytes], cuts: list[int]) -> None:
    content = b"\n".join(lines)

    assert cut_lines(*pieces(content, cuts)) == [line for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param([b"a\nb"], [b"a", b"b"], id="the last needs no line feed"),
        pytest.param([b"a\r\n \n\n\tb\n"], [b"a\r", b"\tb"], id="blank lines are none"),
        pytest.param([b""], [], id="nothing"),
        pytest.param([b"abcd\nx\n"], [b"abcd", b"x"], id="as long as may be"),
        pytest.param([b"abcde\nx\n"], [b"abcde", b"x"], id="one byte more"),
        pytest.param([b"ab", b"cdef", b"gh", b"i\nx\n"], [b"abcde", b"x"], id="much longer"),
    ],
)
def test_of_a_long_line_one_byte_more_than_it_may_have_is_kept(sent: list[bytes], expected: list[bytes]) -> None:
    lines = cut_lines(*sent, most=4)

    assert [line[:5] for line in lines] == expected


def test_line_without_end_takes_no_memory() -> None:
    lines = Lines(1000)
    for _ in range(100):
        lines.cut(b"x" * 1000)

    assert len(lines._begun) == 1001


TABLE = pa.table({"x": [1.0, 2.0], "city": pa.array(["Graz", "Linz"]).dictionary_encode()})


@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_messages_are_the_same_however_they_come(cuts: list[int]) -> None:
    content = stream_of(TABLE)
    messages = Messages(10_000)

    found = [message for piece in pieces(content, cuts) for message in messages.cut(piece)]

    assert [pa.ipc.read_message(message).type for message in found] == ["schema", "dictionary", "record batch"]
    assert b"".join(found) == content[:-8]  # but for the end
    messages.require_end()


def test_messages_of_old_have_no_marker() -> None:
    options = pa.ipc.IpcWriteOptions(use_legacy_format=True)
    content = stream_of(TABLE, options=options)

    assert len(list(Messages(10_000).cut(content))) == 3


def test_what_is_behind_the_end_is_dropped() -> None:
    messages = Messages(10_000)

    assert len(list(messages.cut(stream_of(TABLE) + b"junk"))) == 3
    assert list(messages.cut(b"more junk")) == []
    messages.require_end()


@pytest.mark.parametrize("kept", [1, 7, 9, 60, -9])
def test_stream_that_breaks_off_within_a_message_is_seen(kept: int) -> None:
    messages = Messages(10_000)
    list(messages.cut(stream_of(TABLE)[:kept]))

    with pytest.raises(UnreadableRequest, match="broke off"):
        messages.require_end()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\x7f", RequestTooLarge, id="long metadata"),
        pytest.param(b'{"x": 1}\n' * 3, RequestTooLarge, id="JSON"),
        pytest.param(b"\xff\xff\xff\xff\x08\x00\x00\x00" + b"\xff" * 8, UnreadableRequest, id="no FlatBuffer"),
    ],
)
def test_what_is_no_message_is_refused(sent: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(Messages(10_000).cut(sent))


def test_message_is_refused_before_it_came_where_it_says_how_long_it_is() -> None:
    content = stream_of(pa.table({"x": [0.0] * 10_000}))
    schema_bytes = 8 + struct.unpack_from("<I", content, 4)[0]

    with pytest.raises(RequestTooLarge, match="larger than 50000 bytes"):
        list(Messages(50_000).cut(content[: schema_bytes + 300]))


def test_message_as_large_as_may_be_passes() -> None:
    content = stream_of(TABLE)
    largest = max(map(len, Messages(10_000).cut(content)))

    assert len(list(Messages(largest).cut(content))) == 3
    with pytest.raises(RequestTooLarge):
        list(Messages(largest - 1).cut(content))
