"""Servers that many tests ask, started once per test process and only if somebody asks them.

Under pytest-xdist every worker has a set of its own: three processes of a second or two each
cost less than tying all tests of the corpus to one worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.corpus import MAX_BODY_BYTES
from tests.conformance.servers import SERVERS, Running, tandem_serve


@pytest.fixture(scope="session")
def servers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Running]]:
    """One of each kind, over the same repository and with the same settings."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                tandem_serve(
                    *arguments,
                    *("--models", str(repository)),
                    *("--trust", "tests.conformance.models.days"),
                    log=logs / name,
                    environment={"TANDEM_MAX_BODY_BYTES": str(MAX_BODY_BYTES)},
                )
            )
            for name, arguments in SERVERS.items()
        }
