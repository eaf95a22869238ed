"""What these tests need, and the reason that they skip with where it is missing.

TANDEM_TEST_DEVICE=cpu runs those of nvForest on its CPU mode, which tries the tests themselves.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest

ON_CPU = os.environ.get("TANDEM_TEST_DEVICE") == "cpu"


@pytest.fixture(scope="session")
def gpu() -> Any:
    """The GPU that was found. Asked in another process, so that finding out starts no CUDA here."""
    from service.runtimes.device import probe

    found = probe()
    if not found.usable:
        pytest.skip(f"no GPU: {found.reason}")
    return found


@pytest.fixture
def nvforest_device(request: pytest.FixtureRequest) -> str:
    if find_spec("nvforest") is None:
        pytest.skip("nvforest is not installed: pip install 'tandem-serving[gpu]'")
    if ON_CPU:
        return "cpu"
    request.getfixturevalue("gpu")
    return "gpu"


@pytest.fixture
def cuml_on_gpu(request: pytest.FixtureRequest) -> None:
    if find_spec("cuml") is None:
        pytest.skip("cuml is not installed: pip install 'tandem-serving[gpu]'")
    request.getfixturevalue("gpu")
