"""One model asked in every protocol: rows a second by protocol and rows. `python -m benchmarks.protocols`

The model is light (a scaled logistic regression of 30 numbers in single precision), so that what is measured is
the protocol. One server has one core, the client the other, on two connections that each ask again when they were
answered: while one reply is read, the next request is computed. All protocols take turns, three rounds; a ratio is
that of a round, and a figure the median of the rounds. The engine's own time is what the server measured when it
loaded the model (`GET /models/{name}`), for as many rows.

    python -m benchmarks.protocols             writes results/protocols.json
    python -m benchmarks.protocols --quick     a second per figure; prints, writes nothing
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import Server, end_on_sigterm, free_port, pinned, serving
from benchmarks.report import figure, machine, table

RESULTS: Final = Path(__file__).parent / "results" / "protocols.json"
MODEL: Final = "light"
COLUMNS: Final = 30
ROWS: Final = (1, 100, 10_000)
ROUNDS: Final = 3
CONNECTIONS: Final = 2
SECONDS: Final = 4.0
QUICK_SECONDS: Final = 1.0
SERVER_CORE, CLIENT_CORE = 0, 1

# At the most rows: rows a second against JSON at least, seconds against the engine's own at most.
TIMES_JSON: Final = 10.0
TIMES_ENGINE: Final = 3.0
AGAINST: Final = "native JSON"

STREAM: Final = "application/vnd.apache.arrow.stream"

# Asks once, and gives back the labels.
Ask = Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Protocol:
    """`connect` opens a connection to a server and its gRPC port, and prepares one request of these rows."""

    name: str
    connect: Callable[[Server, int, NDArray[np.float32]], Ask]
    has_targets: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second per figure; writes nothing")
    quick = parser.parse_args().quick
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (server, grpc_port, engine_s):
        found = {rows: measure(server, grpc_port, rows, QUICK_SECONDS if quick else SECONDS) for rows in ROWS}
    print(summary(found, engine_s))
    if not quick:
        RESULTS.write_text(json.dumps(report(found, engine_s), indent=1) + "\n")


@contextmanager
def served(folder: Path) -> Iterator[tuple[Server, int, Callable[[int], float]]]:
    """The server, its gRPC port, and the seconds that the engine takes by rows."""
    export_model(folder / "models")
    port, grpc_port = free_port(), free_port()
    command = [
        *(sys.executable, "-c", "from training.cli import main; main()", "serve", "--models", str(folder / "models")),
        *("--port", str(port), "--grpc-port", str(grpc_port)),
    ]
    with serving(command, {}, port, folder / "log", SERVER_CORE) as server:
        server.wait_until_ready(f"/models/{MODEL}/predict", json.dumps({"instances": [[0.5] * COLUMNS]}).encode())
        _, about = server.ask(f"/models/{MODEL}")
        yield server, grpc_port, engine_seconds(json.loads(about)["engines"])


def export_model(models: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from training import export

    numbers = rows_of(2000)
    labels = (numbers[:, 0] + numbers[:, 1] > 0).astype(int)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, labels)
    export(estimator, numbers[:200], name=MODEL, repository=models)


def rows_of(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows).normal(size=(rows, COLUMNS)).astype(np.float32)


def engine_seconds(engines: Sequence[Mapping[str, Any]]) -> Callable[[int], float]:
    """What the fastest engine takes for so many rows: as measured, or in proportion beyond the most that was."""

    def seconds(rows: int) -> float:
        return min(_read_off(engine["seconds"], rows) for engine in engines if engine["seconds"])

    return seconds


def _read_off(measured: Mapping[str, float], rows: int) -> float:
    sizes = sorted(int(size) for size in measured)
    times = [measured[str(size)] for size in sizes]
    return float(np.interp(rows, sizes, times)) if rows <= sizes[-1] else times[-1] * rows / sizes[-1]


# -- the protocols -------------------------------------------------------------------------------


def over_http(
    path: str,
    headers: Mapping[str, str],
    write: Callable[[NDArray[np.float32]], tuple[bytes, Mapping[str, str]]],
    read: Callable[[bytes, Any], NDArray[Any]],
) -> Callable[[Server, int, NDArray[np.float32]], Ask]:
    """A protocol over HTTP: `write` makes a body and headers of rows, `read` labels of a body and its headers."""

    def connect(server: Server, grpc_port: int, rows: NDArray[np.float32]) -> Ask:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body, more = write(rows)
        given = {**headers, **more}

        def ask() -> NDArray[Any]:
            connection.request("POST", path, body, given)
            reply = connection.getresponse()
            content = reply.read()
            if reply.status != 200:
                raise RuntimeError(f"{path}: {reply.status} {content[:300]!r}")
            return read(content, reply.headers)

        return ask

    return connect


def native_json(rows: NDArray[np.float32]) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps({"instances": rows.tolist()}).encode(), {}


def v2_json(rows: NDArray[np.float32]) -> tuple[bytes, Mapping[str, str]]:
    tensor = {"name": "input-0", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode(), {}


def v2_binary(rows: NDArray[np.float32]) -> tuple[bytes, Mapping[str, str]]:
    size = {"binary_data_size": rows.nbytes}
    tensor = {"name": "input-0", "shape": list(rows.shape), "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + rows.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def arrow(rows: NDArray[np.float32]) -> tuple[bytes, Mapping[str, str]]:
    import pyarrow as pa

    batch = pa.table({f"x{i}": np.ascontiguousarray(rows[:, i]) for i in range(COLUMNS)})
    content = io.BytesIO()
    with pa.ipc.new_stream(content, batch.schema) as writer:
        writer.write_table(batch)
    return content.getvalue(), {}


def npy(rows: NDArray[np.float32]) -> tuple[bytes, Mapping[str, str]]:
    content = io.BytesIO()
    np.save(content, rows)
    return content.getvalue(), {}


def from_arrow(body: bytes, headers: Any) -> NDArray[Any]:
    import pyarrow as pa

    labels: NDArray[Any] = pa.ipc.open_stream(pa.py_buffer(body)).read_all()["predict"].to_numpy()
    return labels


def from_v2_binary(body: bytes, headers: Any) -> NDArray[Any]:
    return np.frombuffer(body, np.int64, offset=int(headers["inference-header-content-length"]))


def grpc_v2(server: Server, grpc_port: int, rows: NDArray[np.float32]) -> Ask:
    import grpc

    from service.protocols.protos import inference_pb as pb

    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=unlimited)
    infer = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="input-0", datatype="FP32", shape=rows.shape)

    def ask() -> NDArray[Any]:
        return np.frombuffer(infer(request, timeout=60).raw_output_contents[0], np.int64)

    return ask


_NATIVE: Final = f"/models/{MODEL}/predict"
_V2: Final = f"/v2/models/{MODEL}/infer"
_JSON: Final = {"Content-Type": "application/json"}
PROTOCOLS: Final = (
    Protocol(AGAINST, over_http(_NATIVE, _JSON, native_json, lambda b, _: np.array(json.loads(b)["predictions"]))),
    Protocol("V2 JSON", over_http(_V2, _JSON, v2_json, lambda b, _: np.array(json.loads(b)["outputs"][0]["data"]))),
    Protocol(
        "V2 binary", over_http(_V2, {"Content-Type": "application/octet-stream"}, v2_binary, from_v2_binary), True
    ),
    Protocol("Arrow", over_http(_NATIVE, {"Content-Type": STREAM}, arrow, from_arrow), True),
    Protocol(
        "npy", over_http(_NATIVE, {"Content-Type": "application/x-npy"}, npy, lambda b, _: np.load(io.BytesIO(b)))
    ),
    Protocol("V2 gRPC", grpc_v2),
)


# -- measuring -----------------------------------------------------------------------------------


def measure(server: Server, grpc_port: int, rows: int, seconds: float) -> dict[str, list[float]]:
    """Rows a second by protocol, one figure per round. Raises RuntimeError where two protocols disagree."""
    asked = rows_of(rows)
    found: dict[str, list[float]] = {protocol.name: [] for protocol in PROTOCOLS}
    with pinned(CLIENT_CORE):
        answers = {protocol.name: protocol.connect(server, grpc_port, asked)() for protocol in PROTOCOLS}
        for name, labels in answers.items():
            if not np.array_equal(labels, answers[AGAINST]):
                raise RuntimeError(f"{name} answers other labels than {AGAINST}")
        for _ in range(ROUNDS):
            for protocol in PROTOCOLS:
                server.settle()
                # Anew in each round: a server closes connections that nobody has used for seconds.
                asks = [protocol.connect(server, grpc_port, asked) for _ in range(CONNECTIONS)]
                found[protocol.name].append(rows * load(asks, seconds))
    return found


def load(asks: Sequence[Ask], seconds: float) -> float:
    """Requests a second of all connections together."""
    counts = [0] * len(asks)
    failed: list[BaseException] = []
    until = time.perf_counter() + seconds

    def work(place: int) -> None:
        try:
            while time.perf_counter() < until:
                asks[place]()
                counts[place] += 1
        except BaseException as error:
            failed.append(error)

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(counts) / (time.perf_counter() - started)


# -- reporting -----------------------------------------------------------------------------------

Found = Mapping[int, Mapping[str, Sequence[float]]]


def times_json(runs: Mapping[str, Sequence[float]], name: str) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(own / json for own, json in zip(runs[name], runs[AGAINST], strict=True))


def times_engine(runs: Mapping[str, Sequence[float]], name: str, rows: int, engine_s: Callable[[int], float]) -> float:
    """Seconds per request over the engine's own."""
    return rows / statistics.median(runs[name]) / engine_s(rows)


