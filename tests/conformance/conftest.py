"""Servers that many tests ask, started once per test process and only if somebody asks them.

Under pytest-xdist every worker has a set of its own: three processes of a second or two each
cost less than tying all tests of the corpus to one worker.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conformance.corpus import MAX_BODY_BYTES
from tests.conformance.servers import SERVERS, Running, free_port, side_by_side, tandem_serve


@pytest.fixture(scope="session")
def servers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Running]]:
    """One of each kind, over the same repository and with the same settings."""
    logs = tmp_path_factory.mktemp("logs")
    with side_by_side(
        {
            name: tandem_serve(
                *arguments,
                *("--models", str(repository)),
                *("--trust", "tests.conformance.models.days"),
                log=logs / name,
                environment={"TANDEM_MAX_BODY_BYTES": str(MAX_BODY_BYTES)},
            )
            for name, arguments in SERVERS.items()
        }
    ) as started:
        yield started


@pytest.fixture(scope="session")
def with_documented(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the corpus, and those of TensorFlow Serving's documentation."""
    from tests.conformance.models import export_documented

    folder = tmp_path_factory.mktemp("documented") / "models"
    shutil.copytree(repository, folder)
    export_documented(folder)
    return folder


@pytest.fixture(scope="session")
def estimators(
    with_documented: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, tuple[Running, int]]]:
    """One server of each kind that asks the estimators alone, so that answers are theirs to the last bit; its gRPC."""
    logs = tmp_path_factory.mktemp("estimators")
    ports = {name: free_port() for name in SERVERS}
    with side_by_side(
        {
            name: tandem_serve(
                *arguments,
                *("--models", str(with_documented), "--default-model", "numbers", "--engine", "estimator"),
                *("--trust", "tests.conformance.models.days", "--grpc-port", str(ports[name])),
                log=logs / name,
            )
            for name, arguments in SERVERS.items()
        }
    ) as started:
        yield {name: (running, ports[name]) for name, running in started.items()}
