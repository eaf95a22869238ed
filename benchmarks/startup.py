"""Time from `tandem serve` to ready, and resident memory, for both frameworks. `python -m benchmarks.startup`

Beside them stand the same figures for processes that only import what serving needs, so
that what Tandem adds is seen in one run on one machine.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results" / "startup.json"
ROUNDS: Final = 5
READY_WITHIN_S: Final = 60.0

TANDEM: Final = (sys.executable, "-c", "from training.cli import main; main()")
SERVERS: Final = {
    "FastAPI, uvicorn": ["--framework", "fastapi"],
    "Flask, gunicorn": ["--framework", "flask"],
    "Flask, Granian": ["--framework", "flask", "--server", "granian"],
}
# What a server of the same model cannot do without; it tells its memory and ends.
FLOORS: Final = {
    "import fastapi, uvicorn": "import fastapi, uvicorn",
    "import flask": "import flask",
    "import sklearn, joblib": "import joblib, sklearn.ensemble, sklearn.linear_model, sklearn.pipeline",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds. Memory is the sum over all processes, shared pages counted in each."""

    what: str
    seconds: float
    mib: float


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        export_models(models)
        rows = [median(name, lambda command=command: floor(command)) for name, command in FLOORS.items()]
        rows += [
            median(name, lambda options=options: start(["--models", str(models), *options]))
            for name, options in SERVERS.items()
        ]
    print("| process | to ready | resident |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.seconds * 1000:.0f} ms | {row.mib:.0f} MiB |")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report(rows), indent=2) + "\n")


def export_models(models: Path) -> None:
    """A forest of 100 trees and a scaled logistic regression, both on 30 numbers."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from training import export

    X, y = load_breast_cancer(return_X_y=True)
    export(RandomForestClassifier(100, random_state=0).fit(X, y), X, name="forest", repository=models)
    export(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X, name="logistic", repository=models)


def median(what: str, measure: Callable[[], tuple[float, float]]) -> Measured:
    rounds = [measure() for _ in range(ROUNDS)]
    return Measured(what, statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds))


def floor(command: str) -> tuple[float, float]:
    """Seconds and MiB of a process that only imports."""
    started = time.perf_counter()
    code = f"{command}; import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return time.perf_counter() - started, resident_mib(process.pid)


def start(options: list[str]) -> tuple[float, float]:
    """Seconds until ready and MiB then, of a server that is stopped afterwards."""
    port = free_port()
    command = [*TANDEM, "serve", "--port", str(port), *options]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not is_ready(port):
            if process.poll() is not None or time.perf_counter() - started > READY_WITHIN_S:
                raise RuntimeError(f"not ready: {' '.join(command)}")
            time.sleep(0.005)
        return time.perf_counter() - started, resident_mib(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def resident_mib(pid: int) -> float:
    """Resident memory of a process and its children, read from /proc (Linux only)."""
    pages = 0
    waiting = [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        pages += int((process / "statm").read_text().split()[1])
        for task in (process / "task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def report(rows: list[Measured]) -> dict[str, object]:
    return {
        "benchmark": "startup",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "rounds": ROUNDS,
        "rows": [{"what": r.what, "seconds": round(r.seconds, 3), "mib": round(r.mib, 1)} for r in rows],
    }


if __name__ == "__main__":
    main()
