"""Load on one server for a few seconds: by wrk where it is installed, else by the bundled client.

Both are a closed loop: each connection sends its next request when the last one was answered.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.processes import pinned

SCRIPT: Final = Path(__file__).with_name("requests.lua")
# Queues of 64 before a slow app take seconds; wrk's own two would count them as errors.
TIMEOUT_S: Final = 60
ERRORS: Final = ("status", "connect", "read", "write", "timeout")


@dataclass(frozen=True, slots=True)
class Load:
    """One run, or the medians of several.

    `rps` is of 2xx; `errors` counts other replies, and broken connections, by kind.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def tail(self) -> float:
        """p99 over p50."""
        return self.p99_ms / self.p50_ms if self.p50_ms else float("nan")


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def client_name() -> str:
    if not has_wrk():
        return "bundled asyncio client (slower than wrk: it, not the server, may be what is measured above 5000/s)"
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return told.stdout.splitlines()[0].partition(" [")[0]


def run_load(url: str, bodies: Path, connections: int, seconds: int, core: int) -> Load:
    """Raises RuntimeError where the client itself fails."""
    command = wrk_command if has_wrk() else client_command
    return _run(command(url, bodies, connections, seconds), seconds, core)


def steady_load(url: str, bodies: Path, connections: int, seconds: int, core: int) -> Load:
    """By the bundled client, counted once every connection was answered: latency without the crowd at the door."""
    return _run([*client_command(url, bodies, connections, seconds), "steady"], seconds, core)


def _run(command: list[str], seconds: int, core: int) -> Load:
    with pinned(core):
        told = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT_S, check=False)
    if told.returncode:
        raise RuntimeError(f"{' '.join(command)}: {told.stderr or told.stdout}")
    return parse(told.stdout)


def client_command(url: str, bodies: Path, connections: int, seconds: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.client", url, str(bodies), str(connections), str(seconds)]


def wrk_command(url: str, bodies: Path, connections: int, seconds: int) -> list[str]:
    """One thread, so that the client takes one core."""
    return [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s", "-s", str(SCRIPT), url,
        "--", str(bodies),
    ]  # fmt: skip


def parse(output: str) -> Load:
    """The last line, as `requests.lua` and `benchmarks.client` write it."""
    said = json.loads(output.strip().splitlines()[-1])
    errors = {kind: said[kind] for kind in ERRORS if said[kind]}
    good = max(said["requests"] - said["status"], 0)
    return Load(good / (said["us"] / 1e6), said["p50_us"] / 1000, said["p99_us"] / 1000, errors)


def median(runs: Sequence[Load]) -> Load:
    """Each figure's own median; errors are summed, since one is enough to spoil a row."""
    return Load(
        statistics.median(run.rps for run in runs),
        statistics.median(run.p50_ms for run in runs),
        statistics.median(run.p99_ms for run in runs),
        dict(sum((Counter(run.errors) for run in runs), Counter())),
    )
