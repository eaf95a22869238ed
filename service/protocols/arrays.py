"""The decoder of values that come as arrays: binary tensors, Arrow, npy. It keeps the law of `values.py`.

An array is accepted exactly where the list of its values would be, with NaN and NaT for null; a property
test holds the two together. Numbers go from one array to the other as a whole; what is unusual goes value
by value through `decode_column`, which finds the words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRequest
from service.core.signature import FLOATS, INTS, Column, Signature
from service.core.table import Frame, Matrix, Table
from service.protocols.native import known_columns
from service.protocols.values import (
    ABSENT,
    Problems,
    datetime_unit,
    decode_column,
    exact_integers,
    float_limit,
    int_limits,
)


def decode_matrix(values: NDArray[Any], signature: Signature) -> Table:
    """Rows of shape (rows, columns) in the order of the signature; of one column, (rows,) will do.

    Where it already is the matrix that the model takes, no value is copied.

    Raises:
        InvalidRequest: another shape.
        InvalidRows: values that the columns do not take.
    """
    width = len(signature.columns)
    if values.ndim == 1 and width == 1:
        values = values.reshape(-1, 1)
    if values.ndim != 2 or values.shape[1] != width or len(values) == 0:
        shape = ", ".join(map(str, values.shape))
        raise InvalidRequest(f"expected rows of {width} values, at least one: shape (rows, {width}); got ({shape})")
    if (dtype := signature.matrix_dtype) is not None:
        whole = _numbers(values, dtype, nullable=signature.takes_nulls, limit=signature.max_abs)
        if whole is not None:
            return Matrix(np.require(whole, requirements=["C", "ALIGNED"]))
    return _assemble({name: values[:, place] for place, name in enumerate(signature.names)}, signature)


def decode_arrays(columns: Mapping[str, NDArray[Any]], signature: Signature) -> Table:
    """One array of shape (rows,) per column name; those that may be missing may be left out.

    Arrays of objects hold what JSON would: None, bool, int, float, str.

    Raises:
        InvalidRequest: no rows.
        InvalidRows: unknown or missing columns, other lengths, or values that the columns do not take.
    """
    problems = Problems()
    rows = max((len(values) for values in columns.values()), default=0)
    known = frozenset(signature.names)
    for name, values in columns.items():
        if name not in known:
            problems.add(None, name[:60], known_columns(signature), repr(name[:60]))
        elif values.ndim != 1 or len(values) != rows:
            problems.add(None, name, f"{rows} values, as in the other columns", f"shape {values.shape}")
    for column in signature.columns:
        if column.name not in columns and not column.nullable:
            problems.add(None, column.name, "values", "nothing")
    problems.raise_if_any()
    if rows == 0:
        raise InvalidRequest("expected at least one row")
    return _assemble(columns, signature)


def _assemble(columns: Mapping[str, NDArray[Any]], signature: Signature) -> Table:
    problems = Problems()
    rows = len(next(iter(columns.values())))
    arrays = {
        column.name: decode_array(columns[column.name], column, problems)
        if column.name in columns
        else decode_column([ABSENT] * rows, column, problems)
        for column in signature.columns
    }
    problems.raise_if_any()
    if signature.matrix_dtype is not None:
        return Matrix(np.stack(list(arrays.values()), axis=1))
    return Frame(arrays)


def decode_array(values: NDArray[Any], column: Column, problems: Problems) -> NDArray[Any]:
    """`values` of shape (rows,) as `decode_column` would have them, were they a list.

    What is wrong is added to `problems`, and then the array is worthless.
    """
    array = _quickly(values, column) if column.categories is None or not column.closed else None
    return array if array is not None else decode_column(_listed(values, column), column, problems, exact=True)


def _quickly(values: NDArray[Any], column: Column) -> NDArray[Any] | None:
    """Numbers and truths as a whole, or None where something is to be looked at value by value."""
    if column.dtype in FLOATS:
        return _numbers(values, np.dtype(column.dtype), nullable=column.nullable, limit=float_limit(column))
    if column.dtype in INTS and values.dtype.kind in "iu":
        low, high = int_limits(column)
        if values.size == 0 or (int(values.min()) >= low and int(values.max()) <= high):
            return values.astype(column.dtype, copy=False)
    if column.dtype == "bool" and values.dtype.kind == "b":
        return values.astype(bool, copy=False)
    return None


def _numbers(values: NDArray[Any], dtype: np.dtype[Any], *, nullable: bool, limit: float) -> NDArray[Any] | None:
    """`values` as `dtype`, where every one of them can be that, else None."""
    kind = values.dtype.kind
    if dtype.kind == "b":
        return values.astype(dtype, copy=False) if kind == "b" else None
    if dtype.kind in "iu":
        if kind not in "iu":
            return None
        info = np.iinfo(dtype)
        fits = values.size == 0 or (int(values.min()) >= info.min and int(values.max()) <= info.max)
        return values.astype(dtype, copy=False) if fits else None
    if kind not in "fiu":
        return None
    if kind in "iu":
        limit = min(limit, exact_integers(dtype))
    limit = min(limit, float(np.finfo(dtype).max))
    if values.size:
        # NaN compares as false, so it is asked for on its own; infinity is beyond every limit.
        least, greatest = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
        if float(greatest) > limit or float(least) < -limit:
            return None
        if kind == "f" and not nullable and bool(np.isnan(values).any()):
            return None
    return values.astype(_NATIVE[dtype], copy=False)


def _listed(values: NDArray[Any], column: Column) -> list[Any]:
    """The values as JSON would have brought them, with None for NaN and NaT."""
    if values.dtype.kind == "M":
        if column.dtype != "datetime":
            return [None if text == "NaT" else text for text in np.datetime_as_string(values).tolist()]
        offset = "Z" if column.timezone else ""
        unit = datetime_unit(column)
        finest = values.astype(f"datetime64[{unit}]") if _is_coarser(values.dtype, unit) else values
        return [None if text == "NaT" else f"{text}{offset}" for text in np.datetime_as_string(finest).tolist()]
    listed: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        return [None if value != value else value for value in listed]
    if values.dtype.kind in "OSU":
        return [_plain(value) for value in listed]
    return listed


_NATIVE: Final = {np.dtype(name): np.dtype(name) for name in FLOATS}
_UNITS: Final = ("D", "h", "m", "s", "ms", "us", "ns")


def _is_coarser(dtype: np.dtype[Any], unit: str) -> bool:
    own = np.datetime_data(dtype)[0]
    return own in _UNITS and _UNITS.index(own) < _UNITS.index(unit)


def _plain(value: Any) -> Any:
    """An object as JSON has it. Bytes are UTF-8, or stay bytes, which no column takes."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, float) and value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value
