"""The one decoder of values: JSON values of a column become an array, or are refused with their place.

No number is silently cast: true is no number, "1.5" is no number, 1.5 is no integer,
and an integer that the column's type cannot hold exactly is refused. 1.0 is an integer:
JSON does not tell 1.0 from 1, and neither do the languages that write it.

Each decoder first looks at the set of value types, at C speed, and converts the column as
a whole. Only where something is unusual does it go value by value; there `_accept` is the
law, and the quick way accepts exactly what it accepts (a property test holds the two together).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRows, Problem, shorten
from service.core.signature import FLOATS, INTS, Column


class Absent:
    """Stands for a value that the request does not hold at all; unlike null, it has no text."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = Absent()

# JSON integers beyond 64 bits reach us as floats from the fast parser. From here on a float
# may be such an integer, so the body is read again by a parser that keeps every digit.
INEXACT_FROM: Final = 2.0**63
# Every integer up to here is a float64, and every float64 from here is an integer.
EXACT_INTEGERS: Final = 2**53


class NeedsExactParse(Exception):
    """A number may have lost digits on the way here. Read the body again, with `exact`."""


class Problems:
    """Collects what is wrong with the rows; raised together, so that a caller mends all at once."""

    SHOWN: Final = 20
    KEPT: Final = 1000

    def __init__(self) -> None:
        self._found: list[tuple[int, Problem]] = []
        self.count = 0

    def add(self, row: int | None, column: str | None, expected: str, got: str) -> None:
        self.count += 1
        if len(self._found) < self.KEPT:
            self._found.append((-1 if row is None else row, Problem(row, column, expected, got)))

    def raise_if_any(self) -> None:
        """Raises InvalidRows with the first problems, by row."""
        if self._found:
            ordered = sorted(self._found, key=lambda item: item[0])
            raise InvalidRows([problem for _, problem in ordered[: self.SHOWN]], self.count)


def decode_column(values: Sequence[Any], column: Column, problems: Problems, *, exact: bool = False) -> NDArray[Any]:
    """`values` (any of ABSENT, None, bool, int, float, str, list, dict) as an array of shape (n,).

    The kinds of array are those of `core.table.Frame`. What is wrong is added to `problems`,
    and then the array is worthless. `exact` says that integers beyond 64 bits are still integers.

    Raises:
        NeedsExactParse: not `exact`, and a float may be an integer that lost digits.
    """
    kinds = set(map(type, values))
    convert = _CONVERT[column.dtype]
    array = convert(values, column, kinds)
    if array is not None and array.dtype.kind == "f" and not exact:
        _refuse_inexact(array)
    if array is not None and _within(values, array, column):
        return array

    accept = _accept_for(column)
    kept = []
    for row, value in enumerate(values):
        if type(value) is float and not exact:
            _refuse_inexact(value)
        ok, plain_value = accept(value)
        if not ok:
            problems.add(row, column.name, expected(column), shorten(value))
        kept.append(plain_value)
    if problems.count:
        return np.empty(0)
    array = convert(kept, column, set(map(type, kept)))
    assert array is not None, f"accepted values that do not convert: {column}"
    return array


def _refuse_inexact(numbers: Any) -> None:
    if bool((np.abs(numbers) >= INEXACT_FROM).any()):
        raise NeedsExactParse


def _within(values: Sequence[Any], array: NDArray[Any], column: Column) -> bool:
    """Whether a converted column also keeps to the limits that the estimator was seen to have."""
    if column.closed and not set(values) - {None} <= column.known:
        return False
    return column.max_abs is None or not bool((np.abs(array) > column.max_abs).any())


def decode_numbers(flat: list[Any], dtype: np.dtype[Any], *, nullable: bool, below: float) -> NDArray[Any] | None:
    """A whole matrix of one kind at once, or None where a value needs a closer look.

    Floats of size `below` or more do: the estimator may not take them.
    """
    kinds = set(map(type, flat))
    if dtype.kind == "f":
        array = _floats(flat, dtype, kinds, nullable)
        if array is not None and bool((np.abs(array) >= min(below, INEXACT_FROM)).any()):
            return None
        return array
    if dtype.kind == "b":
        return np.array(flat, dtype=bool) if kinds == {bool} else None
    return _ints(flat, dtype, kinds)


def expected(column: Column) -> str:
    """What a caller may send for `column`, in a few words."""
    if column.closed and column.categories is not None:
        shown = ", ".join(shorten(c, 30) for c in column.categories[:5])
        more = f" … ({len(column.categories)} in all)" if len(column.categories) > 5 else ""
        text = f"one of {shown}{more}"
    elif column.dtype in FLOATS:
        limit = _float_limit(column)
        text = "a number" if limit == np.finfo(np.float64).max else f"a number of at most {limit:.9g} in size"
        text = f"{text} ({column.dtype})"
    elif column.dtype in INTS:
        text = f"an integer ({column.dtype})"
    elif column.dtype == "bool":
        text = "true or false"
    elif column.dtype == "datetime":
        text = f"an ISO 8601 date and time {'with' if column.timezone else 'without'} an offset"
    else:
        text = "a string"
    return f"{text} or null" if column.nullable else text


# -- value by value: the law ---------------------------------------------------------------------

Accept = Callable[[Any], tuple[bool, Any]]


