"""nvForest on a GPU: the estimator's answers, whatever the batch, the thread and the number of calls before."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from service.core.table import take
from tests.faults.cases import fault
from tests.service.runtimes.test_nvforest import FAMILIES, assert_agrees, certain, compiled, opened

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

CALLS, LARGEST = 10_000, 512
THREADS, TURNS = 4, 50


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_the_estimators_at_thresholds_and_missing_values(name: str, nvforest_device: Any) -> None:
    estimator, signature, candidate, rows = compiled(name)

    engine = opened(candidate, signature, nvforest_device)

    assert_agrees(engine, estimator, signature, candidate, rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_alone_is_answered_as_among_many(name: str, nvforest_device: Any) -> None:
    _, signature, candidate, rows = compiled(name)
    engine = opened(candidate, signature, nvforest_device)
    sure, together = certain(engine, rows, candidate.outputs)

    for place in range(0, len(sure), 29):
        alone = engine.run(take(rows, sure[place : place + 1]), candidate.outputs)
        for output in candidate.outputs:
            among = together[output][place]
            if among.dtype.kind == "f":  # how the trees' sums are grouped may depend on the number of rows
                np.testing.assert_allclose(alone[output][0], among, rtol=1e-5 if among.dtype == np.float32 else 1e-12)
            else:
                assert alone[output][0] == among


def test_many_predictions_take_no_more_memory_than_one(nvforest_device: Any) -> None:
    _, signature, candidate, rows = compiled("forest of numbers")
    engine = opened(candidate, signature, nvforest_device)
    engine.run(take(rows, np.arange(LARGEST)), ("predict",))
    before = free_memory(nvforest_device)

    for call in range(CALLS):
        engine.run(take(rows, np.arange(1 + call % LARGEST)), ("predict",))

    assert before - free_memory(nvforest_device) <= 64 * 2**20


@fault("G07", sent="four threads on one GPU", expected="what one gets")
def test_four_threads_get_what_one_gets(nvforest_device: Any) -> None:
    _, signature, candidate, rows = compiled("histograms of two")
    engines = [opened(candidate, signature, nvforest_device) for _ in range(THREADS)]
    sure, expected = certain(engines[0], rows, candidate.outputs)
    wrong: list[Any] = []

    def ask(engine: Any) -> None:
        for _ in range(TURNS):
            got = engine.run(take(rows, sure), candidate.outputs)
            wrong.extend(name for name in expected if not np.array_equal(got[name], expected[name]))

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def free_memory(device: str) -> int:
    """Bytes: of the GPU; or of this process, negative, where there is none."""
    if device == "cpu":
        with open("/proc/self/statm") as statm:
            return -int(statm.read().split()[1]) * 4096
    import cupy

    return int(cupy.cuda.runtime.memGetInfo()[0])
