"""A call of many rows in slices, so that what an engine needs beside rows and answers does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from service.core.table import Frame, Matrix, Table, Values
from service.scheduling.answers import stacked

# Engines gain nothing from more rows at once, and some make a matrix of hundreds of columns of them: 131 MB of
# a thousand. A slice takes some ten to a hundred milliseconds, after which the next one may be spared.
SLICE_ROWS: Final = 16_384


def in_slices(
    run: Callable[[Table, Sequence[str]], dict[str, Values]],
    rows: Table,
    outputs: Sequence[str],
    pause: Callable[[], None],
) -> dict[str, Values]:
    """The answers of `run` to all rows, asked for SLICE_ROWS at a time; `pause` is called in between.

    What either raises is raised. Only for engines whose answer for a row does not depend on the others.
    """
    parts = []
    for start in range(0, rows.n_rows, SLICE_ROWS):
        if start:
            pause()
        parts.append(run(_between(rows, start, start + SLICE_ROWS), outputs))
    # Taken out of the parts, each output is there twice at a time, not all of them.
    return {name: stacked([part.pop(name) for part in parts]) for name in outputs}


def _between(rows: Table, start: int, end: int) -> Table:
    """The rows from `start` up to `end`, as views."""
    if isinstance(rows, Matrix):
        return Matrix(rows.values[start:end])
    return Frame({name: values[start:end] for name, values in rows.columns.items()})
