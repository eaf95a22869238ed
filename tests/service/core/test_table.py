from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.table import Frame, Matrix, Table, column_arrays, missing, take

MATRIX = Matrix(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
FRAME = Frame({"a": np.array([1.0, 3.0, 5.0]), "b": np.array([2.0, 4.0, 6.0])})


@pytest.mark.parametrize("table", [pytest.param(MATRIX, id="matrix"), pytest.param(FRAME, id="frame")])
def test_table_knows_its_rows_and_columns(table: Table) -> None:
    columns = column_arrays(table)

    assert table.n_rows == 3
    assert [column.tolist() for column in columns] == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


@pytest.mark.parametrize("table", [pytest.param(MATRIX, id="matrix"), pytest.param(FRAME, id="frame")])
def test_rows_are_taken_in_the_order_asked_for(table: Table) -> None:
    taken = take(table, np.array([2, 0, 2]))

    assert type(taken) is type(table)
    assert [column.tolist() for column in column_arrays(taken)] == [[5.0, 1.0, 5.0], [6.0, 2.0, 6.0]]


@pytest.mark.parametrize(
    ("array", "holes"),
    [
        pytest.param(np.array([1.0, np.nan, np.inf]), [False, True, False], id="floats"),
        pytest.param(np.array(["2020-01-01", "NaT"], dtype="datetime64[us]"), [False, True], id="datetimes"),
        pytest.param(np.array(["", None, "nan"], dtype=object), [False, True, False], id="texts"),
        pytest.param(np.array([0, 1]), [False, False], id="integers"),
        pytest.param(np.array([False, True]), [False, False], id="booleans"),
    ],
)
def test_missing_is_nan_nat_and_none(array: NDArray[np.generic], holes: list[bool]) -> None:
    assert missing(array).tolist() == holes
