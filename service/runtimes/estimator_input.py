"""Rows as the estimator was given them at fit: array, data frame, sparse matrix or series.

The container matters: a ColumnTransformer finds its columns by name, a text vectorizer
iterates over one dimension, and some estimators answer with other last digits to a sparse
matrix than to a dense one. pandas and scipy are imported only where the model needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Column, Container, Signature
from service.core.table import Matrix, Table, missing

BuildInput = Callable[[Table], Any]


def input_builder(signature: Signature) -> BuildInput:
    """The function that makes an estimator's input from a table of this signature."""
    match signature.container:
        case Container.ARRAY:
            return lambda table: _array(table)
        case Container.SERIES:
            return lambda table: _array(table)[:, 0]
        case Container.SPARSE:
            return _sparse
        case Container.FRAME:
            columns = signature.columns
            return lambda table: _frame(table, columns)


def _array(table: Table) -> NDArray[Any]:
    if isinstance(table, Matrix):
        return table.values
    arrays = list(table.columns.values())
    common = np.result_type(*arrays) if all(a.dtype.kind in "fiub" for a in arrays) else np.dtype(object)
    values = np.empty((table.n_rows, len(arrays)), dtype=common)
    for index, array in enumerate(arrays):
        values[:, index] = array
    return values


def _sparse(table: Table) -> Any:
    from scipy import sparse

    return sparse.csr_matrix(_array(table))


def _frame(table: Table, columns: tuple[Column, ...]) -> Any:
    import pandas as pd

    if isinstance(table, Matrix):
        return pd.DataFrame(table.values, columns=[column.name for column in columns], copy=False)
    return pd.DataFrame({column.name: _series(table.columns[column.name], column) for column in columns}, copy=False)


def _series(values: NDArray[Any], column: Column) -> Any:
    """A column with the dtype it had in the training's frame, so that pandas has nothing to infer."""
    import pandas as pd

    if column.pandas == "category":
        categories = pd.Index(column.categories or [])
        return pd.Series(pd.Categorical(values, categories=categories, ordered=bool(column.ordered)))
    if column.dtype == "datetime":
        series = pd.Series(values)
        return series.dt.tz_localize("UTC").dt.tz_convert(column.timezone) if column.timezone else series
    if column.pandas in (None, "object") or (column.pandas == column.dtype and column.dtype != "string"):
        if values.dtype == object and column.missing != "none":
            values = np.where(missing(values), np.nan, values)
        # An integer column with missing values stays the float64 that it was decoded to.
        return pd.Series(values, dtype=values.dtype)
    return pd.Series(values).astype(column.pandas)  # extension dtypes hold missing values themselves
