"""Compression, decided by the first bytes; the walk through the pickle is in the tests of its two walkers."""

from __future__ import annotations

import sys

import pytest

from service.core.artefact_errors import ModelFileUnreadable
from service.repository.joblib_file import decompressed
from tests.faults.cases import fault
from tests.service.repository.attacks import COMPRESSIONS, dumped, model


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_every_compression_of_joblib_is_undone(how: str) -> None:
    assert decompressed(dumped([1, "two"], compress=(how, 3))) == dumped([1, "two"])


def test_what_is_not_compressed_is_left_as_it_is() -> None:
    data = dumped(model())

    assert decompressed(data) is data


@fault("M08", sent="bytes after the compressed pickle", expected="refused")
@pytest.mark.parametrize("how", COMPRESSIONS)
def test_compressed_file_with_something_behind_it_is_refused(how: str) -> None:
    with pytest.raises(ModelFileUnreadable, match=r"followed by other bytes|corrupt"):
        decompressed(dumped(model(), compress=(how, 3)) + b"more")


def test_file_of_an_old_joblib_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelFileUnreadable, match=r"before 0\.10; save the model again"):
        decompressed(b"ZF0x10" + bytes(20))


@fault("M09", sent="bombs of each compression", expected="refused before they fill the memory")
@pytest.mark.parametrize("how", COMPRESSIONS)
def test_bomb_is_refused_before_it_fills_the_memory(how: str) -> None:
    bomb = dumped(bytes(20 << 20), compress=(how, 3))

    with pytest.raises(ModelFileUnreadable, match="more than 1048576 bytes"):
        decompressed(bomb, max_bytes=1 << 20)


def test_lz4_without_its_library_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)

    with pytest.raises(ModelFileUnreadable, match="lz4, which is not installed"):
        decompressed(b"\x04\x22\x4d\x18" + bytes(20))


def test_zip_archive_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(ModelFileUnreadable, match="is a zip archive, not a joblib file"):
        decompressed(b"PK\x03\x04" + bytes(20))
