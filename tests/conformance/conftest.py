"""Servers that many tests ask, started once per test process and only if somebody asks them.

Under pytest-xdist every worker has a set of its own: three processes of a second or two each
cost less than tying all tests of the corpus to one worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conformance.corpus import MAX_BODY_BYTES
from tests.conformance.servers import SERVERS, Running, side_by_side, tandem_serve


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
