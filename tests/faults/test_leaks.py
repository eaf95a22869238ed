"""Nothing grows with the number of requests; and the check that says so finds a model that leaks.

`python -m benchmarks.soak` sends a hundred times as many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from benchmarks.soak import Sample, Soak, mix, soak
from tests.conformance.servers import tandem_serve
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, MODEL, Front
from tests.faults.odd import Act, Odd
from training.export import export

REQUESTS: Final = 2000


def soaked(front: Front, requests: Sequence[bytes]) -> Soak:
    def look() -> Sample:
        return Sample(front.memory_bytes(), front.threads(), front.descriptors())

    return asyncio.run(soak(front.port, requests, REQUESTS, look))


@fault("W20", sent=f"{REQUESTS} good and bad requests in turn", expected="memory, threads and files stay as they were")
def test_nothing_grows_with_the_requests(front: Front, came: Came) -> None:
    (row,) = GOOD["instances"]
    found = soaked(front, mix(MODEL, row))
    came(f"{found.growth_bytes() / 2**20:.1f} MiB above the mean", dict(found.statuses))

    assert found.statuses["200"] > REQUESTS / 2
    assert set(found.statuses) == {"200", "400", "404", "405", "415", "422"}
    assert found.grown() == []


@pytest.mark.front("uvicorn")
@fault("W20", sent="the same to a model that keeps 200 kB of each call", expected="the same check fails")
def test_a_model_that_leaks_is_found(tmp_path: Path, came: Came) -> None:
    X = np.column_stack([np.arange(10.0), np.zeros(10)])
    export(Odd(str(tmp_path)).fit(X), X, name="odd", repository=tmp_path / "models")
    arguments = ("--models", str(tmp_path / "models"), "--trust", "tests.faults.odd.Odd")
    with tandem_serve(*arguments, log=tmp_path / "log") as server:
        found = soaked(Front("uvicorn", server), mix("odd", [1.0, float(Act.LEAK)]))
    came(*found.grown())

    assert [what for what in found.grown() if what.startswith("memory")]


@pytest.mark.parametrize(
    ("last", "grown"),
    [
        pytest.param(Sample(2**30, 8, 20), ["memory"], id="memory"),
        pytest.param(Sample(2**27, 80, 20), ["threads"], id="threads"),
        pytest.param(Sample(2**27, 8, 200), ["descriptors"], id="descriptors"),
        pytest.param(Sample(2**27 + 2**20, 9, 25), [], id="nothing"),
    ],
)
def test_what_grew_is_named(last: Sample, grown: list[str]) -> None:
    found = Soak([Sample(2**27, 8, 20)] * 9 + [last])

    assert [what.split()[0] for what in found.grown()] == grown
