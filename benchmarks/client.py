"""A load generator of our own. `python -m benchmarks.client URL BODIES CONNECTIONS SECONDS [steady]`

Raw sockets on asyncio, keep-alive, one thread, a closed loop like wrk's; it prints what `requests.lua`
makes wrk print. It stands in where wrk is not installed, and it measures `steady` latency: then counting
begins once every connection was answered. A busy uvloop lets one new connection in per turn, and a turn
answers all that are in already, so the last of 64 waits for 2000 requests. In a run of seconds wrk counts
these waits, and adds the requests that would have been sent meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class Tally:
    """`answered` counts first replies of connections. Requests sent once `counts` is set go to `us`."""

    connections: int
    answered: int = 0
    counts: asyncio.Event = field(default_factory=asyncio.Event)
    us: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def first(self) -> None:
        self.answered += 1
        if self.answered == self.connections:
            self.counts.set()


def main(url: str, bodies: str, connections: str, seconds: str, *how: str) -> None:
    lines = Path(bodies).read_bytes().splitlines()
    print(json.dumps(asyncio.run(load(url, lines, int(connections), float(seconds), steady="steady" in how))))


async def load(
    url: str, bodies: Sequence[bytes], connections: int, seconds: float, *, steady: bool = False
) -> dict[str, float]:
    """Counts and microseconds. Requests under way at the end are not counted, as with wrk."""
    where = urlsplit(url)
    host, port = where.hostname or "127.0.0.1", where.port or 80
    target = f"{where.path}?{where.query}" if where.query else where.path
    turns = cycle([post(target, where.netloc, body) for body in bodies])
    tally = Tally(connections)
    if not steady:
        tally.counts.set()
    tasks = [asyncio.ensure_future(_connection(host, port, turns, tally)) for _ in range(connections)]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await tally.counts.wait()
    except TimeoutError:
        tally.errors["timeout"] += 1
    started = time.perf_counter()
    await asyncio.wait(tasks, timeout=seconds)
    elapsed = time.perf_counter() - started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "requests": len(tally.us),
        "us": elapsed * 1e6,
        "p50_us": percentile(tally.us, 50),
        "p99_us": percentile(tally.us, 99),
        "max_us": max(tally.us, default=0.0),
        **{kind: tally.errors[kind] for kind in ("status", "connect", "read", "write", "timeout")},
    }


def post(target: str, host: str, body: bytes) -> bytes:
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the least value that `percent` of all are not above. 0 where there are none."""
    if not values:
        return 0.0
    rank = -(-len(values) * percent // 100)  # rounded up
    return sorted(values)[max(int(rank), 1) - 1]


async def _connection(host: str, port: int, turns: cycle[bytes], tally: Tally) -> None:
    """Ask until cancelled; a connection that the server closed is opened again."""
    is_first = True
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            tally.errors["connect"] += 1
            await asyncio.sleep(0.01)
            continue
        try:
            is_open = True
            while is_open:
                # Not wait_for: before Python 3.12 it could swallow the cancel that ends the run.
                async with asyncio.timeout(TIMEOUT_S):
                    is_open = await _exchange(reader, writer, next(turns), tally)
                if is_first:
                    tally.first()
                    is_first = False
        except TimeoutError:
            tally.errors["timeout"] += 1
        except (OSError, asyncio.IncompleteReadError):
            tally.errors["read"] += 1
        finally:
            writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, tally: Tally) -> bool:
    """One request and its reply. False where the server closes the connection after it."""
    is_counted = tally.counts.is_set()
    started = time.perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(content_length(head))
    if head.split(b" ", 2)[1][:1] != b"2":
        tally.errors["status"] += 1
    if is_counted:
        tally.us.append((time.perf_counter() - started) * 1e6)
    return b"connection: close" not in head


def content_length(head: bytes) -> int:
    """Of a lower-case reply head; every server here tells it."""
    line = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None)
    if line is None:
        raise ValueError(f"a reply without Content-Length: {head!r}")
    return int(line.partition(b":")[2])


if __name__ == "__main__":
    main(*sys.argv[1:])
