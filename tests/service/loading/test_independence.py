from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from service.core.errors import CannotAnswer
from service.core.table import Matrix, SparseRows, Table, Values
from service.loading.independence import row_by_row
from tests.faults.cases import fault

_ROWS = Matrix(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


class _Engine:
    """Sums each row, and lets the test change the answer."""

    is_reentrant = True

    def __init__(self, change: Callable[[str, Any], Any] = lambda name, values: values) -> None:
        self._change = change

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        return {name: self._change(name, rows.values.sum(axis=1)) for name in outputs}


def _of_the_batch(name: str, values: Any) -> Any:
    return values - values.mean()


def _by_order(name: str, values: Any) -> Any:
    return values * (1 + 1e-15 * len(values))


@fault("B03", sent="an estimator whose answers depend on the other rows", expected="never merged")
@pytest.mark.parametrize(
    ("change", "merges"),
    [
        pytest.param(lambda name, values: values, True, id="row by row"),
        pytest.param(_by_order, True, id="last digits of linear algebra"),
        pytest.param(_of_the_batch, False, id="scaled by the batch"),
        pytest.param(lambda name, values: [values, values * 2], True, id="several targets"),
        pytest.param(lambda name, values: [values, _of_the_batch(name, values)], False, id="several, one of the batch"),
        pytest.param(lambda name, values: values.astype(str), True, id="labels"),
    ],
)
def test_engine_whose_answers_depend_on_the_neighbours_is_not_merged(change: Any, merges: bool) -> None:
    assert row_by_row(_Engine(change), _ROWS, ("predict",)) is merges


@pytest.mark.parametrize(("scale", "merges"), [(1.0, True), (0.5, False)])
def test_sparse_answers_are_compared_by_row(scale: float, merges: bool) -> None:
    def sparse(name: str, values: Any) -> SparseRows:
        data = values * (scale if len(values) > 1 else 1.0)
        return SparseRows(3, np.arange(len(values) + 1), np.ones(len(values), dtype=int), data)

    assert row_by_row(_Engine(sparse), _ROWS, ("predict",)) is merges


@pytest.mark.parametrize(
    ("limit", "change", "merges"),
    [
        pytest.param(4.0, lambda name, values: values, True, id="the others are answered alike"),
        pytest.param(4.0, _of_the_batch, False, id="the others depend on each other"),
        pytest.param(0.0, lambda name, values: values, False, id="nothing is answered"),
    ],
)
def test_rows_that_an_engine_passes_on_do_not_count(limit: float, change: Any, merges: bool) -> None:
    class Picky(_Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            assert isinstance(rows, Matrix)
            if (large := rows.values[:, 0] > limit).any():
                raise CannotAnswer("too large", large)
            return super().run(rows, outputs)

    assert row_by_row(Picky(change), _ROWS, ("predict",)) is merges
