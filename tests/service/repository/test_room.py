from __future__ import annotations

from pathlib import Path

import pytest

from service.core.artefact_errors import OutOfMemory
from service.repository import room as module
from service.repository.room import require_room


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1000 KiB left, in no container."""
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    1000 kB\nHugePages_Total:       0\n")
    monkeypatch.setattr(module, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_GROUP", tmp_path)
    return tmp_path


def test_file_and_what_is_built_from_it_must_fit(machine: Path) -> None:
    require_room(500 * 1024, "iris/1/model")

    with pytest.raises(OutOfMemory, match="iris/1/model has 512001 bytes and needs 2 times as many; 1024000 are left"):
        require_room(500 * 1024 + 1, "iris/1/model")


@pytest.mark.parametrize(
    ("limit", "used", "inactive", "fits", "not_fits"),
    [
        pytest.param("1000", "600", 0, 200, 201, id="container"),
        pytest.param("1000", "600", 200, 300, 301, id="with pages that can go"),
        pytest.param("1000", "2000", 0, 0, 1, id="full"),
        pytest.param("max", "600", 0, 500 * 1024, 500 * 1024 + 1, id="without a limit"),
    ],
)
def test_container_may_have_less(machine: Path, limit: str, used: str, inactive: int, fits: int, not_fits: int) -> None:
    (machine / "memory.max").write_text(f"{limit}\n")
    (machine / "memory.current").write_text(f"{used}\n")
    (machine / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")

    require_room(fits, "it")
    with pytest.raises(OutOfMemory):
        require_room(not_fits, "it")


def test_where_nobody_says_everything_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(module, "_GROUP", tmp_path)

    require_room(2**60, "it")


def test_this_machine_has_room_for_a_byte_and_not_for_an_exabyte() -> None:
    require_room(1, "it")

    with pytest.raises(OutOfMemory):
        require_room(2**60, "it")
