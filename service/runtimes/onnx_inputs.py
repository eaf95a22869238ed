"""From a table to what an ONNX graph is fed: a matrix of doubles, and codes of categories.

A code is the place of a value among those that the export listed, counted on from `first`, or that of
"missing" or "unseen"; -1 says that the estimator has to answer such a row itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import EXACT_INTEGERS, Column, Signature
from service.core.table import Matrix, Table

Feed = dict[str, NDArray[Any]]
Rows = NDArray[np.bool_]
# A feed, and the rows that hold what the graph cannot, if any.
Feeder = Callable[[Table], tuple[Feed, Rows | None]]

NUMBERS: Final = "numbers"
CODES: Final = "codes"


def feeder(inputs: set[str], signature: Signature, options: Mapping[str, Any]) -> Feeder:
    """The function that feeds a graph with these inputs."""
    places = {name: index for index, name in enumerate(signature.names)}
    columns = [_Codes(entry, places[entry["column"]]) for entry in options["codes"]] if CODES in inputs else []
    numbers: Sequence[str] = options.get("numbers", signature.names) if NUMBERS in inputs else ()
    limit = options.get("limit", math.inf)
    limits = np.array([_limit(signature.columns[places[name]], limit) for name in numbers], dtype=np.float64)
    # While the sum of squares is below that of the least limit, no number is above its own.
    enough = float(limits.min(initial=math.inf)) ** 2
    may_fail = any(column.may_fail for column in columns)

    def feed(table: Table) -> tuple[Feed, Rows | None]:
        found: Feed = {}
        bad: Rows | None = None
        if numbers:
            found[NUMBERS] = values = _numbers(table, numbers)
            if enough != math.inf:
                flat = values.ravel()
                with np.errstate(over="ignore"):
                    squares = np.dot(flat, flat)
                # Not "greater": the sum is NaN where something is missing.
                if not squares < enough:
                    bad = _rows(np.abs(values) > limits, axis=1)
        if columns:
            listed: list[int] = []
            for column in columns:
                listed += column.of(table)
            found[CODES] = codes = np.array(listed, dtype=np.int64).reshape(len(columns), -1)
            if may_fail and codes.min(initial=0) < 0:
                strange = _rows(codes < 0, axis=0)
                bad = strange if bad is None or strange is None else bad | strange
                np.maximum(codes, 0, out=codes)
        return found, bad

    return feed


def _limit(column: Column, limit: float) -> float:
    """The largest number of a column that the graph can hold."""
    return min(limit, EXACT_INTEGERS) if column.dtype in ("int64", "uint64") else limit


def _rows(where: Any, axis: int) -> Rows | None:
    """The rows where something is true, if there are any."""
    found: Rows = np.logical_or.reduce(where, axis=axis)
    return found if found.any() else None


class _Codes:
    """The codes of one column."""

    def __init__(self, entry: Mapping[str, Any], place: int) -> None:
        self._name: str = entry["column"]
        self._place = place
        self._missing: int = entry["missing"]
        self._unseen: int = entry["unseen"]
        self._known = {value: code for code, value in enumerate(entry["values"], entry["first"])}
        self._known[None] = self._missing
        self.may_fail = min(self._missing, self._unseen) < 0

    def of(self, table: Table) -> list[int]:
        values = table.values[:, self._place] if isinstance(table, Matrix) else table.columns[self._name]
        known, unseen = self._known.get, self._unseen
        codes = [known(value, unseen) for value in values.tolist()]
        if values.dtype.kind == "f" and (holes := np.flatnonzero(np.isnan(values))).size:
            for row in holes.tolist():
                codes[row] = self._missing
        return codes


def _numbers(table: Table, names: Sequence[str]) -> NDArray[np.float64]:
    """The columns side by side, row by row in memory. None among truths becomes NaN."""
    if isinstance(table, Matrix):
        return np.ascontiguousarray(table.values, dtype=np.float64)
    columns = table.columns
    # Of one row, this is done after the first copy.
    whole = np.concatenate([columns[name] for name in names]).reshape(len(names), -1)
    return np.ascontiguousarray(whole.T, dtype=np.float64)
