"""A million rows in one request: what they take, and that others are answered meanwhile."""

from __future__ import annotations

import io
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from tests.conformance.servers import SERVERS, tandem_serve
from training.export import export

ROWS: Final = 1_000_000
COLUMNS: Final = 10
# Of all rows at once, the hidden layer would be 2 GB of doubles.
HIDDEN: Final = 256

STREAM: Final = "application/vnd.apache.arrow.stream"
MIB: Final = 2**20

# What a slice needs, the rows of its hidden layer among it, and what the allocators keep in stock.
CONSTANT: Final = 128 * MIB


@dataclass(frozen=True, slots=True)
class Told:
    """Sizes in bytes, times in seconds; `waits` are those of `/health/live` meanwhile."""

    reply: bytes
    body: int
    peak: int
    seconds: float
    waits: list[float]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("million") / "models"
    table = frame(300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MLPRegressor(hidden_layer_sizes=(HIDDEN,), max_iter=2, random_state=0).fit(
            table, table["x0"] - table["x1"]
        )
    export(model, table, name="wide", repository=folder)
    return folder


@pytest.fixture(scope="module", params=["uvicorn", "granian"])
def told(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    log = tmp_path_factory.mktemp("logs") / "log"
    settings = {"TANDEM_MAX_BODY_BYTES": str(100 * MIB), "TANDEM_TIMEOUT_S": "300"}
    with (
        tandem_serve(*SERVERS[request.param], "--models", str(repository), log=log, environment=settings) as server,
        httpx.Client(base_url=server.url, timeout=300, trust_env=False) as client,
    ):
        ask(client, stream(frame(10)))  # from here on all libraries are there
        body = stream(frame(ROWS))
        pids = tree(server.process.pid)
        before = sum(memory(pid, "VmRSS") for pid in pids)
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin to look for the peak anew
        waits: list[float] = []
        done = threading.Event()
        prober = threading.Thread(target=probe, args=(server.url, waits, done))
        prober.start()
        started = time.perf_counter()
        reply = ask(client, body)
        seconds = time.perf_counter() - started
        done.set()
        prober.join()
        peak = sum(memory(pid, "VmHWM") for pid in pids) - before
        yield Told(reply, len(body), peak, seconds, waits)


def frame(rows: int) -> pd.DataFrame:
    values = np.random.default_rng(rows).normal(size=(rows, COLUMNS)).astype("float32")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(COLUMNS)])


def stream(table: pd.DataFrame) -> bytes:
    content = io.BytesIO()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    with pa.ipc.new_stream(content, arrow.schema) as writer:
        writer.write_table(arrow)
    return content.getvalue()


def ask(client: httpx.Client, body: bytes) -> bytes:
    response = client.post("/models/wide/predict", content=body, headers={"content-type": STREAM})
    assert response.status_code == 200, response.text
    return response.content


def probe(url: str, waits: list[float], done: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client:
        while not done.wait(0.02):
            started = time.perf_counter()
            assert client.get("/health/live").status_code == 200
            waits.append(time.perf_counter() - started)


def tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc, which Linux has")
def test_memory_does_not_grow_with_what_the_model_computes_in_between(told: Told) -> None:
    # The body, once more while its parts are joined or the web server still has it; the rows as a matrix; and the
    # answer as an array and as bytes, in whole and in slices.
    table = told.body
    assert told.peak <= 2 * told.body + table + 3 * len(told.reply) + CONSTANT


def test_health_is_answered_meanwhile(told: Told) -> None:
    assert told.seconds > 0.5, "too short to tell"
    assert max(told.waits) < told.seconds / 2


def test_every_row_is_answered_by_its_own_answer(told: Told, repository: Path) -> None:
    estimator = joblib.load(repository / "wide" / "1" / "model.joblib")
    places = np.arange(0, ROWS, 9973)  # from every slice

    found = pa.ipc.open_stream(told.reply).read_all()["predict"].to_numpy()

    assert len(found) == ROWS
    np.testing.assert_allclose(found[places], estimator.predict(frame(ROWS).iloc[places]), rtol=1e-5, atol=1e-6)
