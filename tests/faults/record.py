"""Writes down what came, for every test that is marked as showing a case, wherever it lies (`tests/conftest.py`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.servers import SERVERS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A line of JSON in the folder that TANDEM_FAULTS names, if it does; a test that fails in its teardown has two."""
    report = yield
    marker = item.get_closest_marker("fault")
    folder = os.environ.get("TANDEM_FAULTS")
    if marker is None or folder is None or (report.when != "call" and report.passed):
        return report
    record = {
        "ids": marker.kwargs["ids"],
        "sent": marker.kwargs["sent"],
        "expected": marker.kwargs["expected"],
        "front": _column(item),
        "came": dict(item.user_properties).get("came", []),
        "outcome": report.outcome,
        "test": item.nodeid,
    }
    with Path(folder, f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    return report


def _column(item: pytest.Item) -> str:
    """The web server among the test's parameters; or what its marker `front` says; or the service alone."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    named = item.get_closest_marker("front")
    if named is not None:
        return str(named.args[0])
    return next((value for value in parameters if isinstance(value, str) and value in SERVERS), "service")
