"""Where a server's time goes, by part of the program, while it is under load. Needs py-spy on the path.

py-spy looks at every Python thread a few hundred times a second, and skips those that sleep. A look belongs
to the innermost frame that lies in a part named here, so a library that a part calls into counts to that
part. Of a server with many threads only the one that holds the interpreter lock is looked at, since those
that wait for it do not sleep; what runs without the lock is then one sum.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.load import run_load
from benchmarks.processes import Server, pinned

PER_SECOND: Final = 200

# What a file's path contains, and what its time is called; the first that fits.
PARTS: Final[Mapping[str, str]] = {
    "service/runtimes": "engine",
    "service/scheduling": "scheduling",
    "service/protocols": "protocol: decode, encode",
    "service/observability": "logs",
    "service/server": "server, repository",
    "service/repository": "server, repository",
    "service/core": "core",
    "service/entrypoints": "entry point",
    "structlog": "logs",
    "/logging/": "logs",
    "starlette": "web framework",
    "fastapi": "web framework",
    "flask": "web framework",
    "werkzeug": "web framework",
    "uvicorn": "web server",
    "granian": "web server",
    "gunicorn": "web server",
}
OTHER: Final = "other Python"
NO_LOCK: Final = "without the lock: engine, web server, kernel, idle"


def can_profile() -> bool:
    return shutil.which("py-spy") is not None


def profile(
    server: Server, path: str, bodies: Path, connections: int, seconds: int, core: int, *, only_lock: bool
) -> dict[str, float]:
    """Percent of the looks by part, most first.

    Raises RuntimeError where py-spy may not look at other processes (it needs root or CAP_SYS_PTRACE).
    """
    load = threading.Thread(target=run_load, args=(server.url(path), bodies, connections, seconds + 2, core))
    load.start()
    with tempfile.TemporaryDirectory() as folder, pinned(core):
        stacks = Path(folder) / "stacks"
        told = subprocess.run(
            [
                "py-spy", "record", "--format", "raw", "--full-filenames", "--subprocesses", "--nonblocking",
                "--rate", str(PER_SECOND), "--duration", str(seconds), "--pid", str(server.process.pid),
                "--output", str(stacks), *(["--gil"] if only_lock else []),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        load.join()
        if told.returncode:
            raise RuntimeError(told.stderr)
        looks = by_part(stacks.read_text().splitlines())
    if only_lock:
        looks[NO_LOCK] = max(0, seconds * PER_SECOND - looks.total())
    return percent(looks)


def by_part(lines: Iterable[str]) -> Counter[str]:
    """Looks by part. A line is `outermost;…;innermost count`, a frame `function (file:line)`."""
    looks: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        names = (name for frame in reversed(stack.split(";")) for path, name in PARTS.items() if path in frame)
        looks[next(names, OTHER)] += int(count)
    return looks


def percent(looks: Mapping[str, int]) -> dict[str, float]:
    total = sum(looks.values())
    return {part: 100 * count / total for part, count in sorted(looks.items(), key=lambda item: -item[1])}