def _accept_for(column: Column) -> Accept:
    """Says of one value whether `column` takes it, and the value as the conversion wants it."""
    accept_kind = _accept_kind(column)

    def accept(value: Any) -> tuple[bool, Any]:
        if value is None or value is ABSENT:
            return column.nullable, None
        ok, kept = accept_kind(value)
        return ok and (not column.closed or kept in column.known), kept

    return accept


def _accept_kind(column: Column) -> Accept:
    if column.dtype in FLOATS:
        kind = np.dtype(column.dtype).type
        limit = _float_limit(column)

        def accept_float(value: Any) -> tuple[bool, Any]:
            if type(value) is float:
                return abs(value) <= limit, value
            if type(value) is int:
                fits = abs(value) <= limit and int(kind(value)) == value
                return fits, float(value) if fits else value
            return False, value

        return accept_float
    if column.dtype in INTS:
        info = np.iinfo(column.dtype)

        def accept_int(value: Any) -> tuple[bool, Any]:
            if type(value) is float and value.is_integer() and abs(value) <= EXACT_INTEGERS:
                value = int(value)
            if type(value) is not int or not info.min <= value <= info.max:
                return False, value
            # With missing values in it the column is float64, as pandas has it.
            return not column.nullable or abs(value) <= EXACT_INTEGERS, value

        return accept_int
    if column.dtype == "bool":
        return lambda value: (type(value) is bool, value)
    if column.dtype == "datetime":
        return lambda value: accept_datetime(value, column)
    return lambda value: (type(value) is str, value)


def _float_limit(column: Column) -> float:
    top = float(np.finfo(column.dtype).max)
    return top if column.max_abs is None else min(top, column.max_abs)


_DATETIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


def accept_datetime(value: Any, column: Column) -> tuple[bool, Any]:
    """An ISO 8601 text as numpy.datetime64 in the column's unit; with an offset, in UTC."""
    found = _DATETIME.fullmatch(value) if type(value) is str else None
    if found is None or (found[3] is not None) != (column.timezone is not None):
        return False, value
    unit = datetime_unit(column)
    try:
        whole = np.datetime64(f"{found[1]}T{found[2] or '00:00'}", "ns" if unit == "ns" else "us")
        # numpy wraps silently where nanoseconds run out of 64 bits, in 1677 and 2262.
        if unit == "ns" and str(whole)[:10] != found[1]:
            return False, value
        if found[3] not in (None, "Z"):
            hours, minutes = int(found[3][1:3]), int(found[3][4:])
            offset = np.timedelta64(hours * 60 + minutes, "m")
            whole = whole - offset if found[3][0] == "+" else whole + offset
        return True, whole.astype(f"datetime64[{unit}]")
    except ValueError:
        return False, value


def datetime_unit(column: Column) -> str:
    """The unit of a pandas datetime dtype: `datetime64[us, UTC]` counts in "us"."""
    found = re.match(r"datetime64\[(\w+)", column.pandas or "")
    return found[1] if found else "us"


# -- a column at once: the quick way, and the last step of the slow one --------------------------


def _floats(values: Sequence[Any], dtype: np.dtype[Any], kinds: set[type], nullable: bool) -> NDArray[Any] | None:
    if not kinds <= ({float, int, type(None)} if nullable else {float, int}):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer of more than 1024 bits
        return None
    if int in kinds:
        # Integers up to 2^mantissa are exact; what is larger is looked at one by one.
        exact_to = 2.0 ** (np.finfo(dtype).nmant + 1)
        if bool((np.abs(array) > exact_to).any()):
            return None
    if dtype != np.float64:
        if bool((np.abs(array) > np.finfo(dtype).max).any()):
            return None
        array = array.astype(dtype)
    elif bool(np.isinf(array).any()):
        return None
    return array


def _ints(values: Sequence[Any], dtype: np.dtype[Any], kinds: set[type]) -> NDArray[Any] | None:
    if kinds != {int}:
        return None
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        return None


def _convert_floats(values: Sequence[Any], column: Column, kinds: set[type]) -> NDArray[Any] | None:
    return _floats(values, np.dtype(column.dtype), kinds, column.nullable)


def _convert_ints(values: Sequence[Any], column: Column, kinds: set[type]) -> NDArray[Any] | None:
    if column.nullable:
        if kinds == {int, type(None)} or kinds == {type(None)}:
            return _floats(values, np.dtype(np.float64), kinds, True)
        array = _ints(values, np.dtype(column.dtype), kinds)
        return None if array is None or bool((np.abs(array) > EXACT_INTEGERS).any()) else array
    return _ints(values, np.dtype(column.dtype), kinds)


def _convert_bools(values: Sequence[Any], column: Column, kinds: set[type]) -> NDArray[Any] | None:
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    return _objects(values) if column.nullable and kinds <= {bool, type(None)} else None


def _convert_strings(values: Sequence[Any], column: Column, kinds: set[type]) -> NDArray[Any] | None:
    return _objects(values) if kinds <= ({str, type(None)} if column.nullable else {str}) else None


def _convert_datetimes(values: Sequence[Any], column: Column, kinds: set[type]) -> NDArray[Any] | None:
    if not kinds <= {np.datetime64, type(None)}:
        return None
    return np.array(
        [np.datetime64("NaT") if value is None else value for value in values],
        dtype=f"datetime64[{datetime_unit(column)}]",
    )


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_CONVERT: Final = (
    dict.fromkeys(FLOATS, _convert_floats)
    | dict.fromkeys(INTS, _convert_ints)
    | {"bool": _convert_bools, "string": _convert_strings, "datetime": _convert_datetimes}
)
