"""Small tables, and the one question all formulas are asked: does the graph answer as the estimator does?"""

from __future__ import annotations

import json
import warnings
from typing import Any, Final

import numpy as np

from service.core.errors import CannotAnswer
from service.core.table import Matrix, SparseRows, Table, Values, copied
from service.runtimes.describe import Described, describe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.onnx import OnnxEngine, open_onnx
from training.compile.candidate import Candidate, Compiled
from training.compile.onnx import compile_onnx

_RANDOM: Final = np.random.RandomState(0)
# Columns of very different sizes, one of them far from zero.
X: Final = _RANDOM.randn(120, 5) * [1.0, 10.0, 0.1, 5.0, 100.0] + [0.0, 5.0, 0.0, 100.0, 1000.0]
_CLASS: Final = (X[:, 0] > 0).astype(int) + (X[:, 1] > 5.0)
TWO: Final = (X[:, 0] + 10.0 * X[:, 2] > 0).astype(int)
WORDS: Final = np.array(["no", "yes"], dtype=object)[TWO]
THREE: Final = np.array(["b", "a", "c"])[_CLASS]
AMOUNT: Final = 3.0 * X[:, 0] + X[:, 1] + _RANDOM.randn(len(X))
AMOUNTS: Final = np.column_stack([AMOUNT, X[:, 2]])
LABELS: Final = np.column_stack([TWO, (X[:, 1] > 5.0).astype(int)])
POSITIVE: Final = np.abs(X) + 0.1
WHOLE: Final = np.round(X[:, :3]).clip(-3.0, 3.0)
HOLES: Final = np.where(_RANDOM.rand(*X.shape) < 0.1, np.nan, X)


def fitted(estimator: Any, X: Any, y: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X) if y is None else estimator.fit(X, y)


def described(estimator: Any, X: Any) -> Described:
    return describe(estimator, X)


def compiled(estimator: Any, X: Any) -> Compiled:
    found = describe(estimator, X)
    return compile_onnx(estimator, found.signature, found.sample)


def opened(candidate: Candidate, known: Described, threads: int = 1) -> OnnxEngine:
    """The engine, by way of the JSON that a manifest keeps its options in."""
    options = json.loads(json.dumps(dict(candidate.options)))
    return open_onnx(candidate.files, known.signature, options, threads)


def assert_agrees(estimator: Any, X: Any, y: Any = None, *, rtol: float = 1e-11, threads: int = 1) -> None:
    """Every output is in one graph of double precision, and each has the estimator's numbers, dtype and shape."""
    known = describe(fitted(estimator, X, y), X)

    found = compile_onnx(estimator, known.signature, known.sample)

    assert found.reasons == {}
    (candidate,) = found.candidates
    assert candidate.is_double
    assert candidate.outputs == known.signature.output_names
    engine = opened(candidate, known, threads)
    for rows in (known.sample, *_strange(known.sample)):
        assert_same_answers(estimator, known, engine, rows, candidate.outputs, rtol)


def assert_same_answers(
    estimator: Any, known: Described, engine: OnnxEngine, rows: Table, outputs: tuple[str, ...], rtol: float = 1e-11
) -> None:
    for output in outputs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = EstimatorEngine(estimator, known.signature).run(copied(rows), (output,))[output]
        got, answered = answers(engine, rows, output)
        assert answered.any()
        assert_same_values(wanted, got, output, rtol, answered)


def answers(engine: OnnxEngine, rows: Table, output: str) -> tuple[Values, Any]:
    """What the engine says, and for which rows it stands by it."""
    try:
        return engine.run(rows, (output,))[output], np.ones(rows.n_rows, dtype=bool)
    except CannotAnswer as error:
        return (error.answers or {})[output], ~error.rows


def assert_same_values(wanted: Values, got: Values, output: str, rtol: float, answered: Any = slice(None)) -> None:
    assert type(got) is type(wanted), output
    for one, other in zip(_arrays(wanted), _arrays(got), strict=True):
        assert (other.dtype.kind, other.shape) == (one.dtype.kind, one.shape), output
        if one.dtype.kind == "f":
            # Numbers that are next to nothing beside the others are what is left of their difference.
            least = 1e-2 * float(np.nanmax(np.abs(one[np.isfinite(one)]), initial=0.0)) * rtol
            np.testing.assert_allclose(other[answered], one[answered], rtol=rtol, atol=least, err_msg=output)
        else:
            np.testing.assert_array_equal(other[answered], one[answered], err_msg=output)


def _strange(sample: Table) -> list[Table]:
    """Rows that no training saw, where the columns are plain numbers: mixed up, moved, and zeros."""
    if not isinstance(sample, Matrix) or sample.values.dtype != np.float64 or len(sample.values) < len(X):
        return []
    values = sample.values
    mixed = np.column_stack([np.random.RandomState(i).permutation(column) for i, column in enumerate(values.T)])
    return [Matrix(mixed)]


def _arrays(values: Values) -> list[Any]:
    if isinstance(values, SparseRows):
        return [dense(values)]
    return values if isinstance(values, list) else [values]


def dense(values: SparseRows) -> Any:
    rows = np.zeros((len(values.indptr) - 1, values.width))
    for row in range(len(rows)):
        chosen = slice(values.indptr[row], values.indptr[row + 1])
        rows[row, values.indices[chosen]] = values.data[chosen]
    return rows
