"""The schema, read off a fitted estimator and, where there is one, a sample of its input.

What an attribute says is read (`feature_names_in_`, `n_features_in_`, encoder categories,
`classes_`); what no attribute says is tried out: whether a column may be missing, whether a
category may be unknown, how large a number may be, whether an output repeats itself. The
estimator is only ever asked to predict; nothing is fitted, nothing is changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import TandemError
from service.core.plain import plain_label
from service.core.signature import EXACT_INTEGERS, FLOATS, INTS, Column, Output, Signature
from service.core.table import Frame, Matrix, SparseRows, Table, Values, column_arrays, copied, take
from service.runtimes.estimator import METHODS, EstimatorEngine, n_rows, to_values
from service.runtimes.estimator_input import input_builder
from service.runtimes.sample import Sample, read_sample, sample_without_data

# Beyond this many columns only all of them together are tried, not one by one.
PROBED_COLUMNS: Final = 512
# Rows that outputs are read off: enough to tell a row's shape from the number of rows.
OUTPUT_ROWS: Final = 5
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
# Names of a transformer's columns are shown up to this many.
NAMED_COLUMNS: Final = 200


@dataclass(frozen=True, slots=True)
class Described:
    """A signature, and rows of the sample as a table: what golden rows are chosen from."""

    signature: Signature
    sample: Table


def describe(estimator: Any, sample: Any = None) -> Described:
    """The signature of `estimator`.

    Args:
        sample: rows as the estimator takes them: a DataFrame, an array of shape (rows, columns),
            a CSR matrix, or a list of texts. Without it, one row is made up from what the
            estimator remembers of its training.

    Raises:
        EstimatorUnusable: it is not fitted, offers no output, or the sample does not fit it.
    """
    offered = [name for name in METHODS if callable(getattr(estimator, name, None))]
    if not offered:
        raise EstimatorUnusable(
            f"{type(estimator).__name__} has none of {', '.join(METHODS)}: there is nothing to serve"
        )
    check_fitted(estimator)
    read = sample_without_data(estimator) if sample is None else read_sample(estimator, sample)
    draft = Signature(container=read.container, columns=read.columns, outputs=(), order=read.order)
    engine = EstimatorEngine(estimator, draft)  # refuses what must not even be asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs, left_out = _outputs(estimator, draft, read.table, offered)
        columns = _probe(engine, draft, read, outputs[0].name)
    signature = draft.model_copy(update={"columns": columns, "outputs": tuple(outputs), "left_out": left_out or None})
    return Described(signature, read.table)


def check_fitted(estimator: Any) -> None:
    """Raises EstimatorUnusable where scikit-learn's own check says that fit is still to come."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise EstimatorUnusable(f"{type(estimator).__name__} is not fitted yet: call fit first, then export") from None
    except TypeError:
        pass  # not derived from scikit-learn's base class; a call will tell


# -- outputs -------------------------------------------------------------------------------------


def _outputs(
    estimator: Any, draft: Signature, table: Table, offered: Sequence[str]
) -> tuple[list[Output], dict[str, str]]:
    """The outputs that can be served, and why the others cannot."""
    rows = take(table, np.arange(min(table.n_rows, OUTPUT_ROWS)))
    build = input_builder(draft)

    def ask(name: str) -> Values:
        return to_values(getattr(estimator, name)(build(copied(rows))))

    outputs: list[Output] = []
    left_out: dict[str, str] = {}
    for name in offered:
        try:
            values = ask(name)
            reason = _why_not(values, ask(name), rows.n_rows)
            output = _output(estimator, name, values)
        except Exception as error:
            reason = f"it raised {type(error).__name__}: {error}"[:300]
        if reason is None:
            outputs.append(output)
        else:
            left_out[name] = reason
    if not outputs:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise EstimatorUnusable(f"{type(estimator).__name__} refuses the sample. {told}")
    return outputs, left_out


def _why_not(values: Values, again: Values, rows: int) -> str | None:
    if n_rows(values) != rows:
        return f"it answers {n_rows(values)} rows for {rows}"
    if not same(values, again):
        return "it gives other numbers when asked again"
    return None


