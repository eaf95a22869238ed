"""cuML on a GPU: the estimator's answers, whatever the batch, the thread and the number of calls before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from service.core.agreement import largest_difference
from service.core.table import Matrix, Table, take
from tests.faults.cases import fault
from tests.service.runtimes.test_cuml import CONVERTIBLE, certain, engine_of, fitted

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("cuml_on_gpu")]

CALLS, LARGEST = 10_000, 100
THREADS, TURNS = 4, 50
CLOSE = 1e-5


def hard(rows: Table) -> Table:
    """The sample, and rows of zeros, of tiny and large numbers, and of numbers that float32 cannot hold."""
    assert isinstance(rows, Matrix)
    values = np.array(rows.values)
    odd = [np.zeros(5), np.full(5, -0.0), np.full(5, 1e-30), np.full(5, 0.1), values[0] * 50, values[1] + 2.0**-40]
    return Matrix(np.vstack([values, *odd]))


def assert_close(expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    for name, values in expected.items():
        for one, other in zip(*(v if isinstance(v, list) else [v] for v in (values, got[name])), strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert largest_difference(one.tolist(), other.tolist()).size <= CLOSE, name


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_answers_are_the_estimators_on_hard_rows(name: str) -> None:
    estimator, target = CONVERTIBLE[name]
    engine, reference, sample = engine_of(fitted(estimator, target))
    rows = hard(sample)

    answers, sure = certain(engine, rows, engine.outputs)

    assert len(sure) >= 0.8 * rows.n_rows
    assert_close(reference.run(take(rows, sure), engine.outputs), answers)


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_row_alone_is_answered_as_among_many(name: str) -> None:
    estimator, target = CONVERTIBLE[name]
    engine, _, rows = engine_of(fitted(estimator, target))
    together, sure = certain(engine, rows, engine.outputs)

    for place in range(0, len(sure), 17):
        alone = engine.run(take(rows, sure[place : place + 1]), engine.outputs)
        row = {
            output: [v[place : place + 1] for v in values] if isinstance(values, list) else values[place : place + 1]
            for output, values in together.items()
        }
        assert_close(row, alone)


@fault("G02", sent="many predictions on a GPU", expected="its memory stays flat")
@pytest.mark.parametrize("name", ["logistic regression of texts", "neighbours", "forest of numbers", "svr"])
def test_many_predictions_take_no_more_memory_than_one(name: str) -> None:
    import cupy

    estimator, target = CONVERTIBLE[name]
    engine, _, rows = engine_of(fitted(estimator, target))
    certain(engine, rows, ("predict",))
    before = cupy.cuda.runtime.memGetInfo()[0]

    for call in range(CALLS):
        certain(engine, take(rows, np.arange(1 + call % LARGEST)), ("predict",))

    assert before - cupy.cuda.runtime.memGetInfo()[0] <= 64 * 2**20


@fault("G07", sent="four threads on one GPU", expected="what one gets")
@pytest.mark.parametrize("name", ["logistic regression of two", "pca", "k-means", "weighted neighbours"])
def test_four_threads_get_what_one_gets(name: str) -> None:
    estimator, target = CONVERTIBLE[name]
    engines = [engine_of(fitted(estimator, target))[0] for _ in range(THREADS)]
    rows = engine_of(estimator)[2]
    expected, sure = certain(engines[0], rows, engines[0].outputs)
    wrong: list[Any] = []

    def ask(engine: Any) -> None:
        for _ in range(TURNS):
            try:
                assert_close(expected, engine.run(take(rows, sure), engine.outputs))
            except BaseException as error:  # of another thread, which pytest does not see
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
