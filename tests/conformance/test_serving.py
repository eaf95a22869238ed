from __future__ import annotations

import shutil
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.conformance.gate import Gate, waiting
from tests.conformance.mixed import Mirror
from tests.conformance.servers import (
    CLIENT,
    SERVERS,
    UNTRIED,
    Running,
    eventually,
    free_port,
    running,
    tandem,
    tandem_serve,
)
from tests.faults.cases import fault
from training.export import export

POLL: Final = {"TANDEM_POLL_S": "0.1"}
ROW: Final = {"x0": 1.0, "x1": 1.0}
X: Final = np.random.RandomState(0).normal(size=(20, 2))


def publish(repository: Path, factor: int, name: str = "line") -> Path:
    """A version whose answer to ROW is about `factor`."""
    estimator = LinearRegression().fit(X, X[:, 0] * factor)
    return export(estimator, X, name=name, repository=repository).path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path / "models", 1)
    return tmp_path / "models"


def ask(url: str, path: str = "/models/line/predict") -> httpx.Response:
    return CLIENT.post(f"{url}{path}", json=ROW)


def model(url: str, name: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = CLIENT.get(f"{url}/models").json()["models"]
    return next((one for one in listed if one["name"] == name), {})


@contextmanager
def asked_all_the_time(url: str, callers: int = 2) -> Iterator[list[Any]]:
    """Requests one after another from a few threads; what came back, in a list that grows."""
    seen: list[Any] = []
    stop = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                try:
                    response = client.post("/models/line/predict", json=ROW)
                except httpx.TransportError as error:
                    seen.append(error)
                    return
                seen.append((response.status_code, response.json().get("version")))

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(seen) >= callers, "first replies")
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# -- a running service follows its folder --------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_new_version_is_served_without_one_failed_request(server: str, repository: Path, tmp_path: Path) -> None:
    with (
        tandem_serve(*SERVERS[server], "--models", str(repository), log=tmp_path / "log", environment=POLL) as service,
        asked_all_the_time(service.url) as seen,
    ):
        publish(repository, 2)

        eventually(lambda: (200, 2) in seen, "a reply of version 2")

    assert list(dict.fromkeys(seen)) == [(200, 1), (200, 2)]


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A service, by its URL, and the folder that it follows: each test has a model of its own in it."""
    folder = tmp_path_factory.mktemp("following")
    (folder / "models").mkdir()
    with tandem_serve("--models", str(folder / "models"), log=folder / "log", environment=POLL) as service:
        yield service.url, folder / "models"


def published(url: str, folder: Path, name: str, versions: int) -> None:
    """So many versions of the model, and the service has seen them."""
    for factor in range(1, versions + 1):
        publish(folder, factor, name)
    eventually(lambda: len(model(url, name).get("versions", [])) == versions, "the versions to be there")


def test_a_corrupt_version_is_reported_and_the_old_one_serves_on(following: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = following
    published(url, folder, "torn", 1)
    draft = tmp_path / "draft"
    shutil.copytree(publish(tmp_path / "elsewhere", 9, "torn"), draft)
    manifest, estimator = draft / "manifest.json", draft / "model.joblib"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 2'))
    content = bytearray(estimator.read_bytes())
    content[len(content) // 2] ^= 1
    estimator.write_bytes(content)
    draft.rename(folder / "torn" / "2")

    told = eventually(lambda: model(url, "torn").get("reasons"), "a reason")

    assert list(told) == ["2"] and "model.joblib" in told["2"]
    assert ask(url, "/models/torn/predict").json()["version"] == 1
    assert ask(url, "/models/torn/versions/2/predict").status_code == 404


def test_promote_moves_the_label_and_rolls_it_back(following: tuple[str, Path]) -> None:
    url, folder = following
    published(url, folder, "moved", 2)
    for version in (1, 2, 1):
        told = tandem("promote", "moved", str(version), "--models", str(folder))

        assert told.returncode == 0 and f"moved: stable is version {version}" in told.stdout
        eventually(lambda v=version: model(url, "moved")["labels"] == {"stable": v}, "the label")  # type: ignore[misc]
        assert ask(url, "/models/moved/predict").json()["version"] == version
        assert ask(url, "/models/moved/labels/stable/predict").json()["version"] == version
        assert ask(url, "/models/moved/versions/2/predict").json()["version"] == 2


def test_promote_to_a_version_that_is_not_there_says_which_are(repository: Path) -> None:
    told = tandem("promote", "line", "7", "--models", str(repository))

    assert told.returncode == 1
    assert told.stderr == "Error: model 'line' has no version 7; it has 1\n"


def test_a_deleted_version_is_let_go(following: tuple[str, Path]) -> None:
    url, folder = following
    published(url, folder, "gone", 2)
    assert ask(url, "/models/gone/predict").json()["version"] == 2

    shutil.rmtree(folder / "gone" / "2")

    eventually(lambda: model(url, "gone")["versions"] == [1], "version 2 to go")
    assert ask(url, "/models/gone/predict").json()["version"] == 1
    assert ask(url, "/models/gone/versions/2/predict").status_code == 404


# -- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_what_is_being_computed_at_sigterm_is_answered(server: str, tmp_path: Path) -> None:
    # A model computes one request at a time, so there are several, and a thread for each.
    names = [f"gate-{number}" for number in range(4)]
    for name in names:
        export(Gate(str(tmp_path)).fit(X), X, name=name, repository=tmp_path / "models")
    arguments = ("--models", str(tmp_path / "models"), "--trust", "tests.conformance.gate.Gate", "--threads", "4")
    with (
        tandem_serve(*SERVERS[server], *arguments, log=tmp_path / "log", environment=UNTRIED) as service,
        ThreadPoolExecutor(len(names)) as callers,
    ):
        (tmp_path / "closed").touch()
        try:
            asked = [callers.submit(ask, service.url, f"/models/{name}/predict") for name in names]
            eventually(lambda: waiting(tmp_path) == len(names), "all requests to be under way")
            service.terminate()
            eventually(lambda: not accepts(service.port), "callers to be refused")
        finally:
            (tmp_path / "closed").unlink()
        replies = [future.result() for future in asked]
        exit_code = service.exit_code()

    assert [(reply.status_code, reply.json()["prediction"]) for reply in replies] == [(200, 2.0)] * len(names)
    assert exit_code == 0


def accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_under_load_cuts_no_reply(server: str, repository: Path, tmp_path: Path) -> None:
    with (
        tandem_serve(*SERVERS[server], "--models", str(repository), log=tmp_path / "log") as service,
        asked_all_the_time(service.url, callers=4) as seen,
    ):
        eventually(lambda: len(seen) > 40, "some load")
        service.terminate()
        exit_code = service.exit_code()

    assert exit_code == 0, service.told()
    # A connection may be refused, or closed between two requests just as the next one is sent.
    kinds = Counter(one if isinstance(one, tuple) else type(one) for one in seen)
    closed = {httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError}
    assert set(kinds) - closed == {(200, 1)}
    assert not any("peer closed connection without sending complete" in str(one) for one in seen)


def answered(service: Running) -> int | None:
    """A worker that just started may still be loading: 503, and trying again helps."""
    status = ask(service.url).status_code
    return None if status == 503 else status


@pytest.mark.parametrize("worker_class", ["sync", "gevent"])
def test_gunicorn_answers_with_its_other_workers(worker_class: str, repository: Path, tmp_path: Path) -> None:
    with tandem_serve(
        *SERVERS["gunicorn"], "--worker-class", worker_class, "--models", str(repository), log=tmp_path / "log"
    ) as service:
        response = ask(service.url)

    assert (response.status_code, response.json()["version"]) == (200, 1)


@pytest.mark.parametrize(
    ("command", "ends_with"),
    [
        pytest.param(
            lambda port: ("uvicorn", "service.entrypoints.fastapi_app:app", "--port", str(port)),
            # uvicorn's own command line drains, and then dies of the signal that it was sent.
            -signal.SIGTERM,
            id="uvicorn",
        ),
        pytest.param(
            lambda port: ("gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "service.entrypoints.flask_app:app"),
            0,
            id="gunicorn",
        ),
    ],
)
def test_a_plain_web_server_reads_settings_from_the_environment(
    command: Callable[[int], tuple[str, ...]], ends_with: int, repository: Path, tmp_path: Path
) -> None:
    def start(port: int) -> tuple[str, ...]:
        return (sys.executable, "-m", *command(port))

    environment = {"TANDEM_MODELS": str(repository)}
    with running(start, log=tmp_path / "log", environment=environment, ends_with=ends_with) as service:
        status = eventually(lambda: answered(service), "an answer")

    assert status == 200


# -- one file, and what cannot be served ---------------------------------------------------------


def test_a_joblib_file_is_served_with_one_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    joblib.dump(LinearRegression().fit(X, X[:, 0]), tmp_path / "line.joblib")
    with tandem_serve(str(tmp_path / "line.joblib"), log=tmp_path / "log") as service:
        response = ask(service.url)

    assert (response.status_code, response.json()["model"]) == (200, "line")
    assert service.told().lower().count("warning") == 1


def test_a_joblib_file_of_unknown_code_is_refused_naming_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    joblib.dump(Mirror(), tmp_path / "mirror.joblib")

    told = tandem("serve", str(tmp_path / "mirror.joblib"), "--port", str(free_port()))

    assert told.returncode == 1
    assert "tests.conformance.mixed.Mirror" in told.stderr and "--trust" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "what"),
    [
        pytest.param(("--models", "no/such/folder"), {}, "no/such/folder", id="no folder"),
        pytest.param(("no-such-file.joblib",), {}, "no-such-file.joblib", id="no file"),
        pytest.param((), {"TANDEM_POLL_S": "soon"}, "poll_s", id="a bad setting"),
        pytest.param((), {"TANDEM_THREADS": "0"}, "threads", id="a setting too small"),
        pytest.param(("--device", "gpu"), {}, "no GPU to compute on", id="no GPU"),
        pytest.param(("--port", "0"), {}, "--port", id="no port"),
        pytest.param(("--host", "192.0.2.1"), {}, "192.0.2.1", id="not our address"),
    ],
)
@pytest.mark.parametrize("framework", ["fastapi", "flask"])
@fault("W09", sent="a bad setting, no models, no such address", expected="exit code 1 or 2, one clear line")
def test_what_cannot_be_served_is_said_in_one_line(
    arguments: tuple[str, ...], environment: dict[str, str], what: str, framework: str, repository: Path
) -> None:
    given = ("--models", str(repository), "--port", str(free_port()), "--framework", framework, *arguments)

    told = tandem("serve", *given, environment=environment)

    assert told.returncode in (1, 2)
    last = told.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and what in last
    assert "Traceback" not in told.stderr


@fault("W09", sent="a port that is taken", expected="exit code 1, one clear line")
def test_a_port_that_is_taken_is_said_in_one_line(repository: Path, tmp_path: Path) -> None:
    with tandem_serve("--models", str(repository), log=tmp_path / "log") as service:
        told = tandem("serve", "--models", str(repository), "--port", str(service.port))

    assert told.returncode == 1
    assert told.stderr.strip().splitlines()[-1].startswith(f"Error: cannot listen on 127.0.0.1 port {service.port}: ")
