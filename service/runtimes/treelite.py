"""Tree ensembles that Treelite evaluates: forests, boosting and isolation forests, of whichever library.

The native library sums the trees, and `treelite_recipe` makes the outputs from the sums. Neither
scikit-learn nor scipy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import ModelFileUnreadable
from service.core.contracts import Engine
from service.core.errors import CannotAnswer
from service.core.signature import Output, Signature
from service.core.table import Matrix, Table, Values
from service.runtimes.treelite_library import Trees
from service.runtimes.treelite_recipe import Recipe, derivation, too_close

TREES: Final = "model.tl"
FRONT: Final = "front.onnx"
# The one output of the steps before the trees.
TRANSFORMED: Final = "transform"

_OVERFLOW: Final = "a number is too large for the trees"
_TOO_CLOSE: Final = "a label is too close to call"

Reader = Callable[[Table], NDArray[Any]]


def open_treelite(
    files: Mapping[str, bytes], signature: Signature, options: Mapping[str, Any], threads: int = 1
) -> TreeliteEngine:
    """The engine of a Treelite checkpoint (`model.tl`), after an ONNX model (`front.onnx`) where there is one.

    Raises:
        ModelFileUnreadable: a file or an option is not understood, or does not fit the signature.
    """
    recipe = Recipe.read(options)
    if TREES not in files:
        raise ModelFileUnreadable(f"a Treelite engine needs the file {TREES!r}")
    trees = Trees(files[TREES], threads)
    front = None
    if recipe.front is not None:
        from service.runtimes.onnx import open_onnx

        front = open_onnx({FRONT: files[FRONT]}, front_signature(signature, trees.width), recipe.front, threads)
    elif (width := len(recipe.order or signature.columns)) != trees.width:
        # The library would read beyond the end of every row.
        raise ModelFileUnreadable(f"the trees have {trees.width} features, and the table makes {width}")
    return TreeliteEngine(trees, recipe, signature, front)


def front_signature(signature: Signature, width: int) -> Signature:
    """That of the steps before the trees: the same rows in, a matrix of `width` numbers out."""
    rows = Output(name=TRANSFORMED, dtype="float64", shape=(width,))
    return signature.model_copy(update={"outputs": (rows,), "left_out": None})


class TreeliteEngine:
    """See `core.contracts.Engine`."""

    def __init__(self, trees: Trees, recipe: Recipe, signature: Signature, front: Engine | None = None) -> None:
        self._trees = trees
        self._recipe = recipe
        self._front = front
        self._read = _reader(recipe, signature)
        self._derive = derivation(recipe, signature)
        self._rearranges = recipe.order is not None or recipe.codes is not None
        self._cast = np.dtype(recipe.cast)
        # What the estimator refuses beyond float32 is refused before it gets here, unless steps lie between.
        unlimited = any(column.dtype == "float64" and column.max_abs is None for column in signature.columns)
        self._may_overflow = self._cast == np.float32 and (front is not None or unlimited)

    @property
    def is_reentrant(self) -> bool:
        return self._front is None or self._front.is_reentrant

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """Raises CannotAnswer for numbers that the trees' type cannot hold, and for labels too close to call."""
        doubtful: NDArray[np.bool_] | None = None
        why = _OVERFLOW
        if self._front is None:
            values = self._read(rows)
        else:
            values, doubtful, why = self._ask_front(self._front, rows)
            if self._rearranges:
                values = self._read(Matrix(values))
        if self._recipe.zero_is_missing:
            values = np.where(values == 0, np.nan, values)
        if self._may_overflow:
            values, overflows = self._narrowed(values)
            doubtful, why = _either(doubtful, overflows, why, _OVERFLOW)
        elif values.dtype != self._cast:
            values = values.astype(self._cast)
        scores = self._trees.scores(np.ascontiguousarray(values, dtype=self._trees.dtype))
        answers = self._derive(scores, outputs)
        if self._recipe.margin and "predict" in outputs:
            doubtful, why = _either(doubtful, too_close(self._recipe, scores), why, _TOO_CLOSE)
        if doubtful is not None:
            raise CannotAnswer(why, doubtful, answers)
        return answers

    def _ask_front(self, front: Engine, rows: Table) -> tuple[NDArray[Any], NDArray[np.bool_] | None, str]:
        """The trees' rows, and which of them the front could not make, if it made the others."""
        try:
            made, doubtful, why = front.run(rows, (TRANSFORMED,)), None, ""
        except CannotAnswer as error:
            if error.answers is None:
                raise
            made, doubtful, why = error.answers, error.rows, str(error)
        values = made[TRANSFORMED]
        assert isinstance(values, np.ndarray)  # its signature says so
        return values, doubtful, why

    def _narrowed(self, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Rows as float32, and which of them have become infinite on the way."""
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        infinite: NDArray[np.bool_] = np.isinf(narrow)
        return narrow, np.asarray(infinite.any(axis=1)) if infinite.any() else None


def _either(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None, why: str, why_other: str
) -> tuple[NDArray[np.bool_] | None, str]:
    if other is None:
        return one, why
    return (other, why_other) if one is None else (one | other, why)


def _reader(recipe: Recipe, signature: Signature) -> Reader:
    """The function that makes the trees' features, of shape (rows, features), from a table."""
    codes = {
        column: {value: float(code) for code, value in enumerate(known)}
        for column, known in (recipe.codes or {}).items()
    }
    order = recipe.order

    def read(table: Table) -> NDArray[Any]:
        if isinstance(table, Matrix) and not codes:
            return table.values if order is None else table.values[:, order]
        arrays = list(table.values.T) if isinstance(table, Matrix) else list(table.columns.values())
        picked = range(len(arrays)) if order is None else order
        # Where columns differ, pandas and numpy make float64 of them first, and the estimator rounds that.
        values = np.empty((table.n_rows, len(picked)), dtype=np.float64)
        for feature, column in enumerate(picked):
            array = arrays[column]
            values[:, feature] = _coded(array, codes[column]) if column in codes else array
        return values

    return read


def _coded(array: NDArray[Any], codes: Mapping[Any, float]) -> NDArray[Any]:
    """The code of each value; NaN, None and what is not known have none."""
    return np.fromiter((codes.get(value, np.nan) for value in array.tolist()), dtype=np.float64, count=len(array))
