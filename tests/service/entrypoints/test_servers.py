"""The servers themselves; what they answer is for `tests/conformance`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import httpx
import pytest

from service.entrypoints.servers import Binding
from tests.conformance.servers import Running, running


@pytest.mark.parametrize(
    ("host", "url"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:8000", id="IPv4"),
        pytest.param("::1", "http://[::1]:8000", id="IPv6"),
        pytest.param("localhost", "http://localhost:8000", id="name"),
    ],
)
def test_a_binding_knows_its_url(host: str, url: str) -> None:
    assert Binding(host, 8000, 1).url == url


@pytest.mark.parametrize(
    "run",
    [
        pytest.param("servers.run_uvicorn(settings, binding)", id="uvicorn"),
        pytest.param("servers.run_granian(settings, binding)", id="granian"),
        pytest.param("servers.run_gunicorn(settings, binding, 'gthread')", id="gunicorn"),
    ],
)
def test_settings_reach_the_app_and_an_interrupt_ends_it_well(run: str, models: Path, tmp_path: Path) -> None:
    def command(port: int) -> tuple[str, ...]:
        code = (
            "from service.entrypoints import servers; from service.settings import Settings; "
            f"settings = Settings(models={str(models)!r}, max_body_bytes=1024); "
            f"binding = servers.Binding('127.0.0.1', {port}, 1); {run}"
        )
        return (sys.executable, "-c", code)

    with running(command, log=tmp_path / "log") as server:
        sizes = [size_is_taken(server, size) for size in (1024, 1025)]
        server.process.send_signal(signal.SIGINT)
        exit_code = server.exit_code()

    assert sizes == [True, False]
    assert exit_code == 0


def size_is_taken(server: Running, size: int) -> bool:
    response = httpx.post(f"{server.url}/predict", content=b" " * size, timeout=60, trust_env=False)
    return response.status_code != 413
