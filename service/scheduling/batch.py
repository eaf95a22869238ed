"""Requests as one table, and its answers cut apart again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from sys import getsizeof
from typing import cast

import numpy as np

from service.core.errors import ModelFailed
from service.core.messages import InferRequest
from service.core.table import Frame, Matrix, Table, Values
from service.scheduling.answers import count, parted


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Request i owns the rows from offsets[i] up to offsets[i + 1]."""

    rows: Table
    offsets: tuple[int, ...]

    def split(self, outputs: Mapping[str, Values]) -> list[dict[str, Values]]:
        """Each request's own answers, as views.

        Raises:
            ModelFailed: another number of rows than was asked. One off, and everybody gets another's answer.
        """
        ends = self.offsets
        if any(count(values) != ends[-1] for values in outputs.values()):
            raise ModelFailed
        parts = [parted(values, ends) for values in outputs.values()]
        return [dict(zip(outputs, own, strict=True)) for own in zip(*parts, strict=True)]


def kind(rows: Table) -> Hashable:
    """Rows of one kind can be stacked without changing any: the dtypes of all columns are equal.

    They may differ within a model: a column of integers is float64 where one is missing, one of truth values
    holds objects then.
    """
    if isinstance(rows, Matrix):
        return rows.values.dtype, rows.values.shape[1]
    return tuple((name, values.dtype) for name, values in rows.columns.items())


def merge(requests: Sequence[InferRequest]) -> Batch:
    """Stack the rows of requests of one kind and with the same outputs, so that the engine is called once.

    The rows of several requests are copied, so that theirs stay as they are, whatever the engine does.
    """
    offsets = tuple(accumulate((request.rows.n_rows for request in requests), initial=0))
    first = requests[0].rows
    if len(requests) == 1:
        return Batch(first, offsets)
    if isinstance(first, Matrix):
        matrices = [cast(Matrix, request.rows).values for request in requests]
        return Batch(Matrix(np.concatenate(matrices)), offsets)
    frames = [cast(Frame, request.rows).columns for request in requests]
    return Batch(Frame({name: np.concatenate([frame[name] for frame in frames]) for name in first.columns}), offsets)


def size_bytes(rows: Table) -> int:
    """What waiting rows hold in memory: of objects, their own size too, shared or not."""
    if isinstance(rows, Matrix):
        return rows.values.nbytes
    size = 0
    for values in rows.columns.values():
        size += values.nbytes
        if values.dtype.kind == "O":
            size += sum(map(getsizeof, values.tolist()))
    return size
