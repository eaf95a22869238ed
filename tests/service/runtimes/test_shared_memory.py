from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

from service.runtimes import shared_memory
from service.runtimes.shared_memory import Block, Pool, UnusableFile, file_of, private_view, shared_view

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")

_MIB = 1024 * 1024


@pytest.fixture
def file() -> Iterator[int]:
    fd = file_of([memoryview(b"abc"), memoryview(b"de")])
    yield fd
    os.close(fd)


def test_file_holds_the_parts_one_after_another(file: int) -> None:
    assert bytes(private_view(file, 5)) == b"abcde"


def test_what_is_written_into_a_private_view_stays_there(file: int) -> None:
    view = private_view(file, 5)

    view[:1] = b"x"

    assert bytes(private_view(file, 5)) == b"abcde"


def test_sent_file_cannot_be_cut_under_its_reader(file: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(file, 0)


def test_block_is_one_memory_for_both() -> None:
    block = Block(0, mmap.PAGESIZE)
    fd = block.introduce()
    assert fd is not None
    theirs = shared_view(fd, block.capacity)

    block.fill([memoryview(b"ab"), memoryview(b"c")])

    assert bytes(theirs[:3]) == b"abc"
    os.close(fd)


def test_block_is_introduced_once() -> None:
    block = Block(0, mmap.PAGESIZE)
    fd = block.introduce()
    assert fd is not None

    again = block.introduce()

    assert again is None
    os.close(fd)


@pytest.mark.parametrize("view", [shared_view, private_view])
def test_size_that_was_only_claimed_is_noticed(file: int, view: object) -> None:
    with pytest.raises(UnusableFile):
        view(file, 6)  # type: ignore[operator]


def test_file_that_could_shrink_is_read_and_not_mapped() -> None:
    with tempfile.TemporaryFile() as plain:
        plain.write(b"abc")
        plain.flush()

        view = private_view(plain.fileno(), 3)
        os.ftruncate(plain.fileno(), 0)

        assert bytes(view) == b"abc"
        with pytest.raises(UnusableFile):
            shared_view(plain.fileno(), 3)


def test_descriptor_of_something_else_is_refused() -> None:
    reading, writing = os.pipe()

    with pytest.raises(UnusableFile):
        private_view(reading, 1)

    os.close(reading)
    os.close(writing)


def test_without_memory_files_temporary_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_HAS_MEMORY_FILES", False)

    fd = file_of([memoryview(b"abc")])

    assert bytes(private_view(fd, 3)) == b"abc"
    assert Pool().take(200_000) is None
    os.close(fd)


def test_pool_gives_out_again_what_came_back() -> None:
    pool = Pool()
    block = pool.take(200_000)
    assert block is not None
    pool.give(block)

    assert pool.take(150_000) is block


def test_pool_never_gives_out_what_is_in_use() -> None:
    pool = Pool()

    assert pool.take(200_000) is not pool.take(200_000)


def test_pool_is_bounded() -> None:
    pool = Pool()

    blocks = [pool.take(16 * _MIB) for _ in range(5)]

    assert [block is None for block in blocks] == [False, False, False, False, True]
    assert pool.take(17 * _MIB) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the descriptors")
def test_blocks_leave_no_descriptors_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))

    block = Block(0, mmap.PAGESIZE)
    fd = block.introduce()
    assert fd is not None
    os.close(fd)
    del block

    assert len(os.listdir("/proc/self/fd")) == before
