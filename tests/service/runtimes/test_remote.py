"""Both sides in one process: the other side's threads are real, its engine does what the test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.core.artefact_errors import EstimatorUnusable, GoldenDisagrees
from service.core.contracts import Engine
from service.core.errors import CannotAnswer, ModelFailed, RowsRefused
from service.core.table import Frame, Matrix, Table, Values
from service.device.engines import Engines
from service.device.guard import Watch
from service.device.host import serve
from service.runtimes.breaker import Breaker
from service.runtimes.device_errors import DeviceUnavailable
from service.runtimes.remote import DeviceClient, RemoteEngine
from service.scheduling.workers import Workers
from tests.faults.cases import fault

_PATIENCE_S = 30.0


class Doubling:
    is_reentrant = True

    def __init__(self, instead: Callable[[Table], None]) -> None:
        self._instead = instead

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        self._instead(rows)
        values = rows.values if isinstance(rows, Matrix) else rows.columns["a"]
        return dict.fromkeys(outputs, values * 2)


class Host:
    """The other side. `instead` is what its engines do first; `opened` are the specs that were opened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self.opened: list[dict[str, Any]] = []
        self.instead: Callable[[Table], None] = lambda rows: None
        workers = Workers(4)
        workers.start()
        self.engines = Engines(self._open, workers, Watch(60), Watch(60), lambda error: None)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            serve(self.listener, self.engines)

    def _open(self, spec: dict[str, Any]) -> Engine:
        self.opened.append(spec)
        if "unusable" in spec:
            raise EstimatorUnusable(spec["unusable"])
        if "broken" in spec:
            raise OSError(spec["broken"])
        return Doubling(lambda rows: self.instead(rows))


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("h"))
    yield host
    host.listener.close()


@pytest.fixture
def client(host: Host) -> Iterator[DeviceClient]:
    client = DeviceClient(host.path)
    yield client
    client.close()


@pytest.fixture
def engine(client: DeviceClient) -> RemoteEngine:
    engine = RemoteEngine(client, {"model": "iris"})
    engine.open()
    return engine


def _ones(n: int) -> Matrix:
    return Matrix(np.ones((n, 3)))


@pytest.mark.parametrize("n", [0, 1, 1000, 10_000, 800_000], ids="{} rows".format)
def test_answers_come_back(engine: RemoteEngine, n: int) -> None:
    rows = Matrix(np.arange(3.0 * n).reshape(n, 3))

    answers = engine.run(rows, ["predict", "transform"])

    assert list(answers) == ["predict", "transform"]
    assert np.array_equal(answers["predict"], rows.values * 2)  # type: ignore[arg-type]
    assert np.array_equal(answers["transform"], rows.values * 2)  # type: ignore[arg-type]


@fault("G07", sent="many threads over one connection to the device", expected="each its own answer")
def test_many_threads_get_their_own_answers(engine: RemoteEngine) -> None:
    def ask(value: int) -> bool:
        n = 1 + (value % 7) * 3000  # inline, and in blocks
        got = engine.run(Matrix(np.full((n, 2), float(value))), ["predict"])["predict"]
        return isinstance(got, np.ndarray) and got.shape == (n, 2) and bool((got == 2 * value).all())

    with ThreadPoolExecutor(16) as threads:
        right = list(threads.map(ask, range(300)))

    assert all(right)


def test_calls_do_not_wait_for_each_other(host: Host, engine: RemoteEngine) -> None:
    gate = threading.Event()
    host.instead = lambda rows: gate.wait(_PATIENCE_S) and None if rows.n_rows == 1 else None
    other = RemoteEngine(engine._client, {"model": "other"})
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(engine.run, _ones(1), ["predict"])

        other.open()
        quick = other.run(_ones(2), ["predict"])

        assert len(quick["predict"]) == 2  # type: ignore[arg-type]
        assert not slow.done()
        gate.set()
        slow.result(_PATIENCE_S)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        pytest.param(RowsRefused(), RowsRefused, id="refused"),
        pytest.param(ZeroDivisionError("secret"), ModelFailed, id="a bug"),
        pytest.param(SystemExit(3), ModelFailed, id="an exit"),
        pytest.param(CannotAnswer("too close", np.array([True])), CannotAnswer, id="too close"),
        pytest.param(MemoryError(), DeviceUnavailable, id="out of memory"),
    ],
)
def test_what_the_engine_raises_is_raised_here(
    host: Host, engine: RemoteEngine, raised: BaseException, expected: type[Exception]
) -> None:
    def instead(rows: Table) -> None:
        raise raised

    host.instead = instead

    with pytest.raises(expected):
        engine.run(_ones(1), ["predict"])


def test_rows_that_cannot_travel_are_for_another_engine(engine: RemoteEngine) -> None:
    rows = Frame({"a": np.array([object(), object()])})

    with pytest.raises(CannotAnswer) as caught:
        engine.run(rows, ["predict"])

    assert caught.value.rows.tolist() == [True, True]
    assert engine.is_available


def test_engine_that_cannot_be_opened_says_why(client: DeviceClient) -> None:
    engine = RemoteEngine(client, {"unusable": "it is a frog"})

    with pytest.raises(EstimatorUnusable, match="it is a frog"):
        engine.open()

    assert not engine.is_available


