"""The decoder of values that come as arrays: binary tensors, Arrow, npy. It keeps the law of `values.py`.

An array is accepted exactly where the list of its values would be, with NaN, NaT and what is masked for null; a
property test holds the two together. Numbers go from one array to the other as a whole; what is unusual goes value
by value through `decode_column`, which finds the words for what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRequest
from service.core.signature import EXACT_INTEGERS, FLOATS, INTS, Column, Signature
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

    Arrays of objects hold what JSON would: None, bool, int, float, str. Of a numpy.ma.MaskedArray, what is
    masked is missing, so that integers beside it keep their digits.

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
    """Numbers, truths and moments as a whole, or None where something is to be looked at value by value."""
    if (mask := _mask(values)) is not None:
        return _with_holes(values, mask, column)
    if column.dtype in FLOATS:
        return _numbers(values, np.dtype(column.dtype), nullable=column.nullable, limit=float_limit(column))
    if column.dtype in INTS and values.dtype.kind in "iu":
        low, high = int_limits(column)
        if values.size == 0 or (int(values.min()) >= low and int(values.max()) <= high):
            return values.astype(column.dtype, copy=False)
    if column.dtype in INTS and values.dtype.kind == "f":
        return _integers(values, column)
    if column.dtype == "bool" and values.dtype.kind == "b":
        return values.astype(bool, copy=False)
    if column.dtype == "datetime" and values.dtype.kind == "M":
        return _moments(values, datetime_unit(column), nullable=column.nullable)
    return None


def _mask(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """What is masked of a masked array; None of any other. numpy.ma is not imported to find out."""
    return None if type(values) is np.ndarray else getattr(values, "mask", None)


def _with_holes(values: NDArray[Any], mask: NDArray[np.bool_], column: Column) -> NDArray[Any] | None:
    """A masked array as `core.table.Frame` has columns with missing values."""
    if not column.nullable and mask.any():
        return None
    # What stands under the mask means nothing, and must not decide anything.
    filled = np.where(mask, np.zeros((), values.dtype), np.asarray(values))
    found = _quickly(filled, column)
    if found is None or not mask.any():
        return found
    if column.dtype == "bool":
        found = found.astype(object)
        found[mask] = None
    else:
        found = found.astype(found.dtype if found.dtype.kind in "fM" else np.float64)
        found[mask] = np.nan if found.dtype.kind == "f" else np.datetime64("NaT")
    return found


def _integers(values: NDArray[np.floating[Any]], column: Column) -> NDArray[Any] | None:
    """Floats that are whole numbers, as a column of integers: float64 where one is missing, as pandas has it."""
    holes = np.isnan(values)
    present = values[~holes]
    if present.size < values.size and not column.nullable:
        return None
    low, high = int_limits(column)
    if present.size:
        least, greatest = float(present.min()), float(present.max())
        if least < max(low, -EXACT_INTEGERS) or greatest > min(high, EXACT_INTEGERS):
            return None
        if not np.array_equal(np.trunc(present), present):
            return None
    if present.size == values.size:
        return values.astype(column.dtype)
    return values.astype(np.float64) + 0.0  # there is no negative zero among integers


_STEP_NS: Final = {
    "D": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "ns": 1,
}  # fmt: skip
# Those that moments may be counted in.
MOMENT_UNITS: Final = frozenset(_STEP_NS)
# The years that a text of four digits can name, 0000 up to 9999, in nanoseconds since 1970.
_FIRST_NS: Final = -719_528 * _STEP_NS["D"]
_AFTER_LAST_NS: Final = 2_932_897 * _STEP_NS["D"]


def _moments(values: NDArray[np.datetime64], unit: str, *, nullable: bool) -> NDArray[Any] | None:
    """`values` counted in `unit`, where that holds every one of them exactly, else None."""
    own, count = np.datetime_data(values.dtype)
    holes = np.isnat(values)
    if own not in _STEP_NS or (holes.any() and not nullable):
        return None
    present = values[~holes].astype(np.int64)
    if present.size:
        step = _STEP_NS[own] * count
        # The greatest number is as far from zero as the least that is not NaT; beyond them numpy wraps in silence.
        reach = np.iinfo(np.int64).max * _STEP_NS[unit]
        if int(present.min()) * step < max(_FIRST_NS, -reach):
            return None
        if int(present.max()) * step >= min(_AFTER_LAST_NS, reach):
            return None
    found = values.astype(f"datetime64[{unit}]")
    return found if np.array_equal(found.astype(values.dtype), values, equal_nan=True) else None


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
    """The values as JSON would have brought them, with None for NaN, NaT and what is masked."""
    if (mask := _mask(values)) is not None:
        beneath = _listed(np.asarray(values), column)
        return [None if hole else value for value, hole in zip(beneath, mask, strict=True)]
    if values.dtype.kind == "M":
        if column.dtype != "datetime":
            return [None if text == "NaT" else text for text in np.datetime_as_string(values).tolist()]
        offset = "Z" if column.timezone else ""
        # A day has no time, which an offset needs beside it, and an hour no minutes.
        is_coarse = np.datetime_data(values.dtype)[0] in ("D", "h", "m")
        texts = np.datetime_as_string(values, unit="s" if is_coarse else None)
        return [None if text == "NaT" else f"{text}{offset}" for text in texts.tolist()]
    listed: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        return [None if value != value else value for value in listed]
    if values.dtype.kind in "OSU":
        return [_plain(value) for value in listed]
    return listed


_NATIVE: Final = {np.dtype(name): np.dtype(name) for name in FLOATS}


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
