"""What tests of several packages share. Properties try the same examples in every run, and how long one takes is
nobody's business.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.faults.record import pytest_runtest_makereport  # noqa: F401  a hook

# What tests start, servers most of all, begins sooner where it finds its modules compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("tandem", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("tandem")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of every kind. Read-only: tests that change a repository make their own.

    Of all processes of a run, the one that asks first makes it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "repository"
    with (shared / "repository.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            from tests.conformance.models import export_models  # the libraries of models take seconds to import

            draft = tmp_path_factory.mktemp("draft") / "repository"
            draft.mkdir()
            export_models(draft)
            draft.rename(folder)
    return folder
