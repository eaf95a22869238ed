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
            return lambda table: _array(table, signature)
        case Container.SERIES:
            return lambda table: _array(table, signature)[:, 0]
        case Container.SPARSE:
            return lambda table: _sparse(table, signature)
        case Container.FRAME:
            return lambda table: _frame(table, signature)


def _array(table: Table, signature: Signature) -> NDArray[Any]:
    if isinstance(table, Matrix):
        return np.asarray(_own(table.values), order=signature.order)
    arrays = list(table.columns.values())
    common = np.result_type(*arrays) if all(a.dtype.kind in "fiub" for a in arrays) else np.dtype(object)
    values = np.empty((table.n_rows, len(arrays)), dtype=common, order=signature.order)
    for index, (array, column) in enumerate(zip(arrays, signature.columns, strict=True)):
        values[:, index] = _with_holes(array, column)
    return values


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """`values`, or a copy where they lie in somebody else's memory: compiled code refuses to take what it
    may not write to, whether or not it writes.
    """
    return values if values.flags.writeable else values.copy()


def _with_holes(values: NDArray[Any], column: Column) -> NDArray[Any]:
    """Objects with missing values as the training had them: NaN, or None."""
    if values.dtype == object and column.missing != "none":
        return np.where(missing(values), np.nan, values)
    return _own(values)


def _sparse(table: Table, signature: Signature) -> Any:
    from scipy import sparse

    return sparse.csr_matrix(_array(table, signature))


def _frame(table: Table, signature: Signature) -> Any:
    import pandas as pd

    if isinstance(table, Matrix):
        return pd.DataFrame(_array(table, signature), columns=list(signature.names), copy=False)
    series = {column.name: _series(table.columns[column.name], column) for column in signature.columns}
    return pd.DataFrame(series, copy=False)


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
        values = _with_holes(values, column)
        # An integer column with missing values stays the float64 that it was decoded to.
        return pd.Series(values, dtype=values.dtype)
    return pd.Series(values).astype(column.pandas)  # extension dtypes hold missing values themselves
