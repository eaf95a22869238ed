"""The rows of a request, between the protocol that read them and the engine that answers.

Either one matrix, where all columns hold numbers of one kind, or one array per column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """`values` has shape (rows, columns), C-contiguous, columns in the signature's order; missing is NaN."""

    values: NDArray[Any]

    @property
    def n_rows(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One array of shape (rows,) per column name, in the signature's order.

    Missing is NaN in float columns and NaT in datetimes; an integer column with missing
    values is float64, as pandas has it; strings and booleans are objects with None.
    """

    columns: dict[str, NDArray[Any]]

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values())))


Table = Matrix | Frame


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """A sparse output of shape (rows, width), in the compressed sparse row format of scipy."""

    width: int
    indptr: NDArray[np.integer[Any]]
    indices: NDArray[np.integer[Any]]
    data: NDArray[Any]


# What one output holds for all rows: an array of shape (rows, ...), sparse rows,
# or one array per target (scikit-learn's multi-output predict_proba).
Values = NDArray[Any] | SparseRows | list[NDArray[Any]]


def take(table: Table, rows: NDArray[np.integer[Any]]) -> Table:
    """The rows of these indices, in this order."""
    if isinstance(table, Matrix):
        return Matrix(table.values[rows])
    return Frame({name: values[rows] for name, values in table.columns.items()})


def copied(table: Table) -> Table:
    """Rows of their own, for whoever may write into them."""
    return take(table, np.arange(table.n_rows))


def column_arrays(table: Table) -> list[NDArray[Any]]:
    """One array of shape (rows,) per column, in order."""
    return list(table.values.T) if isinstance(table, Matrix) else list(table.columns.values())


def missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a column's array holds no value: NaN, NaT or None."""
    match array.dtype.kind:
        case "f":
            holes: NDArray[np.bool_] = np.isnan(array)
        case "M":
            holes = np.isnat(array)
        case "O":
            holes = np.fromiter((value is None for value in array), dtype=bool, count=len(array))
        case _:
            holes = np.zeros(array.shape, dtype=bool)
    return holes
