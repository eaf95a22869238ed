"""How long `/health/live` takes beside other work: asked at a steady pace, whether or not the last answer came."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.client import percentile
from benchmarks.load import run_load
from benchmarks.processes import Server

PATH: Final = "/health/live"
PER_SECOND: Final = 20
# An orchestrator has long given up by then.
GIVE_UP_S: Final = 10.0
CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Health:
    """`failed` probes got no 200 within `GIVE_UP_S`; they count in the percentiles as having taken that long."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    probes: int
    failed: int
    beside_rps: float
    beside_p50_ms: float


def health_beside(server: Server, path: str, bodies: Path, seconds: int, core: int) -> Health:
    """Probe for `seconds`, while 64 connections ask for predictions."""
    loads = []
    load = threading.Thread(
        target=lambda: loads.append(run_load(server.url(path), bodies, CONNECTIONS, seconds + 2, core))
    )
    load.start()
    time.sleep(1)  # until every connection waits for its answer
    took = asyncio.run(_probe(server.port, seconds))
    load.join()
    ms = [GIVE_UP_S * 1000 if t is None else t for t in took]
    return Health(
        percentile(ms, 50), percentile(ms, 99), max(ms), len(ms), took.count(None), loads[0].rps, loads[0].p50_ms
    )


async def _probe(port: int, seconds: int) -> list[float | None]:
    tasks = []
    started = time.perf_counter()
    for turn in range(seconds * PER_SECOND):
        await asyncio.sleep(max(0.0, started + turn / PER_SECOND - time.perf_counter()))
        tasks.append(asyncio.ensure_future(_once(port)))
    return await asyncio.gather(*tasks)


async def _once(port: int) -> float | None:
    """Milliseconds from connecting to the whole answer, as a kubelet does it; None where it was no 200."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(GIVE_UP_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return (time.perf_counter() - started) * 1000 if head.split(b" ", 2)[1] == b"200" else None
