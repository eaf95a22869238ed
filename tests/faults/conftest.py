"""The fronts, started once per test process, and the record of what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conformance.servers import SERVERS, Running, side_by_side, tandem_serve
from tests.faults.cases import Came, shorten
from tests.faults.fronts import Front
from tests.faults.guarded import guarded, guarded_fronts, spoken_grpc  # noqa: F401  fixtures
from tests.faults.sockets import socket_models, speaker, speakers  # noqa: F401  fixtures
from tests.faults.writing import writing, writing_fronts, writing_workers  # noqa: F401  fixtures


@pytest.fixture(scope="session")
def fronts(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Running]]:
    """One server of each kind with the default settings, over the same repository."""
    logs = tmp_path_factory.mktemp("logs")
    with side_by_side(
        {
            name: tandem_serve(
                *arguments,
                *("--models", str(repository)),
                *("--trust", "tests.conformance.models.days"),
                log=logs / name,
                environment={"TANDEM_SANDBOX": "true"},
            )
            for name, arguments in SERVERS.items()
        }
    ) as started:
        yield started


@pytest.fixture(params=SERVERS)
def front(request: pytest.FixtureRequest, fronts: Mapping[str, Running]) -> Iterator[Front]:
    """Each of the web servers in turn; after the test it must be as well as before."""
    front = Front(request.param, fronts[request.param])
    since = front.running.log.stat().st_size
    yield front
    front.is_well(since)


@pytest.fixture
def came(request: pytest.FixtureRequest) -> Came:
    """Writes down what came."""
    told: list[str] = []
    request.node.user_properties.append(("came", told))
    return lambda *values: told.append(shorten(", ".join(map(str, values))))
