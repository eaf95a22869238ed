"""Rows made to tell engines apart: golden rows are chosen from a sample, and a sample avoids what is hard.

Each is a row of the sample with one value changed: to one at or just beside a split, to a missing or
unknown one, to the ends of its range, to one that float32 cannot hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service.core.errors import TandemError
from service.core.signature import Column, Signature
from service.core.table import Frame, Matrix, SparseRows, Table, Values, column_arrays, copied, missing, take
from service.protocols.native import Exchange, write_columns
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.structure import is_search
from training.hard_splits import Change, boundary_changes, inner_estimators, is_tree, threshold_changes
from training.hard_values import accepts, hard_values

# Rows of the sample that are changed.
BASES: Final = 8
# Rows of the sample that are asked how close their best two classes are.
ASKED: Final = 512
CLOSE_CALLS: Final = 4
# In so many parts rows are asked again, to see whether the answers depend on what else is asked.
PARTS: Final = 4
STEADY_RTOL: Final = 1e-7
# More columns than this are looked at in part: changes beyond the limit would be thrown away.
COLUMNS: Final = 256


def hard_rows(estimator: Any, signature: Signature, sample: Table, *, limit: int) -> Table:
    """Up to `limit` rows that the estimator answers, of every kind there is for these columns.

    The same for the same estimator and sample, but for a slow host (see `boundary_changes`).
    It takes about a second, and more where the estimator takes tenths of a second for a row.
    """
    usable = _usable(signature, sample)
    if not usable.size or limit < 1:
        return take(sample, np.arange(0))
    spread = np.unique(np.linspace(0, len(usable) - 1, BASES).astype(int))
    bases = [int(row) for row in usable[spread]]
    engine = EstimatorEngine(estimator, signature)
    # Batches are small: threads would only wait for each other.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore")
        kinds = [
            *_value_changes(signature, sample, bases),
            *_split_changes(engine, estimator, signature, sample, bases),
        ]
        kinds = [[change for change in kind if accepts(signature.columns[change[1]], change[2])] for kind in kinds]
        close = _close_calls(engine, signature, sample, usable)
        changes = _in_turn(kinds, max(0, limit - len(close) - 1))
        tables = [take(sample, close)] if close.size else []
        tables += [changed(signature, sample, [[change] for change in changes])] if changes else []
        if all_missing := [(bases[0], i, None) for i, column in enumerate(signature.columns) if column.nullable]:
            tables.append(changed(signature, sample, [all_missing]))
        rows = _joined(signature, tables) if tables else take(sample, np.arange(0))
        kept = _answered(engine, signature, rows, np.arange(rows.n_rows))
        alone, last = _last_step(estimator)
        if kept.size and has_trees(last) and not alone:
            kept = kept[_steady(engine, signature, take(rows, kept))]
    return take(rows, kept[:limit])


def changed(signature: Signature, sample: Table, rows: Sequence[Sequence[Change]]) -> Table:
    """A table of one row for each list of changes. All changes of a list are to the same row of the sample."""
    table = take(sample, np.array([changes[0][0] for changes in rows], dtype=np.intp))
    new: dict[int, list[tuple[int, Any]]] = {}
    for place, changes in enumerate(rows):
        for _, column, value in changes:
            new.setdefault(column, []).append((place, value))
    arrays = column_arrays(table)
    for index, values in new.items():
        arrays[index] = _with(arrays[index], signature.columns[index], values)
    return _table(signature, arrays, isinstance(sample, Matrix))


def _with(array: NDArray[Any], column: Column, values: list[tuple[int, Any]]) -> NDArray[Any]:
    """The array with those values at those places, in the dtype that a column with missing values has."""
    if any(value is None for _, value in values) and array.dtype.kind in "biu":
        array = array.astype(object if array.dtype.kind == "b" else np.float64)
    array = array.copy()
    for place, value in values:
        array[place] = np.datetime64("NaT") if value is None and array.dtype.kind == "M" else value
    return array


def _table(signature: Signature, arrays: list[NDArray[Any]], is_matrix: bool) -> Table:
    if is_matrix and all(array.dtype == arrays[0].dtype for array in arrays):
        return Matrix(np.stack(arrays, axis=1))
    return Frame(dict(zip(signature.names, arrays, strict=True)))


def _joined(signature: Signature, tables: list[Table]) -> Table:
    """The rows of all tables; a column has the dtype that holds all of its values."""
    parts = zip(*(column_arrays(table) for table in tables), strict=True)
    arrays = [np.concatenate([part.astype(_common(some)) for part in some]) for some in parts]
    return _table(signature, arrays, all(isinstance(table, Matrix) for table in tables))


def _common(arrays: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    objects = any(array.dtype == object for array in arrays)
    return np.dtype(object) if objects else np.result_type(*arrays)


# -- what is changed -----------------------------------------------------------------------------


def _usable(signature: Signature, sample: Table) -> NDArray[np.intp]:
    """Rows that a JSON request can carry."""
    usable = np.ones(sample.n_rows, dtype=bool)
    for column, array in zip(signature.columns, column_arrays(sample), strict=True):
        holes = missing(array)
        if array.dtype.kind == "f":
            usable &= np.isfinite(array) | holes
        if not column.nullable:
            usable &= ~holes
    return np.flatnonzero(usable)


def _value_changes(signature: Signature, sample: Table, bases: list[int]) -> Iterator[list[Change]]:
    """One list for each kind of value, over all columns, in turn."""
    kinds: dict[str, list[list[Change]]] = {}
    arrays = column_arrays(sample)
    for index in np.random.default_rng(2).permutation(len(arrays))[:COLUMNS].tolist():
        for number, (kind, values) in enumerate(hard_values(signature.columns[index], arrays[index]).items()):
            row = bases[(index + number) % len(bases)]
            kinds.setdefault(kind, []).append([(row, index, value) for value in values])
    for columns in kinds.values():
        yield [change for several in zip_longest(*columns) for change in several if change is not None]


def _split_changes(
    engine: EstimatorEngine, estimator: Any, signature: Signature, sample: Table, bases: list[int]
) -> Iterator[list[Change]]:
    alone, last = _last_step(estimator)
    if not has_trees(last):
        return
    read = threshold_changes(last, signature, sample, bases) if alone else []
    random = np.random.default_rng(3)
    yield [read[i] for i in random.permutation(len(read))]
    output = next(
        (name for name in ("predict_proba", "decision_function") if name in signature.output_names),
        signature.default_output,
    )

    def ask(changes: list[Change]) -> NDArray[Any]:
        return _flat(engine.run(changed(signature, sample, [[change] for change in changes]), (output,))[output])

    try:
        found = boundary_changes(ask, signature, sample, bases)
    except TandemError:  # some value between two of the sample's is refused
        found = []
    yield [found[i] for i in random.permutation(len(found))]


def _last_step(estimator: Any) -> tuple[bool, Any]:
    """The last step of a pipeline, and whether it is the only one."""
    while is_search(estimator):
        estimator = estimator.best_estimator_
    steps = getattr(estimator, "steps", None)
    return not steps or len(steps) == 1, steps[-1][1] if steps else estimator


def has_trees(estimator: Any) -> bool:
    """Whether its answers have steps: forests, boosting, and single trees, of scikit-learn or another library."""
    boosted = any(hasattr(estimator, name) for name in ("_predictors", "get_booster", "booster_"))
    return boosted or any(is_tree(each) for each in (estimator, *inner_estimators(estimator)))


def _flat(values: Values) -> NDArray[Any]:
    """One line of numbers for each row, to be compared."""
    if isinstance(values, SparseRows):
        dense = np.zeros((len(values.indptr) - 1, values.width))
        dense[np.repeat(np.arange(len(dense)), np.diff(values.indptr)), values.indices] = values.data
        return dense
    if isinstance(values, list):
        return np.concatenate([_flat(target) for target in values], axis=1)
    return values.reshape(len(values), -1)


def _in_turn(kinds: Sequence[Sequence[Change]], limit: int) -> list[Change]:
    """The first of each kind, then the second of each, and so on; none twice."""
    found: dict[tuple[int, int, str], Change] = {}
    for several in zip_longest(*kinds):
        for change in several:
            if change is not None and len(found) < limit:
                found.setdefault((change[0], change[1], repr(change[2])), change)
    return list(found.values())


# -- what the estimator says ---------------------------------------------------------------------


def _close_calls(
    engine: EstimatorEngine, signature: Signature, sample: Table, usable: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Rows of the sample whose two best classes are closest to each other."""
    output = next((o for o in signature.outputs if o.name in ("predict_proba", "decision_function")), None)
    if output is None or output.targets is not None:
        return np.arange(0)
    asked = usable[:ASKED]
    try:
        scores = engine.run(copied(take(sample, asked)), (output.name,))[output.name]
    except TandemError:
        return np.arange(0)
    if not isinstance(scores, np.ndarray) or scores.ndim > 2:
        return np.arange(0)
    if scores.ndim == 2 and scores.shape[1] > 1:
        best = np.sort(scores, axis=1)
        gaps = best[:, -1] - best[:, -2]
    else:
        gaps = np.abs(scores.reshape(len(scores)))
    return asked[np.argsort(gaps, kind="stable")[:CLOSE_CALLS]]


