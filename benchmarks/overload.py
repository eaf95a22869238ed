"""Three times the load that a server can bear: what comes back, and how fast. `python -m benchmarks.overload`

First a closed loop of 48 connections finds the capacity, and p99 at it. Then requests are sent at three times that
rate, whether or not the ones before were answered. Each asks for the neighbour of a row of its own, whose number is
the only right answer, so that an answer that belongs to somebody else is seen.

    python -m benchmarks.overload                a minute under each web server; writes results/overload.json
    python -m benchmarks.overload --seconds 20   a trial; prints only

The server has one core, the client another, and neither core ever sleeps (`awake.py`). A reply is timed from when its
request was written.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.awake import awake
from benchmarks.client import content_length, percentile, post
from benchmarks.contestants import CONTESTANTS
from benchmarks.processes import Server, ServerFailed, end_on_sigterm, free_port, pinned, serving

RESULTS: Final = Path(__file__).parent / "results" / "overload.json"
NAMES: Final = ("Tandem FastAPI, uvicorn", "Tandem Flask, granian", "Tandem Flask, gunicorn gthread")
PATH: Final = "/predict"
MODEL: Final = "nearest"

# A search of so many rows takes some 3 ms, and requests are not merged: the model, and neither the client nor what
# surrounds the model, is what a few hundred requests a second are too many for. How long accepted requests take
# under overload is what the operator allows them to wait: here, as long as at capacity, where 47 wait for 3 ms each.
ENVIRONMENT: Final = {"TANDEM_BATCH_ROWS": "1", "TANDEM_QUEUE_S": "0.15"}
ROWS: Final = 150_000
COLUMNS: Final = 16
ASKED: Final = 512

CONNECTIONS: Final = 48
TIMES: Final = 3
CAPACITY_S: Final = 15.0
WARM_UP_S: Final = 3.0
GIVE_UP_S: Final = 60.0

# What is to be shown.
P99_TIMES: Final = 2.0
REFUSED_MS: Final = 10.0

# Of this part of a second the machine's host may rob us, and it still counts as ours.
QUIET: Final = 0.01


@dataclass(slots=True)
class Tally:
    """What came, in milliseconds. `sent` is the sum of `accepted`, `refused` and `others` once all have come.

    `came` has of each that was accepted or refused when it came (`perf_counter`), whether it was accepted, and how
    long it took.
    """

    sent: int = 0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    came: list[tuple[float, bool, float]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    late_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, status: int, body: bytes, expected: int, ms: float) -> None:
        if status == 200:
            self.accepted.append(ms)
            self.wrong += json.loads(body)["predictions"] != [expected]
            self.came.append((time.perf_counter(), True, ms))
        elif status == 503:
            self.refused.append(ms)
            self.came.append((time.perf_counter(), False, ms))
        else:
            self.others[str(status)] += 1

    def figures(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "sent_per_s": round(self.sent / self.seconds, 1),
            "accepted": len(self.accepted),
            "accepted_per_s": round(len(self.accepted) / self.seconds, 1),
            "accepted_p50_ms": round(percentile(self.accepted, 50), 1),
            "accepted_p99_ms": round(percentile(self.accepted, 99), 1),
            "refused": len(self.refused),
            "refused_p50_ms": round(percentile(self.refused, 50), 2),
            "refused_p99_ms": round(percentile(self.refused, 99), 2),
            "others": dict(self.others),
            "wrong": self.wrong,
            "lost": self.sent - len(self.accepted) - len(self.refused) - sum(self.others.values()),
            "client_late_p99_ms": round(percentile(self.late_ms, 99), 2),
        }


def undisturbed(tally: Tally, stolen_s: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The figures of those seconds in which, and before which, the machine's host left us its cores.

    `stolen_s` has moments in order, and what had been stolen by then, of all cores.
    """
    spans = [(start, end, after - before) for (start, before), (end, after) in pairwise(stolen_s)]
    quiet = [
        (start, end)
        for (_, _, before), (start, end, stolen) in pairwise(spans)
        if max(before, stolen) <= QUIET * (end - start) * (os.cpu_count() or 1)
    ]
    came = [one for one in tally.came if any(start <= one[0] < end for start, end in quiet)]
    accepted = [ms for _, is_accepted, ms in came if is_accepted]
    refused = [ms for _, is_accepted, ms in came if not is_accepted]
    return {
        "seconds": len(quiet),
        "accepted_p99_ms": round(percentile(accepted, 99), 1) if accepted else None,
        "refused_p99_ms": round(percentile(refused, 99), 2) if refused else None,
    }


class Client:
    """Connections that are kept, and opened as they are needed."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._turns = count()

    async def ask(self, tally: Tally) -> int:
        """The status; 0 where there was no reply."""
        number = next(self._turns) % len(self._requests)
        tally.sent += 1
        try:
            async with asyncio.timeout(GIVE_UP_S):
                begun, status, body = await self._reply(self._requests[number])
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.others[type(error).__name__] += 1
            return 0
        tally.take(status, body, number, (time.perf_counter() - begun) * 1000)
        return status

    async def _reply(self, request: bytes) -> tuple[float, int, bytes]:
        """When the request was written, and the status and the body that came."""
        while True:
            is_kept = bool(self._free)
            reader, writer = self._free.pop() if is_kept else await asyncio.open_connection("127.0.0.1", self._port)
            begun = time.perf_counter()
            try:
                status, body, stays = await _exchange(reader, writer, request)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                writer.close()
                # Servers close what was not used for some seconds, perhaps just now: every client asks once more.
                if is_kept and not getattr(error, "partial", b""):
                    continue
                raise
            if stays:
                self._free.append((reader, writer))
            else:
                writer.close()
            return begun, status, body

    async def closed_loop(self, seconds: float) -> Tally:
        """Each of the connections sends its next request when the last one was answered, later where it was refused."""
        tally, begun = Tally(), time.perf_counter()

        async def ask_on() -> None:
            while time.perf_counter() - begun < seconds:
                if await self.ask(tally) == 503:
                    await asyncio.sleep(1)  # as Retry-After says at least

        await asyncio.gather(*(ask_on() for _ in range(CONNECTIONS)))
        tally.seconds = time.perf_counter() - begun
        return tally

    async def open_loop(self, per_s: float, seconds: float) -> Tally:
        """At a steady rate, whatever comes back."""
        tally, begun, asked = Tally(), time.perf_counter(), []
        for number in range(round(per_s * seconds)):
            wait_s = begun + number / per_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tally.late_ms.append(max(0.0, time.perf_counter() - begun - number / per_s) * 1000)
            asked.append(asyncio.ensure_future(self.ask(tally)))
        tally.seconds = time.perf_counter() - begun
        await asyncio.gather(*asked)
        return tally


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes, bool]:
    """Status and body of the reply, and whether the connection stays open."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(content_length(head))
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in head


