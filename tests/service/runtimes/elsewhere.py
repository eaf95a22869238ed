"""Tests that need a library this environment lacks, run by a python that has it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]


@pytest.fixture
def run_there() -> Callable[[str, Path, str], None]:
    """A function that runs the tests of a file whose names match, with the python that a variable names."""

    def run(variable: str, tests: Path, which: str) -> None:
        if not (python := os.environ.get(variable)):
            pytest.skip(f"{variable} names no python that has the library")
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-k", which, str(tests)]
        # PYTEST_ADDOPTS may hold what the caller's coverage wants of the whole suite.
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTEST_ADDOPTS", variable)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert re.search(r"\d+ passed", done.stdout), said
        assert " skipped" not in done.stdout, said

    return run
