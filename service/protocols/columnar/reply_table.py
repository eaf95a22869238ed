"""An answer as a table, as a data frame of it would be: which column is called what, and what it holds.

`predict` is one column. What runs over classes is a column per class, `predict_proba_<class>`; over features, a
column per feature, `transform_<feature>`; over neither, a column per number. Of several targets, each comes by its
number: `predict_0`, and `predict_proba_0_<class>`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from service.core.messages import InferReply
from service.core.signature import Output
from service.core.table import SparseRows, Values
from service.protocols.v2.tables import dense


def table_of(reply: InferReply) -> dict[str, NDArray[Any]]:
    """One array of shape (rows,) per column, in the order of the outputs. Sparse rows are spread out.

    Raises:
        InvalidRequest: spread out, sparse rows would be too large.
    """
    table: dict[str, NDArray[Any]] = {}
    for name, values in reply.outputs.items():
        output = reply.signature.output(name)
        if isinstance(values, list):
            for target, part in enumerate(values):
                classes = (output.classes or [])[target : target + 1]
                table |= _columns(f"{name}_{target}", part, classes[0] if classes else None)
        else:
            table |= _columns(name, dense(values) if isinstance(values, SparseRows) else values, _labels(output))
    return table


def n_rows(values: Values) -> int:
    if isinstance(values, SparseRows):
        return len(values.indptr) - 1
    return len(values[0] if isinstance(values, list) else values)


def rows_between(values: Values, start: int, end: int) -> Values:
    """The rows from `start` up to `end`, as views."""
    if isinstance(values, SparseRows):
        indptr = values.indptr[start : end + 1]
        entries = slice(indptr[0], indptr[-1])
        return SparseRows(values.width, indptr - indptr[0], values.indices[entries], values.data[entries])
    return [part[start:end] for part in values] if isinstance(values, list) else values[start:end]


def _columns(name: str, values: NDArray[Any], labels: Sequence[Any] | None) -> dict[str, NDArray[Any]]:
    if values.ndim == 1:
        return {name: values}
    width = math.prod(values.shape[1:])
    flat = values.reshape(len(values), width)
    if labels is None or len(labels) != width or len(set(map(str, labels))) != width:
        labels = range(width)
    return {f"{name}_{label}": flat[:, place] for place, label in enumerate(labels)}


def _labels(output: Output) -> Sequence[Any] | None:
    """What the columns of an output are called: its features, or the classes."""
    return output.columns or output.classes
