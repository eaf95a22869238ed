"""Numbers and labels as JSON can carry them, without losing one.

JSON has no NaN and no infinity: they become null, and their places are returned beside,
so that a reply can say what each null was.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.core.table import SparseRows, Values

# Where a null stands for a number JSON lacks: indices into the value, then what it was.
Path: TypeAlias = tuple[int | str, ...]
NonFinite: TypeAlias = list[tuple[Path, str]]

# Up to so many numbers are written faster as Python's own: numpy's functions take microseconds each to begin.
FEW: Final = 64

_NAMES: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def plain(values: Values) -> tuple[Any, NonFinite]:
    """`values` as something orjson writes exactly, and the places of NaN and infinity in it.

    Arrays of numbers stay arrays, but for FEW (float32 widens to float64, so that the decimal
    text is that very number); sparse rows become {"shape", "indptr", "indices", "data"}; the
    arrays of several targets become one list per row.

    Raises:
        TypeError: an object in it has no JSON form.
    """
    if isinstance(values, SparseRows):
        data, lost = plain(values.data)
        rows = len(values.indptr) - 1
        sparse = {
            "shape": [rows, values.width],
            "indptr": values.indptr,
            "indices": values.indices,
            "data": data,
        }
        return sparse, [(("data", *path), name) for path, name in lost]
    if isinstance(values, list):
        parts = [plain(target) for target in values]
        by_row = [list(row) for row in zip(*(part for part, _ in parts), strict=True)]
        lost = [((path[0], target, *path[1:]), name) for target, (_, ways) in enumerate(parts) for path, name in ways]
        return by_row, sorted(lost, key=lambda item: item[0][0])
    return _plain_array(values)


def _plain_array(array: NDArray[Any]) -> tuple[Any, NonFinite]:
    kind = array.dtype.kind
    if kind == "f":
        if array.size <= FEW and math.isfinite(sum(array.ravel().tolist())):
            return array.tolist(), []
        lost = [] if np.isfinite(array).all() else _lost(array)
        return np.ascontiguousarray(array, dtype=np.float64), lost
    if kind in "iub":
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")), []
    if kind == "U":
        return array.tolist(), []
    nested = _nested(array)
    return nested, _lost(array) if kind == "O" else []


def _nested(array: NDArray[Any]) -> list[Any]:
    if array.ndim > 1:
        return [_nested(part) for part in array]
    return [plain_label(label) for label in array]


def _lost(array: NDArray[Any]) -> NonFinite:
    return [
        ((*(int(i) for i in index), *path), name)
        for index, value in np.ndenumerate(array)
        for path, name in _lost_in(value)
    ]


def _lost_in(cell: Any) -> NonFinite:
    """The places within one cell: a number, or a list that an object array holds."""
    if isinstance(cell, float | np.floating):
        return [] if math.isfinite(cell) else [((), _NAMES.get(float(cell), "NaN"))]
    if isinstance(cell, list | tuple):
        return [((i, *path), name) for i, item in enumerate(cell) for path, name in _lost_in(item)]
    return []


def plain_label(label: Any) -> Any:
    """One label, category or cell. Bytes become {"b64": ...}, dates ISO 8601, NaN and NaT null.

    Raises:
        TypeError: it has no JSON form.
    """
    match label:
        case None | bool() | str() | int():
            return str(label) if isinstance(label, str) else label
        case np.datetime64() | np.timedelta64():
            return None if np.isnat(label) else str(label)
        case float() | np.floating():
            return float(label) if math.isfinite(label) else None
        case bytes():
            return {"b64": base64.b64encode(label).decode()}
        case np.generic():
            return plain_label(label.item())
        case dt.date():  # datetime and pandas.Timestamp among them
            # NaT is a datetime that is not equal to itself.
            return label.isoformat() if label == label else None
        case list() | tuple():
            return [plain_label(item) for item in label]
        case _:
            if type(label).__name__ == "NAType":  # pandas.NA, without importing pandas
                return None
            raise TypeError(f"{type(label).__name__} has no JSON form")
