"""Values of one column on which engines are likely to differ from the estimator, by kind.

Only what the signature accepts and JSON carries; and nothing far from what the sample holds, so that
an engine is judged by requests that people send.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import FLOATS, INTS, Column
from service.core.table import missing

# Columns with more categories than this show only some of them.
CATEGORIES: Final = 12
# A category that no training set has.
UNSEEN: Final = "no such category"
# Beside each other: nothing, blanks, case, signs, marks in one and two code points, ligatures, letters that
# change length with case, other scripts, an emoji of four code points, digits, and what ends a string in C.
TEXTS: Final = (
    "",
    " ",
    "\t\n",
    "ÄÖÜ STRASSE straße",
    "e\u0301 \u00e9 \ufb01n \u0130I \u017f",
    "don't—stop… it's 50% & co., a_b c-d",
    "日本語のテキスト",
    "👩\u200d👩\u200d👧 ok",
    "12 3.5 1e9 x2",
    "a a a a the THE The",
    "nul\x00inside",
)


def hard_values(column: Column, values: NDArray[Any]) -> dict[str, list[Any]]:
    """Values to try in `column`, by kind; `values` are those of the sample. None is a missing value."""
    known = values[~missing(values)]
    found: dict[str, list[Any]] = {"missing": [None] if column.nullable else []}
    if column.categories:
        found["categories"] = column.categories[:CATEGORIES]
        if not column.closed and column.pandas != "category":
            found["unseen"] = list(_unseen(column))
    elif column.dtype in FLOATS:
        found["extremes"], found["precision"] = list(_extremes(known)), list(_precision(known))
    elif column.dtype in INTS:
        found["extremes"], found["precision"] = list(_integers(column, known)), list(_large_integers(column, known))
    elif column.dtype == "bool":
        found["categories"] = [True, False]
    elif column.dtype == "string":
        found["texts"] = [*_texts(known), *TEXTS]
    elif column.dtype == "datetime":
        found["extremes"] = list(_datetimes(known))
    return {kind: [value for value in some if accepts(column, value)] for kind, some in found.items()}


def accepts(column: Column, value: Any) -> bool:
    """Whether a request may carry it, as far as one number tells."""
    if value is None:
        return column.nullable
    if column.dtype in INTS:
        limits = np.iinfo(column.dtype)
        return isinstance(value, int) and limits.min <= value <= limits.max
    if column.dtype in FLOATS:
        fits = abs(value) <= min(float(np.finfo(column.dtype).max), column.max_abs or sys.float_info.max)
        return bool(np.isfinite(value)) and fits
    return True


def _unseen(column: Column) -> Iterator[Any]:
    if column.dtype == "string":
        yield from (UNSEEN, "", column.categories[0].upper(), f"{column.categories[0]} ") if column.categories else ()
    elif column.dtype != "bool":
        yield max(column.known) + 1


def _extremes(known: NDArray[Any]) -> Iterator[float]:
    """The ends of the sample and a little beyond, both zeros, and numbers next to zero."""
    finite = known[np.isfinite(known)].astype(np.float64)
    if finite.size:
        low, high = float(finite.min()), float(finite.max())
        span = high - low or abs(high) or 1.0
        yield from (low, high, low - span, high + span, high + 3 * span, 0.0, -0.0, span * 1e-12, -span * 1e-12)


def _precision(known: NDArray[Any]) -> Iterator[float]:
    """Numbers of the sample's size that single precision rounds, and one that it rounds to a half."""
    finite = known[np.isfinite(known)].astype(np.float64)
    if not finite.size:
        return
    low, high = float(finite.min()), float(finite.max())
    middle = float(np.median(finite))
    yield middle * (1 + 2.0**-40)
    yield high * (1 - 2.0**-30)
    for value in (0.1, 1 / 3, 1 + 2.0**-40, 2.0**24 + 1, 2.0**53 - 1):
        if 2 * low - high <= value <= 2 * high - low:
            yield value


def _integers(column: Column, known: NDArray[Any]) -> Iterator[int]:
    if known.size:
        low, high = int(known.min()), int(known.max())
        yield from (low, high, low - 1, high + 1, 2 * high - low + 1, 0)


def _large_integers(column: Column, known: NDArray[Any]) -> Iterator[int]:
    """Where float32 and float64 begin to lose integers, if the sample goes about that far."""
    if known.size:
        reach = 4 * max(abs(int(known.min())), abs(int(known.max())))
        yield from (value for value in (2**24 + 1, -(2**24) - 1, 2**53 - 1, 2**53 + 1) if abs(value) <= reach)


def _texts(known: NDArray[Any]) -> Iterator[str]:
    """A text of the sample, changed as people change texts."""
    texts = [text for text in known.tolist() if isinstance(text, str) and text]
    if texts:
        text = max(texts[:50], key=len)
        yield from (text.upper(), f" {text}  {text} ", text[: len(text) // 2], f"{text}!?", text.replace(" ", "\n"))


def _datetimes(known: NDArray[Any]) -> Iterator[Any]:
    if known.size:
        low, high, day = known.min(), known.max(), np.timedelta64(1, "D")
        yield from (low, high, low - day, high + day, np.array("1970-01-01", dtype=known.dtype)[()])
        # Below a second and at the end of a leap day, where calendars and clocks go wrong.
        yield np.array("2024-02-29T23:59:59.999", dtype=known.dtype)[()]
