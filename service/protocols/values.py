"""The one decoder of values: JSON values of a column become an array, or are refused with their place.

No number is silently cast: true is no number, "1.5" is no number, 1.5 is no integer,
and an integer that the column's type cannot hold exactly is refused. 1.0 is an integer:
JSON does not tell 1.0 from 1, and neither do the languages that write it.

Each decoder first looks at the set of value types, at C speed, and converts the column as
a whole. Only where something is unusual does it go value by value; there `_accept` is the
law, and the quick way accepts exactly what it accepts (a property test holds the two together).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRows, Problem, shorten
from service.core.signature import EXACT_INTEGERS, FLOATS, INTS, Column, Signature


class Absent:
    """Stands for a value that the request does not hold at all; unlike null, it has no text."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = Absent()

# JSON integers beyond 64 bits reach us as floats from the fast parser. Past this one a float
# may be such an integer, so the body is read again by a parser that keeps every digit.
EXACT_FLOATS: Final = math.nextafter(2.0**63, 0)


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

    def first(self) -> Problem:
        """The first by row, of those kept; there must be one."""
        return min(self._found, key=lambda item: item[0])[1]

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
    array = convert(values, column, kinds, exact)
    if array is not None and (not column.closed or set(values) - {None} <= column.known):
        return array

    accept = _accept_for(column)
    kept = []
    for row, value in enumerate(values):
        if type(value) is float and abs(value) > EXACT_FLOATS and not exact:
            raise NeedsExactParse
        ok, plain_value = accept(value)
        if not ok:
            problems.add(row, column.name, expected(column), shorten(value))
        kept.append(plain_value)
    if problems.count:
        return np.empty(0)
    array = convert(kept, column, set(map(type, kept)), True)
    assert array is not None, f"accepted values that do not convert: {column}"
    return array


def decode_few(
    columns: Sequence[Sequence[Any]], signature: Signature, *, exact: bool = False
) -> dict[str, NDArray[Any]] | None:
    """The arrays that `decode_column` makes of all columns; None where a value needs a closer look.

    Columns that are alike are converted together: of a few rows, each conversion takes as long as that of many.
    """
    names, found = signature.names, {}
    for column, places in signature.alike:
        values = [value for place in places for value in columns[place]]
        array = _CONVERT[column.dtype](values, column, set(map(type, values)), exact)
        if array is None or (column.closed and not set(values) - {None} <= column.known):
            return None
        for place, own in zip(places, array.reshape(len(places), -1), strict=True):
            found[names[place]] = own
    return {name: found[name] for name in names}


def decode_numbers(flat: list[Any], dtype: np.dtype[Any], *, nullable: bool, max_abs: float) -> NDArray[Any] | None:
    """A whole matrix of one kind at once, or None where a value needs a closer look.

    Floats larger than `max_abs` do: the estimator may not take them.
    """
    kinds = set(map(type, flat))
    if dtype.kind == "f":
        return _floats(flat, dtype, kinds, nullable, min(EXACT_FLOATS, _float_limit(dtype, max_abs)))
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
        limit = float_limit(column)
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
        limit = float_limit(column)

        def accept_float(value: Any) -> tuple[bool, Any]:
            if type(value) is float:
                return abs(value) <= limit, value
            if type(value) is int:
                fits = abs(value) <= limit and int(kind(value)) == value
                return fits, float(value) if fits else value
            return False, value

        return accept_float
    if column.dtype in INTS:
        low, high = int_limits(column)

        def accept_int(value: Any) -> tuple[bool, Any]:
            if type(value) is float and value.is_integer() and abs(value) <= EXACT_INTEGERS:
                value = int(value)
            return type(value) is int and low <= value <= high, value

        return accept_int
    if column.dtype == "bool":
        return lambda value: (type(value) is bool, value)
    if column.dtype == "datetime":
        return lambda value: accept_datetime(value, column)
    return lambda value: (type(value) is str, value)


def float_limit(column: Column) -> float:
    """The largest number that a float column takes; always finite."""
    return _float_limit(_DTYPE[column.dtype], column.max_abs)


@lru_cache(maxsize=16)
def exact_integers(dtype: np.dtype[Any]) -> float:
    """Every integer up to here is a number of the float `dtype`, and no other one rounds to it."""
    return float(2.0 ** (np.finfo(dtype).nmant + 1) - 1)


@lru_cache(maxsize=1024)
def _float_limit(dtype: np.dtype[Any], max_abs: float | None) -> float:
    top = float(np.finfo(dtype).max)
    return top if max_abs is None else min(top, max_abs)


def int_limits(column: Column) -> tuple[int, int]:
    """The least and the greatest number that an integer column takes."""
    info = np.iinfo(column.dtype)
    if not column.nullable:
        return int(info.min), int(info.max)
    # With missing values in it the column is float64, as pandas has it.
    return max(int(info.min), -EXACT_INTEGERS), min(int(info.max), EXACT_INTEGERS)


