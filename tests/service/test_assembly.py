from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pytest
from sklearn.linear_model import LinearRegression

from service import figures
from service.assembly import Tandem, Workers, source_of
from service.core.errors import ModelFailed, Unavailable
from service.core.messages import InferReply, Target
from service.core.table import Values
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.native import Exchange
from service.protocols.routes import by_path
from service.repository.sources import BareFile, Folder
from service.scheduling.lane import TURNS
from service.settings import Settings
from tests.conformance.servers import eventually
from tests.faults.cases import fault
from training.export import export

_X = np.arange(12.0).reshape(6, 2)
_ROW = b'{"instances": [[1.0, 2.0]]}'
_PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    export(LinearRegression().fit(_X, _X[:, 0]), _X, name="first", repository=root)
    return root


@contextmanager
def _loaded(settings: Settings) -> Iterator[Tandem]:
    """A service after its first round."""
    tandem = Tandem(settings)
    done = threading.Event()
    poll = tandem._catalog.poll

    def watched() -> None:
        poll()
        done.set()

    tandem._watcher._poll = watched
    tandem.start()
    try:
        assert done.wait(_PATIENCE_S)
        yield tandem
    finally:
        tandem.stop()


_others: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _before() -> None:
    """Services of other tests may still be running in this process: Flask has no event for its end."""
    _others.clear()
    _others.update(threading.enumerate())


def _threads() -> list[str]:
    return sorted(thread.name for thread in set(threading.enumerate()) - _others if thread.name.startswith("tandem-"))


def _ask(tandem: Tandem) -> Future[InferReply]:
    return tandem.server.infer(Target("first"), Exchange(_ROW).read)


def _router(tandem: Tandem) -> Any:
    return tandem._catalog.lease(Target("first")).loaded.submit.__self__._engine  # type: ignore[attr-defined]


def _value(future: Future[InferReply]) -> float:
    values = future.result(_PATIENCE_S).outputs["predict"]
    assert isinstance(values, np.ndarray)
    return float(values[0])


def test_started_service_answers(models: Path) -> None:
    with _loaded(Settings(models=models)) as tandem:
        assert tandem.server.is_ready()
        assert _value(_ask(tandem)) == pytest.approx(1.0)


def test_building_starts_no_thread(models: Path) -> None:
    tandem = Tandem(Settings(models=models))

    assert _threads() == []
    assert not tandem.server.is_ready()


def test_second_start_does_nothing(models: Path) -> None:
    with _loaded(Settings(models=models)) as tandem:
        tandem.start()

        assert _threads().count("tandem-watcher") == 1


def test_service_that_was_stopped_can_be_started_again(models: Path) -> None:
    with _loaded(Settings(models=models)) as tandem:
        tandem.stop()

        tandem.start()

        assert tandem.server.is_ready()
        assert _value(_ask(tandem)) == pytest.approx(1.0)


def test_stop_ends_every_thread_and_makes_the_service_unready(models: Path) -> None:
    with _loaded(Settings(models=models, threads=2)) as tandem:
        _ask(tandem).result(_PATIENCE_S)
        assert _threads()

        tandem.stop()

        assert _threads() == []
        assert not tandem.server.is_ready()


def test_stop_can_be_called_twice_and_before_start(models: Path) -> None:
    tandem = Tandem(Settings(models=models))

    tandem.stop()
    tandem.start()
    tandem.stop()
    tandem.stop()

    assert _threads() == []


def test_stop_finishes_what_was_accepted(models: Path) -> None:
    with _loaded(Settings(models=models, threads=1, engine="estimator")) as tandem:
        begun, go_on = threading.Event(), threading.Event()
        engine = _router(tandem)
        run: Callable[..., dict[str, Values]] = engine.run

        def wait_and_run(*arguments: Any) -> dict[str, Values]:
            begun.set()
            assert go_on.wait(_PATIENCE_S)
            return run(*arguments)

        engine.run = wait_and_run
        answers = [_ask(tandem) for _ in range(3 * TURNS)]
        assert begun.wait(_PATIENCE_S)
        stopper = threading.Thread(target=tandem.stop)
        stopper.start()
        go_on.set()
        stopper.join(_PATIENCE_S)

    assert [_value(answer) for answer in answers] == pytest.approx([1.0] * 3 * TURNS)


