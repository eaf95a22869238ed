"""Fifty slow generations at a time, and `/predict` beside them. `python -m benchmarks.generation`

The upstream is a script here: it says a word every 50 ms, for half a second to five seconds. Under each web server
`/predict` is asked at a steady rate, first alone and then while fifty callers have text generated, each the next as
soon as one has come. Every text and every prediction is compared with the only right one; `late` is what a text took
beyond the pauses of the upstream.

    python -m benchmarks.generation               twelve seconds each; writes results/generation.json
    python -m benchmarks.generation --seconds 5   a trial; prints only

The server has one process and one core; callers and upstream share another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.client import content_length, percentile, post
from benchmarks.contestants import CONTESTANTS
from benchmarks.overload import Client, Tally
from benchmarks.processes import Server, ServerFailed, cpu_seconds, end_on_sigterm, free_port, pinned, serving, tree
from benchmarks.soak import look_at

RESULTS: Final = Path(__file__).parent / "results" / "generation.json"
NAMES: Final = (
    "Tandem FastAPI, uvicorn",
    "Tandem Flask, granian",
    "Tandem Flask, gunicorn gthread",
    "Tandem Flask, gunicorn gevent",
)
PREDICT: Final = "/predict"
MODEL: Final = "slow"
GENERATE: Final = "/v1/generate/stream"

GENERATIONS: Final = 50
WORD_EVERY_S: Final = 0.05
LENGTHS: Final = (10, 55, 100, 25, 70, 40, 85)  # in words and in turn: half a second to five seconds
RAMP_S: Final = 2.0  # until all callers are there
PER_S: Final = 200  # requests to /predict
ROWS: Final = 256
SECONDS: Final = 12.0
GIVE_UP_S: Final = 60.0


def word(number: int) -> str:
    return f"word-{number} "


def text(words: int) -> str:
    return "".join(map(word, range(words)))


@asynccontextmanager
async def upstream(port: int) -> AsyncIterator[None]:
    """Answers `/v1/completions` as a stream of `max_tokens` words, with Server-Sent Events."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                asked = json.loads(await reader.readexactly(content_length(head.lower())))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                begun = time.perf_counter()
                for number in range(asked["max_tokens"]):
                    await asyncio.sleep(begun + (number + 1) * WORD_EVERY_S - time.perf_counter())
                    writer.write(_chunk(_event(text=word(number))))
                    await writer.drain()
                writer.write(_chunk(_event(text="", finish_reason="length") + b"data: [DONE]\n\n") + _chunk(b""))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the server ended, or the benchmark: asyncio would report a handler that was cancelled
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield


def _event(**choice: Any) -> bytes:
    event = {"id": "1", "object": "text_completion", "created": 0, "model": MODEL, "choices": [{"index": 0, **choice}]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class Generations:
    """`first_ms` is from asking to the first word."""

    finished: int = 0
    wrong: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    first_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {
            "finished": self.finished,
            "wrong": self.wrong,
            "failed": dict(self.failed),
            "first_word_p50_ms": round(percentile(self.first_ms, 50), 1),
            "first_word_p99_ms": round(percentile(self.first_ms, 99), 1),
            "late_p99_ms": round(percentile(self.late_ms, 99), 1),
        }


async def generate_on(port: int, caller: int, until: float, turns: count[int], tally: Generations) -> None:
    """One text after the other; what has begun is waited for. Callers come one by one, as they would."""
    await asyncio.sleep(RAMP_S * caller / GENERATIONS)
    while time.perf_counter() < until:
        wanted = LENGTHS[next(turns) % len(LENGTHS)]
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await _generate(port, wanted, tally)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            tally.failed[f"{type(error).__name__}: {error}"[:100]] += 1
            await asyncio.sleep(WORD_EVERY_S)


async def _generate(port: int, wanted: int, tally: Generations) -> None:
    """Raises ValueError for a reply that is none of events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        begun, first = time.perf_counter(), None
        body = json.dumps({"prompt": "say words", "max_tokens": wanted}).encode()
        writer.write(post(GENERATE, f"127.0.0.1:{port}", body))
        head = await reader.readuntil(b"\r\n\r\n")
        if b"text/event-stream" not in head.lower():
            raise ValueError(head.partition(b"\r\n")[0].decode())
        said: list[str] = []
        last = b""
        async for line in _lines(reader):  # to the end of the body: then the server counts it as over
            last = line or last
            if line.startswith(b"data: {"):
                first = first or time.perf_counter()
                said.append(json.loads(line[6:]).get("text", ""))
        if last != b"data: [DONE]":
            raise ValueError(f"the end came after {last!r}")
    finally:
        writer.close()
    tally.finished += 1
    tally.wrong += "".join(said) != text(wanted)
    tally.first_ms.append(((first or begun) - begun) * 1000)
    tally.late_ms.append((time.perf_counter() - begun - wanted * WORD_EVERY_S) * 1000)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Of a body in chunks, without their ends."""
    rest = b""
    while size := int(await reader.readline(), 16):
        *lines, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n")
        for line in lines:
            yield line


@dataclass(slots=True)
class Watch:
    """The most that was seen of a server's processes together."""

    server: Server
    pss_mib: float = 0.0
    threads: int = 0

    async def look_on(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.5)

    def look(self) -> None:
        if (memory := self.server.memory()) is not None:
            self.pss_mib = max(self.pss_mib, memory.pss)
            self.threads = max(self.threads, look_at(tree(self.server.process.pid)).threads)


async def measure(server: Server, upstream_port: int, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    client = Client(server.port, requests)
    async with upstream(upstream_port):
        await _generate(server.port, 1, Generations())  # what is imported for the first one is not measured
        await client.open_loop(PER_S, RAMP_S)
        alone = await _watched(server, client, seconds)
        generations, turns, until = Generations(), count(), time.perf_counter() + RAMP_S + seconds
        generating = asyncio.gather(
            *(generate_on(server.port, turn, until, turns, generations) for turn in range(GENERATIONS))
        )
        await asyncio.sleep(RAMP_S)
        beside = await _watched(server, client, seconds)
        await generating
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"load_average": load, "alone": alone, "beside": beside, "generations": generations.figures()}


async def _watched(server: Server, client: Client, seconds: float) -> dict[str, Any]:
    """`/predict` at its steady rate, and what the server takes meanwhile."""
    watch, computed = Watch(server), cpu_seconds(server.process.pid)
    looking = asyncio.ensure_future(watch.look_on())
    tally = await client.open_loop(PER_S, seconds)
    looking.cancel()
    busy = None if computed is None else (cpu_seconds(server.process.pid) or computed) - computed
    return _predictions(tally) | {
        "core_percent": None if busy is None else round(100 * busy / tally.seconds),
        "pss_mib": round(watch.pss_mib, 1),
        "threads": watch.threads,
    }


def _predictions(tally: Tally) -> dict[str, Any]:
    found = tally.figures()
    names = {"accepted": "answered", "accepted_p50_ms": "p50_ms", "accepted_p99_ms": "p99_ms"}
    kept = ("refused", "others", "wrong", "lost", "client_late_p99_ms")
    return {new: found[old] for old, new in names.items()} | {name: found[name] for name in kept}


def verdicts(name: str, found: dict[str, Any]) -> dict[str, bool]:
    """What is to be shown, and whether it was."""
    alone, beside, generations = found["alone"], found["beside"], found["generations"]
    shown = {
        "every text comes, and is the right one": not generations["wrong"] and not generations["failed"],
        "every prediction is answered by its own": not any(
            one[what] for one in (alone, beside) for what in ("refused", "others", "wrong", "lost")
        ),
    }
    if "FastAPI" in name:
        shown["no thread more than without"] = beside["threads"] <= alone["threads"]
    return shown


def table(found: dict[str, Any]) -> str:
    lines = [
        f"| server | p50, p99 of `/predict` alone | beside {GENERATIONS} generations | core | threads | PSS | texts |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        alone, beside, generations = one["alone"], one["beside"], one["generations"]
        cells = (
            name.removeprefix("Tandem "),
            *(f"{phase['p50_ms']:.1f}, {phase['p99_ms']:.1f} ms" for phase in (alone, beside)),
            f"{alone['core_percent']} → {beside['core_percent']} %",
            f"{alone['threads']} → {beside['threads']}",
            f"{alone['pss_mib']:.0f} → {beside['pss_mib']:.0f} MiB",
            str(generations["finished"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_model(folder: Path) -> list[list[float]]:
    """Export the model; the answer to row i of those that are returned is i."""
    import numpy as np
    from sklearn.tree import DecisionTreeRegressor

    from training import export

    X = np.arange(float(ROWS))[:, None]
    export(DecisionTreeRegressor().fit(X, X[:, 0]), X[:50], name="same", repository=folder)
    rows: list[list[float]] = X.tolist()
    return rows


def run(name: str, models: Path, rows: Sequence[Sequence[float]], seconds: float, cores: tuple[int, int]) -> Any:
    """The figures of one server. `cores` are its own, and that of everything else."""
    (contestant,) = (one for one in CONTESTANTS if one.name == name)
    port, upstream_port = free_port(), free_port()
    address = f"http://127.0.0.1:{upstream_port}/v1"
    command = [*contestant.command(models, port), "--upstream", address, "--upstream-model", MODEL]
    bodies = [json.dumps({"instances": [row]}).encode() for row in rows]
    requests = [post(PREDICT, f"127.0.0.1:{port}", body) for body in bodies]
    with serving(command, {}, port, models / "log", cores[0]) as server:
        server.wait_until_ready(PREDICT, bodies[0])
        with pinned(cores[1]):
            found = asyncio.run(measure(server, upstream_port, requests, seconds))
    return found | {"shown": verdicts(name, found)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, help="alone, and beside; where nothing is said, the result is kept")
    parser.add_argument("--only", choices=NAMES, help="one web server")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    arguments = parser.parse_args()
    end_on_sigterm()
    found: dict[str, Any] = {}
    cores = (arguments.server_core, arguments.client_core)
    with tempfile.TemporaryDirectory() as temporary:
        rows = write_model(Path(temporary, "models"))
        for name in [arguments.only] if arguments.only else NAMES:
            found[name] = run(name, Path(temporary), rows, arguments.seconds or SECONDS, cores)
            print(json.dumps({name: found[name]}, indent=1), flush=True)
    print(table(found))
    if arguments.seconds is None and arguments.only is None:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if not all(all(one["shown"].values()) for one in found.values()):
        sys.exit("not all is shown")


if __name__ == "__main__":
    try:
        main()
    except ServerFailed as error:
        sys.exit(str(error))
