"""Whether an engine answers each row as if it were alone, so that requests may be computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.core.contracts import Engine
from service.core.errors import TandemError
from service.core.table import SparseRows, Table, Values, take
from service.loading.golden import CLOSE_RTOL, EXACT_RTOL, answered

# Rows asked one by one.
ALONE_ROWS: Final = 12


def row_by_row(engine: Engine, rows: Table, outputs: Sequence[str]) -> bool:
    """Whether each row's answer is the same alone and among others, so that requests may be merged.

    Numbers may differ within EXACT_RTOL: linear algebra adds up in another order for another number of rows.
    Rows that it passes on to another engine are left out; of an engine that passes on all, nothing is known.
    """
    try:
        for output in outputs:
            kept, together = answered(engine, rows, output)
            if not kept.size:
                return False
            for place, row in enumerate(kept[:ALONE_ROWS]):
                alone = engine.run(take(rows, np.array([row])), (output,))
                if not _same_row(together[output], place, alone[output]):
                    return False
    except TandemError:
        return False
    return True


def _same_row(together: Values, row: int, alone: Values) -> bool:
    if isinstance(together, list):
        return isinstance(alone, list) and all(_same_row(a, row, b) for a, b in zip(together, alone, strict=True))
    if isinstance(together, SparseRows):
        if not isinstance(alone, SparseRows):
            return False
        part = slice(together.indptr[row], together.indptr[row + 1])
        return np.array_equal(together.indices[part], alone.indices) and _close(together.data[part], alone.data)
    return not isinstance(alone, list | SparseRows) and _close(together[row], alone[0])


def _close(one: Any, other: Any) -> bool:
    one = np.asarray(one)
    if one.dtype.kind != "f":
        return bool(np.all(one == other))
    rtol = EXACT_RTOL if one.dtype == np.float64 else CLOSE_RTOL
    sizes = np.abs(one)
    atol = rtol * float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
    return bool(np.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True))
