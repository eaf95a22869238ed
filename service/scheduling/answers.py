"""Rows of answers: cut apart for those who asked together, put together from those who answered apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.core.table import SparseRows, Values


def count(values: Values) -> int:
    """How many rows they hold; -1 for a scalar."""
    if isinstance(values, SparseRows):
        return len(values.indptr) - 1
    array = values[0] if isinstance(values, list) else values
    return array.shape[0] if array.ndim else -1


def parted(values: Values, ends: Sequence[int]) -> list[Values]:
    """The rows between each two of `ends`, as views."""
    if isinstance(values, SparseRows):
        return [_between(values, start, end) for start, end in pairwise(ends)]
    if isinstance(values, list):
        return [list(own) for own in zip(*(parted(target, ends) for target in values), strict=True)]
    return [values[start:end] for start, end in pairwise(ends)]


def taken(values: Values, rows: NDArray[np.integer[Any]]) -> Values:
    """The rows of these indices, in this order."""
    if isinstance(values, SparseRows):
        lengths = np.diff(values.indptr)[rows]
        indptr = np.zeros(len(rows) + 1, dtype=values.indptr.dtype)
        np.cumsum(lengths, out=indptr[1:])
        # Each row's entries lie in one piece: where it begins there, counted on from where it begins here.
        entries = np.repeat(values.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return SparseRows(values.width, indptr, values.indices[entries], values.data[entries])
    if isinstance(values, list):
        return [target[rows] for target in values]
    taken_rows: NDArray[Any] = values[rows]
    return taken_rows


def stacked(parts: Sequence[Values]) -> Values:
    """The rows of all parts, one part after another. They answer one output, so they are of one form."""
    first = parts[0]
    if isinstance(first, SparseRows):
        sparse = cast(Sequence[SparseRows], parts)
        ends = np.cumsum([0, *(part.indptr[-1] for part in sparse)])
        indptr = [first.indptr[:1], *(part.indptr[1:] + end for part, end in zip(sparse, ends, strict=False))]
        return SparseRows(
            first.width,
            np.concatenate(indptr).astype(first.indptr.dtype, copy=False),
            np.concatenate([part.indices for part in sparse]),
            np.concatenate([part.data for part in sparse]),
        )
    if isinstance(first, list):
        targets = zip(*cast(Sequence[list[NDArray[Any]]], parts), strict=True)
        return [np.concatenate(target) for target in targets]
    return np.concatenate(cast(Sequence[NDArray[Any]], parts))


def woven(parts: Sequence[tuple[NDArray[np.integer[Any]], Mapping[str, Values]]]) -> dict[str, Values]:
    """Answers to all rows, of answers to some each: `parts` are (indices of the rows, their answers).

    Every index from 0 on is in exactly one part; all parts hold the same outputs.
    """
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return {name: taken(stacked([answers[name] for _, answers in parts]), order) for name in parts[0][1]}


def _between(values: SparseRows, start: int, end: int) -> SparseRows:
    low, high = values.indptr[start], values.indptr[end]
    indptr = values.indptr[start : end + 1] - low
    return SparseRows(values.width, indptr, values.indices[low:high], values.data[low:high])
