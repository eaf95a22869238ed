"""Section W: what a service refuses to start with, and what it says before it can answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final, get_args

import httpx
import pytest
from click.testing import CliRunner
from flask import Flask

from benchmarks.restarts import export_model
from service.assembly import Tandem
from service.cli import read_settings, tandem
from service.entrypoints.fastapi_app import create_app
from service.entrypoints.flask_app import create_blueprint
from service.settings import Settings
from tests.conformance.servers import free_port
from tests.faults.cases import Came, fault


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("TANDEM_", "FLASK_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    export_model(tmp_path / "models")
    return tmp_path / "models"


def types_of(annotation: Any) -> set[Any]:
    return {annotation} | {part for argument in get_args(annotation) for part in types_of(argument)}


NUMBERS: Final = sorted(
    name for name, field in Settings.model_fields.items() if {int, float} & types_of(field.annotation)
)
PORTS: Final = sorted(name for name in NUMBERS if name.endswith("port"))


@pytest.mark.parametrize("name", NUMBERS)
@fault("W25", sent="-1, NaN, inf and 1e400 for every setting that is a number", expected="refused, naming it")
def test_a_number_that_cannot_be_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    for value in ("-1", "NaN", "inf", "1e400", "many"):
        monkeypatch.setenv(f"TANDEM_{name.upper()}", value)

        with pytest.raises(Exception, match=name) as refused:
            read_settings()

        came(refused.value)


@pytest.mark.parametrize("name", PORTS)
@pytest.mark.parametrize("value", ["0", "65536", "70000"])
@fault("W25", sent="0, 65536 and 70000 for a port", expected="refused, naming it")
def test_a_port_is_one_that_exists(name: str, value: str, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    monkeypatch.setenv(f"TANDEM_{name.upper()}", value)

    with pytest.raises(Exception, match=name) as refused:
        read_settings()

    came(refused.value)


def refusal(models: Path, *arguments: str) -> str:
    result = CliRunner().invoke(tandem, ["serve", "--models", str(models), "--port", str(free_port()), *arguments])
    assert result.exit_code in (1, 2), result.output
    return result.stderr.strip().splitlines()[-1]


@fault("W25", sent="a variable that is no setting", expected="refused, naming it and the one that was meant")
def test_an_unknown_setting_is_refused_by_name(models: Path, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    monkeypatch.setenv("TANDEM_TIMEOUT", "3")

    said = refusal(models)

    came(said)
    assert said == "Error: there is no setting TANDEM_TIMEOUT; is it TANDEM_TIMEOUT_S?"


def test_what_kubernetes_tells_of_a_service_called_tandem_is_no_setting(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "TANDEM_SERVICE_HOST", "TANDEM_SERVICE_PORT", "TANDEM_SERVICE_PORT_HTTP", "TANDEM_PORT", "TANDEM_PORT_8000_TCP",
        "TANDEM_PORT_8000_TCP_PROTO", "TANDEM_CANARY_SERVICE_HOST", "TANDEM_CANARY_PORT_8000_TCP_ADDR",
    ):  # fmt: skip
        monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    monkeypatch.setenv("TANDEM_ZZZ", "")  # which is said, and none of these

    assert "TANDEM_ZZZ" in refusal(models)


@fault("W26", sent="FLASK_DEBUG=1, on all addresses", expected="refuses to start")
def test_no_debugger_for_strangers(models: Path, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")

    said = refusal(models, "--host", "0.0.0.0", "--allow-anonymous")

    came(said)
    assert said == "Error: FLASK_DEBUG is set, and 0.0.0.0 can be reached from other machines: unset it"


# -- before the models are loaded --------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
@fault("W10", sent="requests before models are loaded", expected="live 200, ready 503, predict 503 with Retry-After")
def test_a_service_without_its_models_says_so(framework: str, models: Path, came: Came) -> None:
    live, ready, predict = asyncio.run(ask_fastapi(models)) if framework == "fastapi" else ask_flask(models)

    came(live.status_code, ready.status_code, f"{predict.status_code}, Retry-After {predict.headers['retry-after']}")
    assert (live.status_code, ready.status_code, predict.status_code) == (200, 503, 503)
    assert int(predict.headers["retry-after"]) >= 1
    assert int(ready.headers["retry-after"]) >= 1


ASKED: Final = (("GET", "/health/live"), ("GET", "/health/ready"), ("POST", "/models/echo/predict"))


async def ask_fastapi(models: Path) -> list[httpx.Response]:
    transport = httpx.ASGITransport(create_app(Settings(models=models)))  # without the lifespan, in which models load
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return [await client.request(method, path, json={"x": 1}) for method, path in ASKED]


def ask_flask(models: Path) -> list[httpx.Response]:
    app = Flask("tandem")
    app.register_blueprint(create_blueprint(Tandem(Settings(models=models))))  # and nobody starts it
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost") as client:
        return [client.request(method, path, json={"x": 1}) for method, path in ASKED]
