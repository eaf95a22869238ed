from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.core.errors import InvalidRequest
from service.core.messages import InferReply
from service.core.signature import Output
from service.core.table import SparseRows, Values
from service.protocols.columnar.reply_table import n_rows, rows_between, table_of
from tests.service.protocols.fake_server import SHOP, signature_of

SPARSE = SparseRows(3, np.array([0, 1, 1, 3]), np.array([2, 0, 1]), np.array([5.0, 6.0, 7.0]))


def table(values: Values, **about: Any) -> dict[str, list[Any]]:
    output = Output(name="out", dtype="float64", **about)
    reply = InferReply("shop", 3, signature_of(*SHOP.columns, outputs=(output,)), {"out": values})
    return {name: column.tolist() for name, column in table_of(reply).items()}


@pytest.mark.parametrize(
    ("values", "about", "columns"),
    [
        pytest.param(np.array([1, 2]), {"classes": [1, 2]}, {"out": [1, 2]}, id="one value per row"),
        pytest.param(np.array([[1, 2]]), {"classes": ["no", "yes"]}, {"out_no": [1], "out_yes": [2]}, id="by class"),
        pytest.param(np.array([[1, 2]]), {"classes": [0.5, True]}, {"out_0.5": [1], "out_True": [2]}, id="odd classes"),
        pytest.param(np.array([[1, 2]]), {"classes": [1, "1"]}, {"out_0": [1], "out_1": [2]}, id="classes that clash"),
        pytest.param(np.array([[1, 2, 3]]), {"classes": ["no", "yes"]}, {"out_0": [1], "out_1": [2], "out_2": [3]},
                     id="another number of classes"),
        pytest.param(np.array([[1, 2]]), {"columns": ["age", "größe"]}, {"out_age": [1], "out_größe": [2]},
                     id="by feature"),
        pytest.param(np.array([[1, 2]]), {}, {"out_0": [1], "out_1": [2]}, id="by number"),
        pytest.param(np.arange(8).reshape(2, 2, 2), {}, {f"out_{i}": [i, i + 4] for i in range(4)}, id="deeper"),
        pytest.param([np.array([[1, 2]]), np.array([[3, 4]])], {"targets": 2, "classes": [["a", "b"], [0, 1]]},
                     {"out_0_a": [1], "out_0_b": [2], "out_1_0": [3], "out_1_1": [4]}, id="by target and class"),
        pytest.param(SPARSE, {}, {"out_0": [0, 0, 6], "out_1": [0, 0, 7], "out_2": [5, 0, 0]}, id="sparse"),
    ],
)  # fmt: skip
def test_columns_are_called_as_in_a_data_frame(values: Any, about: dict[str, Any], columns: Any) -> None:
    assert table(values, **about) == columns


def test_sparse_rows_that_would_fill_the_memory_are_not_spread_out() -> None:
    rows = SparseRows(10**9, np.array([0, 1]), np.array([2]), np.array([5.0]))

    with pytest.raises(InvalidRequest, match="too large"):
        table(rows)


@pytest.mark.parametrize(
    "values", [np.arange(3), SPARSE, [np.arange(3), np.arange(3)]], ids=["array", "sparse", "list"]
)
def test_rows_in_between_are_those_rows(values: Any) -> None:
    parts = [rows_between(values, start, end) for start, end in ((0, 2), (2, 3), (3, 3))]

    assert [n_rows(part) for part in parts] == [2, 1, 0]
    whole = {name: [value for part in parts for value in table(part)[name]] for name in table(values)}
    assert whole == table(values)