def summary(found: Found, engine_s: Callable[[int], float]) -> str:
    lines = []
    for rows, runs in found.items():
        for name in runs:
            rate = statistics.median(runs[name])
            lines.append(
                f"| {rows} | {name} | {rate:,.0f} | {1000 * rows / rate:.3g} | {figure(times_json(runs, name))} | "
                f"{figure(times_engine(runs, name, rows, engine_s))} |"
            )
    text = table("rows | protocol | rows/s | ms per request | × JSON | × engine's own time", lines)
    told = ", ".join(f"{1000 * engine_s(rows):.3g} ms for {rows}" for rows in found)
    return f"{text}\n\nThe engine alone: {told}.\n\n" + table(
        "target at the most rows | limit | reached | holds",
        [
            f"| {t['what']} | {t['limit']:g} | {figure(t['reached'])} | {'yes' if t['holds'] else '**no**'} |"
            for t in targets(found, engine_s)
        ],
    )


def targets(found: Found, engine_s: Callable[[int], float]) -> list[dict[str, Any]]:
    rows = max(found)
    told = []
    for name in (protocol.name for protocol in PROTOCOLS if protocol.has_targets):
        faster, slower = times_json(found[rows], name), times_engine(found[rows], name, rows, engine_s)
        told += [
            {"what": f"{name}: rows/s of JSON, at least", "limit": TIMES_JSON, "reached": faster,
             "holds": faster >= TIMES_JSON},
            {"what": f"{name}: the engine's own time, at most", "limit": TIMES_ENGINE, "reached": slower,
             "holds": slower <= TIMES_ENGINE},
        ]  # fmt: skip
    return told


def report(found: Found, engine_s: Callable[[int], float]) -> dict[str, Any]:
    return {
        "benchmark": "protocols",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "method": {"columns": COLUMNS, "connections": CONNECTIONS, "seconds": SECONDS, "rounds": ROUNDS},
        "engine_seconds": {str(rows): engine_s(rows) for rows in found},
        "targets": targets(found, engine_s),
        "rows_per_second": {str(rows): {name: list(runs[name]) for name in runs} for rows, runs in found.items()},
    }


if __name__ == "__main__":
    main()
