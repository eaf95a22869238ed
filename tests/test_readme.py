"""The README is held to the code: its settings, its routes, and the Python in it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import httpx
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from service.protocols.routes import table
from service.settings import Settings
from training.cli import tandem

README: Final = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> Iterator[str]:
    for block in blocks("sh"):
        yield from (line for line in block.splitlines() if line.startswith("tandem "))


def test_every_setting_is_told_and_no_other() -> None:
    told = set(re.findall(r"`(TANDEM_[A-Z_]+)`", README))

    assert told == {f"TANDEM_{name.upper()}" for name in Settings.model_fields}


def test_every_route_is_told() -> None:
    told = set(re.findall(r"`(GET|POST) (/[^`]*)`", README))

    assert told == {(route.method, route.path) for route in table() if route.path != "/docs/{file}"}


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_is_one_that_the_command_line_takes(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    command = tandem.commands[name]
    exists = [arg.replace("churn.joblib", __file__) for arg in arguments]

    with click.Context(tandem) as parent:
        command.make_context(name, exists, parent=parent)


def test_every_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X = np.arange(6.0).reshape(3, 2)
    found: dict[str, Any] = {"__name__": __name__, "X": X, "pipeline": LinearRegression().fit(X, [0.0, 1.0, 2.0])}

    apps = []
    for block in blocks("python"):
        exec(block, found)
        apps.append(found.get("app"))

    assert (tmp_path / "models" / "churn" / "1" / "manifest.json").is_file()
    _, fast, flask = apps
    assert asyncio.run(status_of(fast, "/ml/health/live")) == 200
    assert flask.test_client().get("/ml/health/live").status_code == 200
    flask.extensions["tandem"].tandem.stop()


async def status_of(app: Any, path: str) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tandem.test") as client:
        return (await client.get(path)).status_code
