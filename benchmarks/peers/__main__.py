"""The same forest, one row a request, behind other model servers. `python -m benchmarks.peers --cache DIR [--install]`

Each peer has an environment `DIR/<name>`, since their dependencies exclude each other; `--install` makes those
that are missing, with the scikit-learn of this environment, which wrote the model. A peer without one is
skipped, and so is one that does not start or gives other numbers; the reason stands in the results.
They run with the settings they come with, one after the other, beside a naive FastAPI app and Tandem.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import CONTESTANTS
from benchmarks.load import Load, client_name, median, run_load
from benchmarks.models import FOREST
from benchmarks.peers.peers import PEERS, QUIET, Peer, Place
from benchmarks.processes import Memory, Server, ServerFailed, end_on_sigterm, free_port, serving
from benchmarks.report import machine, table
from benchmarks.serving import agree
from benchmarks.targets import NAIVE_FASTAPI, TANDEM_FASTAPI, TANDEM_FLASK

RESULTS: Final = Path(__file__).parents[1] / "results" / "peers.json"
CONNECTIONS: Final = (1, 64)
ROUNDS: Final = 3
SECONDS: Final = 3
OURS: Final = (NAIVE_FASTAPI, TANDEM_FASTAPI, TANDEM_FLASK)


@dataclass(frozen=True, slots=True)
class Measured:
    version: str
    memory: Memory | None
    loads: dict[int, Load]


class Skipped(Exception):
    """Why a peer has no figures."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--install", action="store_true", help="make the environments that are missing")
    parser.add_argument("--only", action="append", choices=list(PEERS), help="a peer; again for more")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=min(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    end_on_sigterm()
    found: dict[str, Measured] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary) / "models"
        subprocess.run([sys.executable, "-m", "benchmarks.models", str(models), FOREST.name], check=True)
        bench = Bench(models / FOREST.name, Path(temporary), arguments.server_core, arguments.client_core)
        for name in OURS:
            found[name] = bench.ours(name)
        for name in arguments.only or PEERS:
            try:
                bin_ = environment(PEERS[name], arguments.cache, install=arguments.install)
                found[name] = bench.peer(PEERS[name], bin_)
            except (Skipped, ServerFailed) as error:
                skipped[name] = str(error)
                print(f"{name} is skipped: {error}", file=sys.stderr)
    print(as_text(found, skipped))
    if arguments.only is None:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(content(found, skipped), indent=1) + "\n")


class Bench:
    """Runs one server at a time. `rows` are what everybody is asked, `expected` the naive app's answers."""

    def __init__(self, models: Path, folder: Path, server_core: int, client_core: int) -> None:
        self._models = models
        self._folder = folder
        self._server_core, self._client_core = server_core, client_core
        self._bodies = (models / "1.jsonl").read_bytes().splitlines()
        self._expected: list[Any] = []

    def ours(self, name: str) -> Measured:
        contestant = next(c for c in CONTESTANTS if c.name == name)
        port = free_port()
        command, more = contestant.command(self._models, port), contestant.environment(self._models)
        path = contestant.path(FOREST)
        with serving(command, more, port, self._folder / "ours.log", self._server_core) as server:
            server.wait_until_ready(path, self._bodies[0])
            answers = [json.loads(server.ask(path, body)[1])["probabilities"] for body in self._bodies]
            self._check(answers)
            return self._measure(server, path, self._models / "1.jsonl", version("tandem-serving"))

    def peer(self, peer: Peer, bin_: Path) -> Measured:
        """Raises Skipped, ServerFailed."""
        folder = self._folder / peer.name
        folder.mkdir()
        requests = [json.dumps(peer.request(json.loads(body)["instances"])) for body in self._bodies]
        bodies = folder / "requests.jsonl"
        bodies.write_text("\n".join(requests) + "\n")
        place = Place(bin_, folder, self._models / "model.joblib", free_port())
        # Its own programs first: some of them start others by name.
        more = {**QUIET, "MODEL_FILE": str(place.model), "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
        with ExitStack() as stack:
            started = serving(peer.command(place), more, place.port, folder / "log", self._server_core)
            server = stack.enter_context(started)
            server.wait_until_ready(peer.path, requests[0].encode())
            self._check([peer.answer(json.loads(server.ask(peer.path, r.encode())[1])) for r in requests])
            return self._measure(server, peer.path, bodies, installed(bin_, peer.packages[0]))

    def _check(self, answers: list[Any]) -> None:
        self._expected = self._expected or answers
        if not all(agree(a, b) for a, b in zip(self._expected, answers, strict=True)):
            raise Skipped(f"its numbers differ: {answers[0]} is not {self._expected[0]}")

    def _measure(self, server: Server, path: str, bodies: Path, version: str) -> Measured:
        memory = server.memory()
        loads = {}
        for connections in CONNECTIONS:
            run_load(server.url(path), bodies, connections, 1, self._client_core)
            runs = []
            for _ in range(ROUNDS):
                server.settle()
                runs.append(run_load(server.url(path), bodies, connections, SECONDS, self._client_core))
            loads[connections] = median(runs)
            server.settle()
        if any(load.errors for load in loads.values()):
            raise Skipped(f"errors under load: { {c: load.errors for c, load in loads.items()} }")
        return Measured(version, memory, loads)


def environment(peer: Peer, cache: Path, *, install: bool) -> Path:
    """`bin` of the peer's environment. Raises Skipped where there is none, or it cannot be made."""
    folder = cache.resolve() / peer.name
    bin_ = folder / "bin"
    if (bin_ / "python").exists() and installed(bin_, peer.packages[0]):
        return bin_
    if not install:
        raise Skipped(f"{peer.packages[0]} is not installed in {folder}; --install installs it")
    print(f"installing {', '.join(peer.packages)} in {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    wanted = [*peer.packages, f"scikit-learn=={version('scikit-learn')}", "joblib"]
    told = subprocess.run(
        [str(bin_ / "python"), "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise Skipped(f"pip: {(told.stderr.strip() or 'failed').splitlines()[-1]}")
    return bin_


def installed(bin_: Path, package: str) -> str:
    """The version of the package in that environment; empty where it has none."""
    code = f"from importlib.metadata import version; print(version({package.partition('[')[0]!r}))"
    told = subprocess.run([str(bin_ / "python"), "-c", code], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def as_text(found: Mapping[str, Measured], skipped: Mapping[str, str]) -> str:
    heads = "server | version | connections | requests/s | p50 ms | p99 ms | memory MiB (PSS)"
    lines = [
        f"| {name} | {one.version} | {connections} | {load.rps:.0f} | {load.p50_ms:.1f} | {load.p99_ms:.1f} | "
        f"{one.memory.pss if one.memory else float('nan'):.0f} |"
        for name, one in found.items()
        for connections, load in one.loads.items()
    ]
    return "\n".join([f"{FOREST.title}, 1 row", "", table(heads, lines), "", *skips(skipped)])


def skips(skipped: Mapping[str, str]) -> Sequence[str]:
    return [f"{name} is skipped: {reason.splitlines()[0]}" for name, reason in skipped.items()]


def content(found: Mapping[str, Measured], skipped: Mapping[str, str]) -> dict[str, Any]:
    return {
        "benchmark": "peers",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "client": client_name(),
        "work": f"{FOREST.title}, 1 row",
        "servers": {name: asdict(one) for name, one in found.items()},
        "skipped": dict(skipped),
    }


if __name__ == "__main__":
    main()
