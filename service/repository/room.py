"""How much memory is left for one more version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.core.artefact_errors import OutOfMemory

# A file's bytes, and what is built from them, are there at the same time.
COPIES: Final = 2

_MEMINFO: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/sys/fs/cgroup")


def require_room(file_bytes: int, where: str) -> None:
    """Better to refuse a version than to be killed with all the others.

    Raises:
        OutOfMemory: a file of so many bytes, read and opened, would not fit into the memory that is left.
    """
    left = min(_left(), default=None)
    if left is not None and COPIES * file_bytes > left:
        raise OutOfMemory(f"{where} has {file_bytes} bytes and needs {COPIES} times as many; {left} are left")


def _left() -> Iterator[int]:
    """Bytes that the machine has left, and the container if this is one; nothing where nobody says.

    Source: proc_meminfo(5); the kernel's documentation of cgroup v2 (memory.max, memory.current, memory.stat).
    """
    available = _fields(_MEMINFO).get("MemAvailable")
    if available is not None:
        yield available * 1024
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return
    if limit != "max":
        # Pages of files that nobody used lately go as soon as memory is wanted.
        yield max(0, int(limit) - int(used) + _fields(_GROUP / "memory.stat").get("inactive_file", 0))


def _fields(path: Path) -> dict[str, int]:
    """Lines such as `MemAvailable:  123 kB` or `inactive_file 123` as names and numbers."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name.rstrip(":"): int(number) for name, number, *_ in map(str.split, lines)}