def test_request_after_stop_is_told_that_the_service_stops(models: Path) -> None:
    with _loaded(Settings(models=models)) as tandem:
        tandem.stop()

        assert isinstance(_ask(tandem).exception(_PATIENCE_S), Unavailable)


def test_workers_that_were_not_started_say_so() -> None:
    with pytest.raises(RuntimeError, match="call start"):
        Workers(1).submit(print)


def test_parts_start_after_the_service_and_stop_before_it(models: Path) -> None:
    class Part:
        """What of the service is there when it starts and stops."""

        def start(self) -> None:
            self.at_start = _threads()

        def stop(self) -> None:
            self.at_stop = _threads()
            self.is_ready = tandem.server.is_ready()
            self.answer = _value(_ask(tandem))

    part, tandem = Part(), Tandem(Settings(models=models))
    tandem.attach(part)
    tandem.start()

    while not tandem.server.is_ready():
        threading.Event().wait(0.01)
    tandem.stop()

    assert "tandem-watcher" in part.at_start
    assert "tandem-watcher" in part.at_stop
    assert (part.is_ready, round(part.answer, 6)) == (False, 1.0)


def test_service_that_nobody_holds_leaves_the_memory(models: Path) -> None:
    tandem = Tandem(Settings(models=models))
    memory = weakref.ref(tandem)

    del tandem
    gc.collect()

    assert memory() is None


def test_the_collector_of_garbage_passes_by_what_is_loaded_until_it_is_let_go(tmp_path: Path) -> None:
    for name in ("first", "second"):
        export(LinearRegression().fit(_X, _X[:, 0]), _X, name=name, repository=tmp_path)
    tandem = Tandem(Settings(models=tmp_path, poll_s=0.05))
    catalog = tandem._catalog
    tandem.start()
    try:
        eventually(lambda: catalog.is_loaded and tandem._settled_after == catalog.changes, "the models")
        frozen = gc.get_freeze_count()
        lease = catalog.lease(Target("second"))
        memory = weakref.ref(lease.loaded.submit.__self__)  # type: ignore[attr-defined]
        lease.release()
        del lease
        shutil.rmtree(tmp_path / "second")
        eventually(lambda: memory() is None, "the memory of what was let go")
    finally:
        tandem.stop()
        gc.unfreeze()

    assert frozen > 10_000


def test_settings_say_whether_a_folder_or_a_file_is_served(tmp_path: Path) -> None:
    assert isinstance(source_of(Settings(models=tmp_path)), Folder)
    assert isinstance(source_of(Settings(models=tmp_path, model_file=tmp_path / "churn.joblib")), BareFile)


def test_the_paths_that_vertex_chose_are_routes(tmp_path: Path) -> None:
    chosen = Settings(models=tmp_path, vertex_health_route="/healthy", vertex_predict_route="/v1/models/a:predict")

    assert {"/healthy", "/v1/models/a:predict"} <= Tandem(chosen).paths.keys()
    assert "/healthy" not in Tandem(chosen.model_copy(update={"dialects": ("v2",)})).paths


def test_bare_file_is_served_like_a_model(tmp_path: Path) -> None:
    joblib.dump(LinearRegression().fit(_X, _X[:, 0]), tmp_path / "first.joblib")

    with _loaded(Settings(model_file=tmp_path / "first.joblib")) as tandem:
        assert _value(_ask(tandem)) == pytest.approx(1.0)