def test_opener_that_fails_is_told_with_its_words(client: DeviceClient) -> None:
    with pytest.raises(Exception, match="the engine cannot be opened: OSError: no such file"):
        RemoteEngine(client, {"broken": "no such file"}).open()


def test_engine_whose_golden_rows_disagree_is_not_used_and_not_kept(host: Host, client: DeviceClient) -> None:
    def check(engine: Engine) -> None:
        engine.run(_ones(1), ["predict"])
        raise GoldenDisagrees("other answers")

    engine = RemoteEngine(client, {"model": "iris"}, check)

    with pytest.raises(GoldenDisagrees):
        engine.open()

    with pytest.raises(DeviceUnavailable):
        engine.run(_ones(1), ["predict"])
    assert not engine.is_available


def test_check_can_be_given_when_it_is_open(engine: RemoteEngine) -> None:
    def check(engine: Engine) -> None:
        raise GoldenDisagrees("other answers")

    engine.check_with(check)

    with pytest.raises(GoldenDisagrees):
        engine.open()


@fault(
    "B15",
    sent="an answer that comes after its question was given up",
    expected="thrown away; the next question gets its own",
)
def test_answer_that_does_not_come_in_time_is_not_waited_for(host: Host, client: DeviceClient) -> None:
    gate = threading.Event()
    engine = RemoteEngine(client, {"model": "iris"}, answer_timeout_s=0.05)
    engine.open()
    host.instead = lambda rows: gate.wait(_PATIENCE_S) and None

    with pytest.raises(DeviceUnavailable, match=r"within 0\.05 s"):
        engine.run(_ones(20_000), ["predict"])

    # The other side may still read the block of the question that was given up, or write its answer there.
    other = client.connection()._channel.pool.take(20_000 * 3 * 8)
    assert other is not None and other.number == 1
    gate.set()


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    engine = RemoteEngine(DeviceClient(tmp_path / "nobody"), {})

    with pytest.raises(DeviceUnavailable):
        engine.open()
    with pytest.raises(DeviceUnavailable):
        engine.run(_ones(1), ["predict"])


@fault(
    "G03",
    sent="the device's process gone with a request under way",
    expected="told at once; back after its golden rows agree",
)
def test_end_of_the_other_side_fails_what_is_in_flight_and_a_probe_brings_it_back(
    host: Host, client: DeviceClient
) -> None:
    arrived, gate, checked = threading.Event(), threading.Event(), threading.Semaphore(0)

    def instead(rows: Table) -> None:
        arrived.set()
        gate.wait(_PATIENCE_S)

    engine = RemoteEngine(
        client, {"model": "iris"}, lambda engine: checked.release(), breaker=Breaker(first_pause_s=0.0)
    )
    engine.open()
    checked.acquire(timeout=_PATIENCE_S)
    host.instead = instead
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(engine.run, _ones(1), ["predict"])
        arrived.wait(_PATIENCE_S)

        client.connection().hang_up()

        with pytest.raises(DeviceUnavailable, match="ended before it answered"):
            asked.result(_PATIENCE_S)
    gate.set()
    host.instead = lambda rows: None
    with pytest.raises(DeviceUnavailable):
        engine.run(_ones(1), ["predict"])  # and this starts the probe
    assert checked.acquire(timeout=_PATIENCE_S)


def test_probe_that_fails_keeps_requests_away(host: Host, client: DeviceClient) -> None:
    refusals = threading.Semaphore(0)
    is_bad = threading.Event()

    def check(engine: Engine) -> None:
        if is_bad.is_set():
            refusals.release()
            raise GoldenDisagrees("other answers")

    engine = RemoteEngine(client, {"model": "iris"}, check, breaker=Breaker(first_pause_s=0.0, longest_pause_s=0.0))
    engine.open()
    is_bad.set()
    client.connection().hang_up()
    asked = []

    def ask() -> None:
        try:
            engine.run(_ones(1), ["predict"])
            asked.append("answered")
        except DeviceUnavailable:
            asked.append("unavailable")

    for _ in range(3):
        while not refusals.acquire(timeout=0.01):
            ask()

    assert set(asked) == {"unavailable"}


def test_engine_that_was_opened_twice_is_held_once(host: Host, engine: RemoteEngine) -> None:
    engine.open()

    engine.close()

    with pytest.raises(DeviceUnavailable, match="not open"):
        engine.run(_ones(1), ["predict"])


def test_closed_client_connects_no_more(client: DeviceClient, engine: RemoteEngine) -> None:
    client.close()

    with pytest.raises(DeviceUnavailable):
        engine.open()


def test_engine_is_loaded_once_for_all_and_unloaded_after_the_last(host: Host, client: DeviceClient) -> None:
    others = DeviceClient(host.path)
    first, second = RemoteEngine(client, {"model": "iris"}), RemoteEngine(others, {"model": "iris"})
    first.open()
    second.open()
    first.close()
    with pytest.raises(EstimatorUnusable):
        RemoteEngine(client, {"unusable": "so that an answer says the close before it was read"}).open()

    second.run(_ones(1), ["predict"])
    second.close()
    with pytest.raises(DeviceUnavailable, match="not open"):
        second.run(_ones(1), ["predict"])

    assert host.opened.count({"model": "iris"}) == 1
    others.close()
