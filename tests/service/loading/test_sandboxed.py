"""What the child gives up, seen from processes that give it up; what it does with files is in `test_sandbox.py`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

_LIMITS: Final = """
import json, resource
from service.loading.sandboxed import give_up
give_up(1 << 29)
names = ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_DATA")
print(json.dumps({name: resource.getrlimit(getattr(resource, name)) for name in names}))
"""
_WRITE: Final = """
import pathlib, sys
from service.loading.sandboxed import give_up
give_up(1 << 29)
pathlib.Path(sys.argv[1]).write_text("x")
"""
# The clock is put out of the way: on a busy machine it is the first to strike.
_BUSY: Final = """
import signal
from service.loading.sandboxed import limit_time
limit_time(0.5)
signal.alarm(0)
while True: pass
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_limits_cannot_be_raised_again() -> None:
    done = _run(_LIMITS)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_FSIZE": [0, 0],
        "RLIMIT_NOFILE": [64, 64],
        "RLIMIT_DATA": [1 << 29, 1 << 29],
    }


def test_more_memory_than_that_is_not_given() -> None:
    done = _run("from service.loading.sandboxed import give_up; give_up(1 << 28); bytearray(1 << 29)")

    assert "\nMemoryError\n" in done.stderr


def test_no_file_is_written_any_more(tmp_path: Path) -> None:
    done = _run(_WRITE, str(tmp_path / "file"))

    assert "File too large" in done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_processor_time_ends_who_does_not_end() -> None:
    assert _run(_BUSY).returncode == -signal.SIGXCPU