def _answered(engine: EstimatorEngine, signature: Signature, rows: Table, some: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of the rows that the service can read from JSON and the estimator answers, found by halving."""
    if not some.size:
        return some
    try:
        columns = write_columns(take(rows, some), signature)
        body = orjson.dumps({"columns": columns}, option=orjson.OPT_SERIALIZE_NUMPY)
        engine.run(Exchange(body).read(signature).rows, signature.output_names)
    except TandemError:
        if len(some) == 1:
            return some[:0]
        half = len(some) // 2
        parts = [_answered(engine, signature, rows, part) for part in (some[:half], some[half:])]
        return np.concatenate(parts)
    return some


def _steady(engine: EstimatorEngine, signature: Signature, rows: Table) -> NDArray[np.bool_]:
    """Rows that the estimator answers alike in whatever company: these tell engines apart, others tell nothing.

    Matrix products before the trees have other last digits in other batches, and at a split these make another answer.
    """
    name = signature.default_output
    n = rows.n_rows
    first = engine.run(copied(rows), (name,))[name]
    steady = np.ones(n, dtype=bool)
    for places in (np.arange(n)[::-1], *np.array_split(np.arange(n), min(n, PARTS))):
        again = engine.run(take(rows, places), (name,))[name]
        steady[places] &= _alike(first, again, places)
    return steady


def _alike(first: Values, again: Values, places: NDArray[np.intp]) -> NDArray[np.bool_]:
    one, other = _flat(first)[places], _flat(again)
    same = np.isclose(one, other, rtol=STEADY_RTOL, equal_nan=True) if one.dtype.kind == "f" else one == other
    alike: NDArray[np.bool_] = np.logical_and.reduce(same, axis=1)
    return alike