async def measure(server: Server, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    client = Client(server.port, requests)
    await client.closed_loop(WARM_UP_S)
    idle = server.memory()
    capacity = await client.closed_loop(CAPACITY_S)
    busy = server.memory()
    peaks = []
    stolen: list[tuple[float, float]] = []

    async def look() -> None:
        while True:
            stolen.append((time.perf_counter(), _stolen_s()))
            if (memory := server.memory()) is not None:
                peaks.append(memory.pss)
            await asyncio.sleep(1)

    looking = asyncio.ensure_future(look())
    # The client's own collector of garbage would stop it for a tenth of a second, and what comes meanwhile be late.
    gc.collect()
    gc.disable()
    overload = await client.open_loop(TIMES * len(capacity.accepted) / capacity.seconds, seconds)
    gc.enable()
    looking.cancel()
    status, body = await asyncio.to_thread(server.ask, PATH, requests[0].partition(b"\r\n\r\n")[2])
    after = server.memory()
    return {
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "capacity": capacity.figures(),
        "overload": overload.figures(),
        "stolen_percent": round(
            100 * (stolen[-1][1] - stolen[0][1]) / (stolen[-1][0] - stolen[0][0]) / (os.cpu_count() or 1), 1
        ),
        "undisturbed": undisturbed(overload, stolen),
        "well_after": status == 200 and json.loads(body)["predictions"] == [0],
        "pss_mib": {
            "warm": round(idle.pss, 1) if idle else None,
            "at capacity": round(busy.pss, 1) if busy else None,
            "highest under overload": round(max(peaks), 1) if peaks else None,
            "after": round(after.pss, 1) if after else None,
        },
    }


def _stolen_s() -> float:
    """Seconds that this machine's host gave to others, of all cores; 0 where nobody says so."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What is to be shown, and whether it was: in all seconds, and in those in which the machine was ours."""
    capacity, overload = found["capacity"], found["overload"]
    longest_ms = P99_TIMES * capacity["accepted_p99_ms"]
    shown = {
        "every request is answered, by 200 or 503": not overload["lost"] and not overload["others"],
        "every answer is its own": not overload["wrong"] and not capacity["wrong"],
        "well after": found["well_after"],
    }
    for figures, when in ((overload, ""), (found["undisturbed"], ", undisturbed")):
        accepted_ms, refused_ms = figures["accepted_p99_ms"], figures["refused_p99_ms"]
        shown[f"p99 of accepted below {P99_TIMES:g} times that at capacity{when}"] = (
            accepted_ms is not None and accepted_ms < longest_ms
        )
        shown[f"p99 of refusals below {REFUSED_MS:g} ms{when}"] = refused_ms is not None and refused_ms < REFUSED_MS
    return shown


def write_model(folder: Path) -> list[list[float]]:
    """Export the model; the answer to row i of those that are returned is i."""
    import numpy as np
    from sklearn.neighbors import KNeighborsRegressor

    from training import export

    X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).round(6)
    nearest = KNeighborsRegressor(n_neighbors=1, algorithm="brute").fit(X, np.arange(ROWS))
    export(nearest, X[:50], name=MODEL, repository=folder)
    asked: list[list[float]] = X[:ASKED].tolist()
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, help="of overload; a minute where nothing is said, and then it is kept"
    )
    parser.add_argument("--only", choices=NAMES, help="one web server")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    arguments = parser.parse_args()
    end_on_sigterm()
    found: dict[str, Any] = {}
    cores = (arguments.server_core, arguments.client_core)
    with tempfile.TemporaryDirectory() as temporary, awake(cores):
        rows = write_model(Path(temporary, "models"))
        for contestant in (one for one in CONTESTANTS if one.name in (NAMES, (arguments.only,))[bool(arguments.only)]):
            port = free_port()
            command = contestant.command(Path(temporary), port)
            bodies = [json.dumps({"instances": [row]}).encode() for row in rows]
            requests = [post(PATH, f"127.0.0.1:{port}", body) for body in bodies]
            with serving(command, ENVIRONMENT, port, Path(temporary, "log"), arguments.server_core) as server:
                server.wait_until_ready(PATH, bodies[0])
                with pinned(arguments.client_core):
                    one = asyncio.run(measure(server, requests, arguments.seconds or 60.0))
            found[contestant.name] = one | {"shown": verdicts(one)}
            print(json.dumps({contestant.name: found[contestant.name]}, indent=1), flush=True)
    if arguments.seconds is None and arguments.only is None:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if not all(all(one["shown"].values()) for one in found.values()):
        sys.exit("not all is shown")


if __name__ == "__main__":
    try:
        main()
    except ServerFailed as error:
        sys.exit(str(error))
