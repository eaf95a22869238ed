"""Good and bad requests in turn, many of them: does anything grow? `python -m benchmarks.soak [--requests 1000000]`

Memory, threads and open files of the server's processes are looked at every hundredth of the way. In the second half
nothing may grow any more: the highest memory is compared with the mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.client import content_length, post
from benchmarks.contestants import CONTESTANTS
from benchmarks.models import LOGISTIC
from benchmarks.overload import NAMES
from benchmarks.processes import Server, ServerFailed, end_on_sigterm, free_port, pinned, serving, tree

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"
CONNECTIONS: Final = 16
SAMPLES: Final = 100
REQUESTS: Final = 200_000

# What memory may be above its mean in the second half: allocators keep and give back pages as they like.
BOUND_BYTES: Final = 6 * 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """Of all processes of a server together."""

    memory_bytes: int
    threads: int
    descriptors: int


@dataclass(slots=True)
class Soak:
    """Samples in the order they were taken, and the replies by status; what broke off is under `broken`."""

    samples: list[Sample] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def growth_bytes(self) -> float:
        """The highest memory of the second half above its mean."""
        memory = [one.memory_bytes for one in self._second_half()]
        return max(memory) - statistics.fmean(memory)

    def slope_bytes(self, per_sample: int) -> float:
        """Bytes by which memory grew for each request in the second half: least squares, `per_sample` apart."""
        memory = [one.memory_bytes for one in self._second_half()]
        return statistics.linear_regression(range(len(memory)), memory).slope / per_sample

    def grown(self) -> list[str]:
        """What did not stay as it was in the second half; nothing of a service that is well."""
        half = self._second_half()
        # What was taken before may go back to the system meanwhile: memory that falls is far from its mean, too.
        grows = self.growth_bytes() >= BOUND_BYTES and self.slope_bytes(1) > 0
        found = [f"memory by {self.growth_bytes() / 2**20:.1f} MiB"] if grows else []
        for name in ("threads", "descriptors"):
            first, last = (getattr(one, name) for one in (half[0], half[-1]))
            # Connections come and go; what leaks grows with the requests.
            if last > first + CONNECTIONS:
                found.append(f"{name} from {first} to {last}")
        return found

    def _second_half(self) -> Sequence[Sample]:
        return self.samples[len(self.samples) // 2 :]


def mix(model: str, row: Sequence[float], others: Sequence[bytes] = ()) -> list[bytes]:
    """Requests, in turn: two good ones, and all that can be wrong with one."""
    path, host = f"/models/{model}/predict", "127.0.0.1"
    good = post(path, host, json.dumps({"instances": [row]}).encode())
    bodies: list[Any] = [
        {"instances": [row] * 50},
        {"instances": [row[1:]]},
        {"instances": [[*row[1:], "x"]]},
        {"instances": []},
        {"instances": [[None] * len(row)]},
        {"nothing": 1},
        [1],
    ]
    bad = [post(path, host, json.dumps(body).encode()) for body in bodies]
    bad += [post(path, host, content) for content in (b"", b"{", b"[" * 100, b'{"instances": [[1e400]]}')]
    bad.append(post("/models/nobody/predict", host, b"{}"))
    bad.append(post("/nothing", host, b"{}"))
    bad.append(post(f"{path}?outputs=nothing", host, json.dumps({"instances": [row]}).encode()))
    bad.append(post(path, host, good.partition(b"\r\n\r\n")[2]).replace(b"application/json", b"text/plain"))
    bad.append(f"GET /models/{model} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    bad.append(f"DELETE {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return [one for each in (*bad, *others) for one in (good, each)]


async def soak(port: int, requests: Sequence[bytes], number: int, look: Callable[[], Sample]) -> Soak:
    """Send so many requests, over a few connections; a tenth more before, which does not count."""
    found, turns = Soak(), count()
    end = number + number // 10
    every = max(1, number // SAMPLES)

    async def ask_on() -> None:
        connection = None
        while (turn := next(turns)) < end:
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            reader, writer = connection
            try:
                writer.write(requests[turn % len(requests)])
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(content_length(head))
                found.statuses[head.split(b" ", 2)[1].decode()] += 1
                closes = b"connection: close" in head
            except (OSError, asyncio.IncompleteReadError):
                found.statuses["broken"] += 1
                closes = True
            if closes:
                writer.close()
                connection = None
            if turn >= end - number and turn % every == 0:
                found.samples.append(look())
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(ask_on() for _ in range(CONNECTIONS)))
    return found


def look_at(pids: Sequence[int]) -> Sample:
    memory = threads = descriptors = 0
    for pid in pids:
        process = Path("/proc") / str(pid)
        memory += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        threads += len(os.listdir(process / "task"))
        descriptors += len(os.listdir(process / "fd"))
    return Sample(memory, threads, descriptors)


def measure(server: Server, requests: Sequence[bytes], number: int) -> dict[str, Any]:
    begun = time.perf_counter()
    found = asyncio.run(soak(server.port, requests, number, lambda: look_at(tree(server.process.pid))))
    seconds = time.perf_counter() - begun
    samples = found.samples
    return {
        "requests": number,
        "per_s": round(number * 1.1 / seconds),
        "statuses": dict(sorted(found.statuses.items())),
        "growth_mib": round(found.growth_bytes() / 2**20, 2),
        "slope_bytes_a_request": round(found.slope_bytes(max(1, number // SAMPLES)), 2),
        "first": asdict(samples[0]),
        "half": asdict(samples[len(samples) // 2]),
        "last": asdict(samples[-1]),
        "grown": found.grown(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="to each web server")
    parser.add_argument("--only", choices=NAMES, help="one web server")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    arguments = parser.parse_args()
    end_on_sigterm()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "benchmarks.models", temporary, LOGISTIC.name], check=True)
        models = Path(temporary, LOGISTIC.name)
        row = json.loads((models / "1.jsonl").read_bytes().splitlines()[0])["instances"][0]
        for contestant in (one for one in CONTESTANTS if one.name in (NAMES, (arguments.only,))[bool(arguments.only)]):
            command = contestant.command(models, port := free_port())
            with serving(command, {}, port, Path(temporary, "log"), arguments.server_core) as server:
                server.wait_until_ready("/predict", json.dumps({"instances": [row]}).encode())
                with pinned(arguments.client_core):
                    found[contestant.name] = measure(server, mix(LOGISTIC.name, row), arguments.requests)
            print(json.dumps({contestant.name: found[contestant.name]}, indent=1), flush=True)
    if arguments.only is None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    if any(one["grown"] for one in found.values()):
        sys.exit("something grows")


if __name__ == "__main__":
    try:
        main()
    except ServerFailed as error:
        sys.exit(str(error))
