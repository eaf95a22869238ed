from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.observability.lines import Lines
from tests.faults.cases import fault

LINE = '{"event": "request"}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):  # closed by the test
            os.close(fd)


def fill(lines: Lines) -> int:
    """How many lines were written before one was dropped."""
    for count in range(100_000):
        lines.write(LINE)
        if lines.dropped:
            return count
    raise AssertionError("nothing was dropped")


def test_lines_arrive_as_they_were_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        lines = Lines(file.fileno())

        for text in (LINE, "größer\n", "\ud800\n"):
            lines.write(text)

    assert (tmp_path / "log").read_bytes() == LINE.encode() + "größer\n".encode() + b"\\ud800\n"
    assert lines.dropped == 0


@fault("W15", sent="a pipe that nobody reads", expected="lines are dropped and counted, no call waits")
def test_a_reader_that_hangs_is_not_waited_for(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1])

    fill(lines)
    lines.write(LINE)

    assert lines.dropped == 2


@fault("W15", sent="a pipe that is read again", expected="whole lines again")
def test_lines_are_written_again_once_somebody_reads(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1])
    fill(lines)
    os.read(pipe[0], 1 << 20)

    lines.write(LINE)

    assert os.read(pipe[0], 1 << 20) == LINE.encode()
    assert lines.dropped == 1


def test_a_line_that_was_cut_does_not_spoil_the_next(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1])
    lines.write("x" * (1 << 20) + "\n")  # more than a pipe holds
    os.read(pipe[0], 1 << 20)

    lines.write(LINE)

    assert os.read(pipe[0], 1 << 20).decode() == "\n" + LINE
    assert lines.dropped == 1


@fault("W15", sent="a pipe whose reader has gone", expected="lines are dropped and counted")
def test_a_reader_that_has_gone_fails_nobody(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    lines = Lines(pipe[1])

    lines.write(LINE)

    assert lines.dropped == 1


@fault("W14", sent="a device without space", expected="lines are dropped and counted")
def test_a_full_disk_fails_nobody() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        lines = Lines(full.fileno())

        lines.write(LINE)

    assert lines.dropped == 1


def test_several_lines_are_written_as_one_after_another(tmp_path: Path, pipe: tuple[int, int]) -> None:
    texts = [LINE, "größer\n", "\ud800\n"]
    with (tmp_path / "log").open("wb") as file:
        Lines(file.fileno()).write_lines(texts)
    Lines(pipe[1]).write_lines(texts)

    wanted = LINE.encode() + "größer\n".encode() + b"\\ud800\n"
    assert (tmp_path / "log").read_bytes() == wanted
    assert os.read(pipe[0], 1 << 20) == wanted


@fault("W14", sent="several lines to a device without space", expected="each is counted")
def test_each_of_several_lines_that_a_full_disk_drops_is_counted() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        lines = Lines(full.fileno())
        lines._always_takes = True  # as of a file

        lines.write_lines([LINE, LINE, LINE])

    assert lines.dropped == 3


def test_several_lines_of_which_one_was_cut_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("wb") as file:
        lines = Lines(file.fileno())
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(LINE) + 5]))
        lines.write_lines([LINE, LINE, LINE])
        monkeypatch.setattr(os, "write", write)

        lines.write_lines([LINE, LINE])

    assert (tmp_path / "log").read_bytes() == (LINE + LINE[:5] + "\n" + LINE + LINE).encode()
    assert lines.dropped == 2
