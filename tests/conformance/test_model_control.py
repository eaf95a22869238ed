"""Loading and unloading models in a service of two workers: one is asked, and both follow."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance import clients
from tests.conformance.servers import CLIENT, SERVERS, Running, eventually, tandem_serve
from tests.conformance.test_serving import POLL, ROW, asked_all_the_time, publish

UNLOADED: Final = "model 'line' is unloaded; it answers again once it is loaded"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for factor in (1, 2):
        publish(tmp_path / "models", factor)
    return tmp_path / "models"


@contextmanager
def two_workers(server: str, repository: Path, tmp_path: Path) -> Iterator[Running]:
    """Both have loaded both versions."""
    arguments = (*SERVERS[server], "--models", str(repository), "--workers", "2", "--model-control")
    with tandem_serve(*arguments, log=tmp_path / "log", environment=POLL) as service:
        told(service, "is live", 4)
        yield service


def told(service: Running, what: str, times: int) -> None:
    """Wait until the workers have said it so often, all together."""
    eventually(lambda: service.log.read_text().count(what) >= times, f"{times} times {what!r}")


def ask(service: Running, method: str, path: str, **content: Any) -> tuple[int, Any]:
    """On a connection of its own, so that either worker may answer."""
    reply = CLIENT.request(method, f"{service.url}{path}", timeout=60, **content)
    return reply.status_code, reply.json()


def predicted(service: Running) -> set[tuple[int, str | None]]:
    """What came back, asked often enough that both workers were."""
    replies = [ask(service, "POST", "/models/line/predict", json=ROW) for _ in range(30)]
    return {(status, reply.get("detail")) for status, reply in replies}


@pytest.mark.parametrize("server", SERVERS)
def test_what_one_worker_is_told_to_unload_and_load_both_do(server: str, repository: Path, tmp_path: Path) -> None:
    with two_workers(server, repository, tmp_path) as service:
        entry = {"name": "line", "state": "READY", "reason": ""}
        assert ask(service, "POST", "/v2/repository/index") == (
            200, [{**entry, "version": "1"}, {**entry, "version": "2"}]
        )  # fmt: skip

        unloaded = ask(service, "POST", "/v2/repository/models/line/unload", json={"parameters": {}})
        told(service, "is let go", 4)
        publish(repository, 3)

        assert unloaded == (200, {"name": "line", "unload": True})
        assert predicted(service) == {(404, UNLOADED)}
        entry = {"name": "line", "state": "UNAVAILABLE", "reason": "unloaded"}
        eventually(lambda: len(ask(service, "POST", "/v2/repository/index")[1]) == 3, "version 3 to be seen")
        assert ask(service, "POST", "/v2/repository/index")[1][0] == {**entry, "version": "1"}
        assert ask(service, "POST", "/v2/repository/index", json={"ready": True}) == (200, [])

        loaded = ask(service, "POST", "/v2/repository/models/line/load")
        told(service, "is live", 8)

        assert loaded == (200, {"name": "line", "load": True})
        assert predicted(service) == {(200, None)}


def test_a_model_serves_on_while_it_is_loaded_anew(repository: Path, tmp_path: Path) -> None:
    with (
        two_workers("uvicorn", repository, tmp_path) as service,
        asked_all_the_time(service.url) as seen,
    ):
        for _ in range(5):
            assert ask(service, "POST", "/v2/repository/models/line/load") == (200, {"name": "line", "load": True})

    assert set(seen) == {(200, 2)}


def test_a_model_that_cannot_be_loaded_says_why_and_the_old_one_serves_on(repository: Path, tmp_path: Path) -> None:
    with two_workers("uvicorn", repository, tmp_path) as service:
        model = repository / "line" / "2" / "model.joblib"
        model.write_bytes(model.read_bytes()[:-1])

        status, reply = ask(service, "POST", "/v2/repository/models/line/load")

        assert status == 503
        assert reply["error"].startswith("version 2 of model 'line' could not be loaded: ")
        assert "model.joblib" in reply["error"]
        assert predicted(service) == {(200, None)}


def test_a_worker_that_was_started_again_knows_what_is_unloaded(repository: Path, tmp_path: Path) -> None:
    with two_workers("gunicorn", repository, tmp_path) as service:
        ask(service, "POST", "/v2/repository/models/line/unload")
        told(service, "is let go", 4)
        before = workers(service)

        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(workers(service)) == 2 and before[0] not in workers(service), "another worker")
        eventually(lambda: ask(service, "GET", "/health/ready")[0] == 200, "a ready service")
        os.kill(before[1], signal.SIGKILL)
        eventually(lambda: len(workers(service)) == 2 and before[1] not in workers(service), "yet another worker")
        eventually(lambda: predicted(service) == {(404, UNLOADED)}, "both to be ready")


def workers(service: Running) -> list[int]:
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_orders_leave_nothing_behind(repository: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    arguments = (*SERVERS["gunicorn"], "--models", str(repository), "--workers", "2", "--model-control")

    with tandem_serve(*arguments, log=tmp_path / "log", environment={"TMPDIR": str(runtime)}) as service:
        ask(service, "POST", "/v2/repository/models/line/unload")
        during = [path.name for path in runtime.glob("tandem-orders-*/*")]

    assert during == ["orders.json"]
    assert list(runtime.glob("tandem-orders-*")) == []


@pytest.mark.parametrize("server", SERVERS)
def test_torchserves_management_calls_work_as_its_documentation_shows_them(
    server: str, repository: Path, tmp_path: Path
) -> None:
    with two_workers(server, repository, tmp_path) as service:
        assert ask(service, "POST", "/models?url=line.mar") == (
            409, {"code": 409, "type": "ConflictStatusException", "message": "model 'line' is loaded already"}
        )  # fmt: skip
        assert ask(service, "DELETE", "/models/line") == (200, {"status": 'Model "line" unregistered'})
        # Whichever worker is asked: it knows what the other one did.
        for _ in range(4):
            assert ask(service, "DELETE", "/models/line")[0] == 404
        assert ask(service, "POST", "/models?url=line.mar&initial_workers=1&synchronous=true") == (
            200, {"status": 'Model "line" Version: 2 registered'}
        )  # fmt: skip
        for _ in range(4):
            assert ask(service, "POST", "/models?url=line.mar")[0] == 409
        assert ask(service, "PUT", "/models/line?min_worker=3&synchronous=true")[0] == 200
        assert ask(service, "PUT", "/models/line/1.0/set-default") == (
            200, {"status": 'Default version successfully updated for model "line" to "1"'}
        )  # fmt: skip
        listed = {"name": "line", "labels": {"stable": 1}, "version": 1, "modelName": "line", "modelUrl": "line"}
        eventually(lambda: listed.items() <= ask(service, "GET", "/models")[1]["models"][0].items(), "the label")
        assert ask(service, "PUT", "/models/line/9.0/set-default")[1]["type"] == "ModelVersionNotFoundException"
        assert ask(service, "GET", "/ping") == (200, {"status": "Healthy"})


def test_sagemakers_multi_model_calls_load_and_unload(repository: Path, tmp_path: Path) -> None:
    model = {"model_name": "line", "url": "/opt/ml/models/line/model"}
    with two_workers("granian", repository, tmp_path) as service:
        assert ask(service, "POST", "/models", json=model)[0] == 409
        assert ask(service, "DELETE", "/models/line")[0] == 200
        assert ask(service, "DELETE", "/models/line")[0] == 404
        told(service, "is let go", 4)
        assert ask(service, "GET", "/models/line")[0] == 404
        assert ask(service, "POST", "/models", json=model)[0] == 200
        told(service, "is live", 8)
        status, described = ask(service, "GET", "/models/line")
        assert (status, described["modelName"], described["modelUrl"]) == (200, "line", "line")
        assert ask(service, "POST", "/models", json={**model, "model_name": "other"})[0] == 400
        assert ask(service, "POST", "/models", json={"model_name": "other", "url": "/other"})[0] == 404


@pytest.mark.parametrize("server", SERVERS)
def test_tritons_client_loads_and_unloads(server: str, repository: Path, tmp_path: Path) -> None:
    clients.environment("triton")
    arguments = (*SERVERS[server], "--models", str(repository), "--model-control")
    with tandem_serve(*arguments, log=tmp_path / "log") as service:
        found = clients.ask("triton", "triton_repository.py", f"127.0.0.1:{service.port}", questions="line")

    ready = [{"name": "line", "version": version, "state": "READY", "reason": ""} for version in "12"]
    assert found == {
        "index": ready,
        "unloaded": [{**entry, "state": "UNAVAILABLE", "reason": "unloaded"} for entry in ready],
        "ready when unloaded": False,
        "with a configuration": "[400] parameter 'config' is not supported: models are loaded as they lie on disk",
        "unknown": "[404] there is no such model; GET /models lists the models",
        "loaded": ready,
        "ready when loaded": True,
    }