def same(one: Values, other: Values) -> bool:
    """Bit for bit, with NaN equal to NaN."""
    if isinstance(one, SparseRows):
        return isinstance(other, SparseRows) and all(
            np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in zip((one.indptr, one.indices, one.data), (other.indptr, other.indices, other.data), strict=True)
        )
    if isinstance(one, list):
        return isinstance(other, list) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if not isinstance(other, np.ndarray):
        return False
    if one.dtype == object:
        pairs = zip(one.ravel(), other.ravel(), strict=True)
        return one.shape == other.shape and all(a is b or a == b or (a != a and b != b) for a, b in pairs)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _output(estimator: Any, name: str, values: Values) -> Output:
    if isinstance(values, SparseRows):
        return Output(
            name=name,
            dtype=str(values.data.dtype),
            shape=(values.width,),
            sparse=True,
            columns=_feature_names(estimator, name, values.width),
        )
    if isinstance(values, list):
        return Output(
            name=name,
            dtype=str(values[0].dtype),
            shape=tuple(int(n) for n in values[0].shape[1:]),
            targets=len(values),
            classes=_classes(estimator),
        )
    kind = {"U": "string", "S": "bytes", "O": "object", "M": "datetime"}.get(values.dtype.kind, str(values.dtype))
    shape = tuple(int(n) for n in values.shape[1:])
    classes = _classes(estimator) if name != "transform" else None
    by_class = name == "predict" or (shape and classes is not None and len(classes) == shape[-1])
    return Output(
        name=name,
        dtype=kind,
        shape=shape,
        classes=classes if by_class else None,
        columns=_feature_names(estimator, name, shape[0]) if len(shape) == 1 else None,
    )


def _classes(estimator: Any) -> list[Any] | None:
    """`classes_` as JSON has it; a list of lists where there are several targets."""
    try:
        classes = estimator.classes_
    except Exception:  # a property may raise whatever it likes, and then there are none
        return None
    if classes is None:
        return None
    if isinstance(classes, list):
        return [[plain_label(label) for label in target] for target in classes]
    return [plain_label(label) for label in np.asarray(classes)]


def _feature_names(estimator: Any, name: str, width: int) -> list[str] | None:
    if name != "transform" or width > NAMED_COLUMNS:
        return None
    try:
        names = [str(column) for column in estimator.get_feature_names_out()]
    except Exception:  # many custom transformers have none
        return None
    return names if len(names) == width else None


# -- what columns take, tried out ----------------------------------------------------------------


def _probe(engine: EstimatorEngine, draft: Signature, sample: Sample, output: str) -> tuple[Column, ...]:
    """The columns, with what the estimator was seen to accept: null, unknown categories, large numbers."""
    row = take(sample.table, np.arange(1))
    columns = {column.name: column for column in draft.columns}

    def accepted(names: Sequence[str], change: Callable[[Column, NDArray[Any]], NDArray[Any]]) -> set[str]:
        """The columns whose changed value the estimator answers, the others left as they are."""

        def answers(some: Sequence[str]) -> bool:
            try:
                engine.run(_changed(copied(row), draft, some, change), (output,))
            except TandemError:
                return False
            return True

        if not names or answers(names):
            return set(names)
        if len(names) == 1 or len(columns) > PROBED_COLUMNS:
            return set()
        half = len(names) // 2
        return accepted(names[:half], change) | accepted(names[half:], change)

    everyone = list(columns)
    nullable = accepted(everyone, _missing)
    with_categories = [name for name in everyone if columns[name].categories and columns[name].pandas != "category"]
    opened = accepted(with_categories, _unseen)
    wide = [name for name in everyone if columns[name].dtype == "float64"]
    unlimited = accepted(wide, lambda column, values: np.full_like(values, 2 * FLOAT32_MAX))

    def finish(column: Column) -> Column:
        name = column.name
        closed = bool(column.categories) and name not in opened
        limited = name in wide and name not in unlimited
        return column.model_copy(
            update={
                "nullable": name in nullable and not _too_large_for_holes(column),
                "closed": True if closed else None,
                "max_abs": FLOAT32_MAX if limited else None,
            }
        )

    return tuple(finish(column) for column in draft.columns)


def _too_large_for_holes(column: Column) -> bool:
    """An integer column with missing values is float64 to pandas, which could not hold these integers."""
    return column.dtype in INTS and max(abs(column.low or 0), abs(column.high or 0)) > EXACT_INTEGERS


def _changed(
    row: Table, draft: Signature, names: Sequence[str], change: Callable[[Column, NDArray[Any]], NDArray[Any]]
) -> Table:
    chosen = set(names)
    arrays = {
        column.name: change(column, values) if column.name in chosen else values
        for column, values in zip(draft.columns, column_arrays(row), strict=True)
    }
    if isinstance(row, Matrix) and all(array.dtype == row.values.dtype for array in arrays.values()):
        return Matrix(np.stack(list(arrays.values()), axis=1))
    return Frame(arrays)


def _missing(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    if column.dtype in FLOATS:
        return np.full_like(values, np.nan)
    if column.dtype == "datetime":
        return np.full_like(values, np.array("NaT", dtype=values.dtype))
    if column.dtype in ("bool", "string"):
        return np.full(values.shape, None, dtype=object)
    return np.full(values.shape, np.nan)


def _unseen(column: Column, values: NDArray[Any]) -> NDArray[Any]:
    if column.dtype == "string":
        return np.full(values.shape, "\u2003no such category", dtype=object)
    if column.dtype == "bool":
        return values
    known = np.asarray(sorted(column.known), dtype=values.dtype)
    return np.full_like(values, known[-1] + 1)
