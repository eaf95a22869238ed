from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import UpstreamFailed
from service.generation.events import Event, EventReader, event
from tests.faults.cases import fault


def read(*chunks: bytes, max_event_bytes: int = 1000) -> list[Event]:
    reader = EventReader(max_event_bytes)
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("content", "events"),
    [
        pytest.param(b"data: x\n\n", [("message", "x")], id="newlines"),
        pytest.param(b"data: x\r\rdata: y\r\r", [("message", "x"), ("message", "y")], id="returns"),
        pytest.param(b"data: x\r\n\r\ndata:y\r\n\r\n", [("message", "x"), ("message", "y")], id="both"),
        pytest.param(b"data: a\ndata: b\n\n", [("message", "a\nb")], id="several lines"),
        pytest.param(b": hello\n\n:\ndata: x\n\n", [("message", "x")], id="comments"),
        pytest.param(b"event: error\nid: 3\nretry: 9\nother: x\ndata: x\n\n", [("error", "x")], id="fields"),
        pytest.param(b"event: error\n\ndata: x\n\n", [("message", "x")], id="a name without data"),
        pytest.param(b"data\n\ndata:\n\n", [("message", ""), ("message", "")], id="empty data"),
        pytest.param(b"data:  x\n\n", [("message", " x")], id="one space is not data"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", [("message", "x")], id="byte order mark"),
        pytest.param(b"data: x\n", [], id="no end"),
        pytest.param("data: a\0b\u2028c\x85\n\n".encode(), [("message", "a\0b\u2028c\x85")], id="no other ends"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_events_are_those_of_the_standard(content: bytes, events: list[tuple[str, str]]) -> None:
    assert read(content) == events


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    words = [
        b"data: x",
        b"data:",
        "data: grün 漢字 🦉".encode(),
        b":",
        b"event: e",
        b"\r",
        b"\n",
        b"\r\n",
        b"\xff",
        b"\xef\xbb\xbf",
    ]
    content = b"".join(draw(st.lists(st.sampled_from(words), max_size=30)))
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=20)))
    return content, [content[a:b] for a, b in itertools.pairwise([0, *places, len(content)])]


@fault("P08", sent="a stream cut anywhere, in letters and in ends of lines", expected="the same events")
@given(cut())
def test_events_do_not_depend_on_how_bytes_are_cut(given: tuple[bytes, list[bytes]]) -> None:
    content, chunks = given

    assert outcome(content) == outcome(*chunks)


def outcome(*chunks: bytes) -> tuple[list[Event], bool]:
    """The events, and whether something else follows."""
    reader, events = EventReader(40), []
    try:
        for chunk in chunks:
            for found in reader.feed(chunk):
                events.append(found)
    except UpstreamFailed:
        return events, True
    return events, False


@given(st.text().map(lambda text: text.replace("\r", "")).filter(bool))
def test_reading_undoes_writing(data: str) -> None:
    assert read(event(data.encode(), b"error"), max_event_bytes=10**6) == [("error", data)]


@fault(
    "P08", sent="a line without end, and an event without end", expected="refused at the bound, held in bounded memory"
)
@pytest.mark.parametrize("piece", [b"data: x", b"data: x\n", b"x", b":x"])
def test_lines_and_events_have_a_bound(piece: bytes) -> None:
    reader = EventReader(1000)

    def feed() -> None:
        for _ in range(1001):
            list(reader.feed(piece))

    with pytest.raises(UpstreamFailed, match="more than 1000 bytes"):
        feed()


def test_at_the_bound_passes_and_one_above_fails() -> None:
    assert read(b"data: " + b"x" * 994 + b"\n\n") == [("message", "x" * 994)]
    with pytest.raises(UpstreamFailed):
        read(b"data: " + b"x" * 995 + b"\n\n")


def test_comments_take_no_room() -> None:
    assert read(*[b": still here\n\n"] * 1000, b"data: x\n\n") == [("message", "x")]


@pytest.mark.parametrize("content", [b"data: \xff\n\n", b"data: \xe6\xbc\n\n", b"event: \xff\ndata: x\n\n"])
def test_what_is_no_utf8_is_refused(content: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="UTF-8"):
        read(content)


def test_events_before_a_bad_one_come() -> None:
    reader = EventReader()
    events = reader.feed(b"data: x\n\ndata: \xff\n\n")

    assert next(events) == ("message", "x")
    with pytest.raises(UpstreamFailed):
        next(events)