def test_request_leaves_its_line_in_the_access_log(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(figures, "log_access", lambda **fields: lines.append(fields))
    http = HttpRequest("POST", "/models/first/predict", {"name": "first"}, {}, {"content-type": "application/json"},
                       _ROW, "abc")  # fmt: skip

    with _loaded(Settings(models=models)) as tandem:
        reply = tandem.api.answer(by_path()["/models/{name}/predict"], http)
        answered: HttpReply = reply.result(_PATIENCE_S) if isinstance(reply, Future) else reply

    assert orjson.loads(answered.body)["predictions"] == pytest.approx([1.0])
    (line,) = lines
    assert line.pop("ms") >= 0
    assert line == {
        "method": "POST", "path": "/models/first/predict", "status": 200, "request_id": "abc", "error": None,
        "caller": None, "trace_id": None,
    }  # fmt: skip


_FORK = """
import math, os, signal, sys, threading
from service.assembly import Tandem
from service.core.messages import Target
from service.protocols.native import Exchange
from service.settings import Settings

def wait_until_ready(tandem):
    while not tandem.server.is_ready():
        threading.Event().wait(0.01)

def ask(tandem):
    answer = tandem.server.infer(Target("first"), Exchange(b'{"instances": [[1.0, 2.0]]}').read)
    return float(answer.result(30).outputs["predict"][0])

tandem = Tandem(Settings(models=sys.argv[1], threads=1))
tandem.start()
wait_until_ready(tandem)
assert abs(ask(tandem) - 1) < 1e-9

# As bad as it gets: locks held and a call under way, by threads that the child will not have.
lane = tandem._catalog.lease(Target("first")).loaded.submit.__self__
lane._seconds = lambda *_: math.inf  # long enough for a thread of its own
engine = lane._engine
run, begun, go_on = engine.run, threading.Event(), threading.Event()
def wait_and_run(*arguments):
    begun.set()
    go_on.wait(30)
    return run(*arguments)
engine.run = wait_and_run
under_way = tandem.server.infer(Target("first"), Exchange(b'{"instances": [[1.0, 2.0]]}').read)
assert begun.wait(30)
tandem._catalog._lock.acquire()
tandem._lock.acquire()

child = os.fork()
if child == 0:
    signal.alarm(30)
    wait_until_ready(tandem)
    watchers = [thread.name for thread in threading.enumerate()].count("tandem-watcher")
    right = abs(ask(tandem) - 1) < 1e-9 and watchers == 1
    tandem.stop()
    os._exit(0 if right else 3)

_, status = os.waitpid(child, 0)
tandem._lock.release()
tandem._catalog._lock.release()
go_on.set()
assert abs(float(under_way.result(30).outputs["predict"][0]) - 1) < 1e-9
tandem.stop()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@fault("B18", sent="a service forked after it was loaded", expected="no deadlock, the child answers")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_answers_with_threads_of_its_own(models: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORK, str(models)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_a_process_that_forks_those_that_answer_loads_nothing(models: Path) -> None:
    arbiter = {"__name__": "gunicorn.arbiter"}
    exec("def setup(start): start()\ndef spawn_worker(start): start()", arbiter)
    tandem = Tandem(Settings(models=models))
    arbiter["setup"](tandem.start)
    before = _threads()
    tandem.stop()

    arbiter["spawn_worker"](tandem.start)
    try:
        until = time.monotonic() + _PATIENCE_S
        while not tandem.server.is_ready() and time.monotonic() < until:
            threading.Event().wait(0.01)
        value = _value(_ask(tandem))
    finally:
        tandem.stop()

    assert (before, round(value, 6)) == ([], 1.0)


def test_what_stands_beside_starts_when_models_are_loaded_if_that_comes_first(models: Path) -> None:
    class Beside:
        was_ready = False

        def start(self) -> None:
            self.was_ready = tandem.server.is_ready()

        def stop(self) -> None:
            pass

    tandem, beside = Tandem(Settings(models=models, load_first=True)), Beside()
    tandem.attach(beside)
    tandem.start()
    tandem.stop()

    assert beside.was_ready


def test_model_that_fails_is_an_error_of_that_request_only(models: Path) -> None:
    with _loaded(Settings(models=models, engine="estimator")) as tandem:
        engine = _router(tandem)._options[-1].engine
        estimator, engine._estimator = engine._estimator, None

        failed = _ask(tandem).exception(_PATIENCE_S)
        engine._estimator = estimator

        assert isinstance(failed, ModelFailed)
        assert _value(_ask(tandem)) == pytest.approx(1.0)
