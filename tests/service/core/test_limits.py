from __future__ import annotations

import numpy as np
import pytest

from service.core.errors import ReplyTooLarge, RequestTooLarge
from service.core.limits import UNLIMITED, Limits
from service.core.table import Frame, Matrix, SparseRows, Table, Values


def of(rows: int, width: int) -> tuple[Table, Table]:
    return Matrix(np.zeros((rows, width))), Frame({f"x{at}": np.zeros(rows) for at in range(width)})


@pytest.mark.parametrize("table", of(4, 3))
def test_as_many_rows_and_cells_as_are_allowed_pass(table: Table) -> None:
    Limits(rows=4, cells=12, reply_bytes=0).check_rows(table)


@pytest.mark.parametrize("table", of(4, 3))
def test_a_row_more_is_refused_with_both_numbers(table: Table) -> None:
    with pytest.raises(RequestTooLarge, match="has 4 rows; one request may have 3"):
        Limits(rows=3, cells=100, reply_bytes=0).check_rows(table)


@pytest.mark.parametrize("table", of(4, 3))
def test_a_cell_more_is_refused_with_both_numbers(table: Table) -> None:
    with pytest.raises(RequestTooLarge, match="has 4 x 3 values; one request may have 11"):
        Limits(rows=100, cells=11, reply_bytes=0).check_rows(table)


SPARSE = SparseRows(9, np.zeros(2, np.int32), np.zeros(1, np.int32), np.zeros(2))


@pytest.mark.parametrize(
    ("values", "size"),
    [
        pytest.param(np.zeros((2, 3)), 48, id="array"),
        pytest.param([np.zeros(2), np.zeros(1)], 24, id="one per target"),
        pytest.param(SPARSE, 8 + 4 + 16, id="sparse"),
    ],
)
def test_an_answer_is_as_large_as_its_arrays(values: Values, size: int) -> None:
    Limits(rows=0, cells=0, reply_bytes=2 * size).check_answer({"a": values, "b": values})

    with pytest.raises(ReplyTooLarge, match=f"would be {2 * size} bytes, and at most {2 * size - 1}"):
        Limits(rows=0, cells=0, reply_bytes=2 * size - 1).check_answer({"a": values, "b": values})


def test_unlimited_refuses_nothing() -> None:
    table = Matrix(np.broadcast_to(np.float64(0), (2**20, 2**20)))

    UNLIMITED.check_rows(table)
    UNLIMITED.check_answer({"predict": table.values[:, 0]})


@pytest.mark.parametrize(("width", "rows"), [(1, 5), (3, 4), (100, 1)], ids=["rows", "cells", "at least one"])
def test_the_most_rows_of_a_request_pass(width: int, rows: int) -> None:
    assert Limits(rows=5, cells=12, reply_bytes=0).max_rows(width) == rows
