"""Golden rows: questions with the estimator's own answers, asked again wherever the model is loaded."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Signature
from service.core.table import Table, column_arrays, missing

ROWS: Final = 32
HARD_ROWS: Final = 160
# Wide answers (a text vectorizer's, say) are recorded for fewer rows: a golden file stays readable.
CELLS: Final = 50_000


def hard_limit(signature: Signature) -> int:
    """How many hard rows to record beside them."""
    return max(1, min(HARD_ROWS, CELLS // _width(signature)))


def choose_rows(signature: Signature, sample: Table) -> NDArray[np.intp]:
    """Indices of rows to record, in order: the first ones, each column's extremes, missing values, and others.

    Rows that no JSON request can carry (infinite numbers, missing values where none may be) are left out.
    """
    arrays = column_arrays(sample)
    usable = np.ones(sample.n_rows, dtype=bool)
    with_missing = np.zeros(sample.n_rows, dtype=bool)
    for column, array in zip(signature.columns, arrays, strict=True):
        holes = missing(array)
        with_missing |= holes
        if array.dtype.kind == "f":
            usable &= np.isfinite(array) | holes
        if not column.nullable:
            usable &= ~holes
    candidates = np.flatnonzero(usable)
    wanted = max(1, min(ROWS, CELLS // _width(signature)))
    chosen: dict[int, None] = dict.fromkeys(candidates[: wanted // 4].tolist())
    for array in arrays:
        if array.dtype.kind in "fiu" and candidates.size:
            values = np.where(missing(array[candidates]), 0, array[candidates])
            chosen |= dict.fromkeys([int(candidates[values.argmin()]), int(candidates[values.argmax()])])
        if len(chosen) > wanted // 2:
            break
    chosen |= dict.fromkeys(np.flatnonzero(usable & with_missing)[: wanted // 4].tolist())
    others = np.random.default_rng(0).permutation(candidates)
    chosen |= dict.fromkeys(others[:wanted].tolist())
    return np.array(sorted(list(chosen)[:wanted]), dtype=np.intp)


def _width(signature: Signature) -> int:
    """Values in one row of the file."""
    return len(signature.columns) + sum(int(np.prod(output.shape)) for output in signature.outputs)