_DATETIME: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d(?::\d\d(?:\.(?P<fraction>\d{1,9}))?)?)(?P<offset>Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)?)?",
    re.ASCII,
)
_DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def accept_datetime(value: Any, column: Column) -> tuple[bool, Any]:
    """An ISO 8601 text as numpy.datetime64 in the column's unit, which must hold it exactly; with an offset, in UTC."""
    found = _DATETIME.fullmatch(value) if type(value) is str else None
    if found is None or (found["offset"] is not None) != (column.timezone is not None):
        return False, value
    unit = datetime_unit(column)
    if len((found["fraction"] or "").rstrip("0")) > _DIGITS[unit]:
        return False, value
    text, offset = f"{found['date']}T{found['time'] or '00:00'}", _offset(found["offset"])
    try:
        moment = np.datetime64(text, unit) - offset
    except (ValueError, OverflowError):  # no such day or time of day; beyond what the unit can count
        return False, value
    # numpy wraps silently where nanoseconds run out of 64 bits, in 1677 and 2262; seconds do not.
    # Nor does it mind the years 10000 and -1, which an offset may reach and no text of four digits can name.
    whole = str(np.datetime64(text, "s") - offset)
    fits = re.match(r"\d{4}-", whole) is not None and str(moment).startswith(whole)
    return fits, moment if fits else value


_NO_OFFSET: Final = np.timedelta64(0, "m")


def _offset(text: str | None) -> np.timedelta64:
    """How far a local time is ahead of UTC: `+05:30`, `Z`, or None for a time without an offset."""
    if text is None or text == "Z":
        return _NO_OFFSET
    minutes = int(text[1:3]) * 60 + int(text[4:])
    return np.timedelta64(-minutes if text[0] == "-" else minutes, "m")


def datetime_unit(column: Column) -> Literal["s", "ms", "us", "ns"]:
    """The unit of a pandas datetime dtype: `datetime64[us, UTC]` counts in "us"."""
    found = re.match(r"datetime64\[(s|ms|us|ns)\b", column.pandas or "")
    return cast('Literal["s", "ms", "us", "ns"]', found[1]) if found else "us"


# -- a column at once: the quick way, and the last step of the slow one --------------------------

_NUMBERS: Final = frozenset({float, int})
_NUMBERS_OR_NULL: Final = _NUMBERS | {type(None)}
_DTYPE: Final = {name: np.dtype(name) for name in FLOATS}


def _floats(
    values: Sequence[Any], dtype: np.dtype[Any], kinds: set[type], nullable: bool, limit: float
) -> NDArray[Any] | None:
    if not kinds <= (_NUMBERS_OR_NULL if nullable else _NUMBERS):
        return None
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer of more than 1024 bits
        return None
    if int in kinds:
        # Below these, integers are exact; from there on they are looked at one by one.
        limit = min(limit, exact_integers(dtype))
    # Asked of the float64, before it is rounded: a float32 may be within a limit that its number is not.
    if _is_beyond(values, array, kinds, limit):
        return None
    return array.astype(dtype, copy=False)


def _is_beyond(values: Sequence[Any], array: NDArray[np.float64], kinds: set[type], limit: float) -> bool:
    """Whether a number is larger than `limit`. A few are compared faster one by one than by numpy."""
    if values and len(values) <= 64 and type(None) not in kinds:
        return bool(max(values) > limit or min(values) < -limit)
    return bool((np.abs(array) > limit).any())


def _ints(values: Sequence[Any], dtype: np.dtype[Any], kinds: set[type]) -> NDArray[Any] | None:
    if kinds != {int}:
        return None
    try:
        return np.array(values, dtype=dtype)
    except OverflowError:
        return None


def _convert_floats(values: Sequence[Any], column: Column, kinds: set[type], exact: bool) -> NDArray[Any] | None:
    limit = float_limit(column) if exact else min(float_limit(column), EXACT_FLOATS)
    return _floats(values, _DTYPE[column.dtype], kinds, column.nullable, limit)


def _convert_ints(values: Sequence[Any], column: Column, kinds: set[type], exact: bool) -> NDArray[Any] | None:
    dtype = np.dtype(column.dtype)
    if not column.nullable:
        return _ints(values, dtype, kinds)
    if kinds == {int, type(None)} or kinds == {type(None)}:
        array = _floats(values, np.dtype(np.float64), kinds, True, EXACT_INTEGERS)
    else:
        array = _ints(values, dtype, kinds)
    low, high = int_limits(column)
    return None if array is None or bool(((array < low) | (array > high)).any()) else array


def _convert_bools(values: Sequence[Any], column: Column, kinds: set[type], exact: bool) -> NDArray[Any] | None:
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    return _objects(values) if column.nullable and kinds <= {bool, type(None)} else None


def _convert_strings(values: Sequence[Any], column: Column, kinds: set[type], exact: bool) -> NDArray[Any] | None:
    return _objects(values) if kinds <= ({str, type(None)} if column.nullable else {str}) else None


def _convert_datetimes(values: Sequence[Any], column: Column, kinds: set[type], exact: bool) -> NDArray[Any] | None:
    if not kinds <= ({np.datetime64, type(None)} if column.nullable else {np.datetime64}):
        return None
    return np.array(
        [np.datetime64("NaT", datetime_unit(column)) if value is None else value for value in values],
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
