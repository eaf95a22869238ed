"""A million rows through `/predict/stream`: rows a second, and the most memory that the server takes meanwhile.

    python -m benchmarks.streaming               a million rows in each form; writes results/streaming.json
    python -m benchmarks.streaming --rows 50000  a trial; prints only

Rows have 30 floats, the model is a scaler and a logistic regression, and each row is answered with its prediction. The
server has one core, the client another; it writes in one thread and reads in another. NDJSON goes out in chunks of 100
rows, Arrow in record batches of 1000.

The kernel gives no process of the server more than LIMIT_MIB of memory that it can write and shares with nobody
(RLIMIT_DATA): one that wanted more would fail. Besides, the proportional set of all of them is looked at ten times a
second, and must stay below LIMIT_MIB, too.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import CONTESTANTS
from benchmarks.models import COLUMNS, LOGISTIC
from benchmarks.processes import Server, ServerFailed, end_on_sigterm, free_port, pinned, serving

RESULTS: Final = Path(__file__).parent / "results" / "streaming.json"
NAMES: Final = ("Tandem FastAPI, uvicorn", "Tandem Flask, granian", "Tandem Flask, gunicorn gthread")
PATH: Final = "/predict/stream"
ROWS: Final = 1_000_000
WARM_UP_ROWS: Final = 5_000
LIMIT_MIB: Final = 256
LOOK_S: Final = 0.1
GIVE_UP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Form:
    """`head`, then as many `block`s of `rows` rows as there are, then `tail`; `count` counts the rows of an answer."""

    media_type: str
    head: bytes
    block: bytes
    tail: bytes
    rows: int
    count: Callable[[http.client.HTTPResponse], int]


def forms() -> dict[str, Form]:
    import numpy as np
    import pyarrow as pa

    X = np.random.default_rng(0).normal(size=(1000, COLUMNS))
    lines = "".join(f"{json.dumps(row)}\n" for row in X[:100].tolist()).encode()
    batch = pa.record_batch({f"x{place}": X[:, place] for place in range(COLUMNS)})
    head, block, tail = _messages(batch)
    return {
        "NDJSON": Form("application/x-ndjson", b"", lines, b"", 100, _lines),
        "Arrow": Form("application/vnd.apache.arrow.stream", head, block, tail, len(X), _batches),
    }


def _messages(batch: Any) -> tuple[bytes, bytes, bytes]:
    """The schema, the batch, and the end of a stream."""
    import pyarrow as pa

    content = io.BytesIO()
    writer = pa.ipc.new_stream(content, batch.schema)
    parts = []
    for write in (lambda: writer.write_batch(batch[:0]), lambda: writer.write_batch(batch), writer.close):
        start = content.tell()
        write()
        parts.append(content.getvalue()[start:])
    return parts[0], parts[1], parts[2]


def _lines(answer: http.client.HTTPResponse) -> int:
    """Raises ServerFailed where a row has an error."""
    rows = 0
    while piece := answer.read1(1 << 16):
        if b'"error"' in piece:
            raise ServerFailed(piece.decode(errors="replace")[:500])
        rows += piece.count(b"\n")
    return rows


def _batches(answer: http.client.HTTPResponse) -> int:
    """Raises ServerFailed where a row has an error."""
    import pyarrow as pa

    rows = 0
    for batch in pa.ipc.open_stream(answer):
        if batch["error"].null_count < batch.num_rows:
            raise ServerFailed(str(batch["error"])[:500])
        rows += batch.num_rows
    return rows


def stream(server: Server, form: Form, rows: int) -> float:
    """Seconds from the first byte sent to the last one that came. Raises ServerFailed where rows are missing."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=GIVE_UP_S)
    started = time.perf_counter()
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Type", form.media_type)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    writing = threading.Thread(target=_write, args=(connection.sock, form, rows), daemon=True)
    writing.start()
    answer = connection.getresponse()
    if answer.status != 200:
        raise ServerFailed(f"{answer.status}: {answer.read()[:500]!r}")
    came = form.count(answer)
    seconds = time.perf_counter() - started
    writing.join(GIVE_UP_S)
    connection.close()
    if came != rows:
        raise ServerFailed(f"{rows} rows were sent, {came} answered\n{server.told()}")
    return seconds


def _write(connection: Any, form: Form, rows: int) -> None:
    for part, times in ((form.head, 1), (form.block, rows // form.rows), (form.tail, 1)):
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        for _ in range(times if part else 0):
            connection.sendall(chunk)
    connection.sendall(b"0\r\n\r\n")


def within(mib: int, command: Sequence[str]) -> list[str]:
    """`command`, every process of which may have so much data. A limit that was set later would count what libraries
    only reserve while nothing forbids it: pyarrow a GiB."""
    return ["sh", "-c", 'ulimit -S -d "$0" && exec "$@"', str(mib * 1024), *command]


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """The memory of the server meanwhile, in MiB."""
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        is_done = False
        while not is_done:  # at least once
            is_done = done.wait(LOOK_S)
            if (memory := server.memory()) is not None:
                seen.append(memory.pss)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def measure(server: Server, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = forms()
    for form in known.values():  # all libraries are there from then on
        stream(server, form, WARM_UP_ROWS)
    for name, form in known.items():
        before = server.memory()
        with watched(server) as seen:
            seconds = stream(server, form, rows)
        found[name] = {
            "rows": rows,
            "rows_per_s": round(rows / seconds),
            "seconds": round(seconds, 1),
            "sent_mib": round((rows // form.rows) * len(form.block) / 2**20),
            "data_limit_mib": LIMIT_MIB,
            "pss_mib": {
                "before": round(before.pss, 1) if before else None,
                "highest": round(max(seen), 1) if seen else None,
            },
        }
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| server | form | rows/s | sent | memory before | highest |", "|---|---|---|---|---|---|"]
    for server, by_form in found.items():
        for form, told in by_form.items():
            memory = " | ".join(f"{told['pss_mib'][when]} MiB" for when in ("before", "highest"))
            lines.append(f"| {server} | {form} | {told['rows_per_s']:,} | {told['sent_mib']} MiB | {memory} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, help="in thousands; a million where nothing is said, and then it is kept")
    parser.add_argument("--only", choices=NAMES, help="one web server")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    arguments = parser.parse_args()
    rows = (arguments.rows or ROWS) // 1000 * 1000
    end_on_sigterm()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-m", "benchmarks.models", temporary, LOGISTIC.name], check=True)
        folder = Path(temporary, LOGISTIC.name)
        body = json.dumps({"instances": [[0.0] * COLUMNS]}).encode()
        for contestant in (one for one in CONTESTANTS if one.name in (NAMES, (arguments.only,))[bool(arguments.only)]):
            port = free_port()
            command = within(LIMIT_MIB, contestant.command(folder, port))
            with serving(command, {}, port, Path(temporary, "log"), arguments.server_core) as server:
                server.wait_until_ready("/predict", body)
                with pinned(arguments.client_core):
                    found[contestant.name] = measure(server, rows)
            print(json.dumps({contestant.name: found[contestant.name]}), flush=True)
    print(table(found))
    if arguments.rows is None and arguments.only is None:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    highest = [told["pss_mib"]["highest"] for by_form in found.values() for told in by_form.values()]
    if any(mib is None or mib > LIMIT_MIB for mib in highest):
        sys.exit(f"more than {LIMIT_MIB} MiB")


if __name__ == "__main__":
    try:
        main()
    except ServerFailed as error:
        sys.exit(str(error))
