"""What tests of several packages share. Properties try the same examples in every run, and how long one takes is
nobody's business.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.faults.record import pytest_runtest_makereport  # noqa: F401  a hook

# What tests start, servers most of all, begins sooner where it finds its modules compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("tandem", derandomize=True, deadline=None, max_examples=200)
settings.load_profile("tandem")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of every kind. Read-only: tests that change a repository make their own."""
    from tests.conformance.models import export_models  # the libraries of models take seconds to import

    folder = tmp_path_factory.mktemp("repository")
    export_models(folder)
    return folder
