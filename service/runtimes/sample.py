"""Columns, read off rows of an estimator's input, or off the estimator alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import EstimatorUnusable
from service.core.plain import plain_label
from service.core.signature import FLOATS, INTS, Column, Container, DType
from service.core.table import Frame, Matrix, Table
from service.runtimes.structure import first_step, is_vectorizer, known_categories, text_columns

EMPTY: Final = "the sample is empty; at least one row is needed"
_KNOWN_DTYPES: Final = frozenset({*FLOATS, *INTS, "bool"})


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows as a table, with the columns they follow. Nothing is known yet of what columns accept."""

    container: Container
    columns: tuple[Column, ...]
    table: Table
    order: Literal["F"] | None = None


def read_sample(estimator: Any, sample: Any) -> Sample:
    """Columns and rows of `sample`, in the order and container the estimator was fitted on.

    Raises:
        EstimatorUnusable: columns are missing, too few or too many, or hold what no JSON value can stand for.
    """
    if hasattr(sample, "tocsr"):
        if sample.shape[0] == 0:
            raise EstimatorUnusable(EMPTY)
        values = sample.toarray()
        _check_width(estimator, values.shape[1])
        return _matrix(Container.SPARSE, _names(estimator, values.shape[1]), values)
    if hasattr(sample, "columns") and hasattr(sample, "iloc"):
        return _read_frame(estimator, sample)
    values = np.asarray(sample)
    if values.dtype.kind == "U":
        values = np.asarray(sample, dtype=object)
    if values.size == 0:
        raise EstimatorUnusable(EMPTY)
    if values.ndim == 1:
        if values.dtype == object and isinstance(values[0], dict | list | tuple):
            raise EstimatorUnusable(
                f"the rows of the sample are of type {type(values[0]).__name__}; rows of a table or texts can be served"
            )
        name = str(getattr(sample, "name", None) or ("text" if values.dtype == object else "x0"))
        return _columns(Container.SERIES, estimator, {name: values})
    if values.ndim != 2:
        raise EstimatorUnusable(f"the sample has {values.ndim} dimensions; expected rows and columns")
    _check_width(estimator, values.shape[1])
    names = _names(estimator, values.shape[1])
    container = Container.ARRAY if _fitted_names(estimator) is None else Container.FRAME
    if values.dtype != object:
        return _matrix(container, names, values)
    return _columns(container, estimator, {name: values[:, index] for index, name in enumerate(names)})


def sample_without_data(estimator: Any) -> Sample:
    """One row made of what the estimator remembers: column names, and categories of its encoders.

    Raises:
        EstimatorUnusable: it does not remember how many columns it was fitted on.
    """
    if is_vectorizer(first_step(estimator)):
        return _columns(Container.SERIES, estimator, {"text": np.array(["text"], dtype=object)})
    width = getattr(estimator, "n_features_in_", None)
    fitted = _fitted_names(estimator)
    if width is None and fitted is None:
        raise EstimatorUnusable(
            f"{type(estimator).__name__} does not tell its input columns; export it with a sample of its input"
        )
    names = _names(estimator, int(width) if width is not None else len(fitted or ()))
    categories = known_categories(estimator, names)
    texts = text_columns(estimator, names)
    if not categories and not texts:
        container = Container.ARRAY if fitted is None else Container.FRAME
        return _matrix(container, names, np.zeros((1, len(names))), seen=False)
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        if name in texts:
            arrays[name] = np.array(["text"], dtype=object)
        elif categories.get(name):
            first = np.array(categories[name][:1])
            arrays[name] = first.astype(object) if first.dtype.kind == "U" else first
        else:
            arrays[name] = np.zeros(1)
    return _columns(Container.ARRAY if fitted is None else Container.FRAME, estimator, arrays, seen=False)


def _read_frame(estimator: Any, frame: Any) -> Sample:
    if len(frame) == 0:
        raise EstimatorUnusable(EMPTY)
    present = [str(column) for column in frame.columns]
    repeated = sorted({name for name in present if present.count(name) > 1})
    if repeated:
        raise EstimatorUnusable(f"the sample has columns of the same name: {', '.join(repeated)}")
    fitted = _fitted_names(estimator)
    if fitted is not None:
        missing = [name for name in fitted if name not in present]
        if missing:
            raise EstimatorUnusable(
                f"the sample lacks columns that the estimator was fitted on: {', '.join(missing[:10])}; "
                f"it has {', '.join(present[:20])}"
            )
        frame = frame[list(fitted)]
    elif hasattr(estimator, "n_features_in_"):
        # Fitted on an array: the names are for people, the estimator never saw any.
        _check_width(estimator, len(present))
        values = frame.to_numpy()
        if values.dtype != object:
            return _matrix(Container.ARRAY, present, values)
        return _columns(Container.ARRAY, estimator, {n: values[:, i] for i, n in enumerate(present)})
    sample = _columns(Container.FRAME, estimator, {str(name): frame[name] for name in frame.columns})
    return replace(sample, order=_order(frame.to_numpy())) if isinstance(sample.table, Matrix) else sample


def _order(values: NDArray[Any]) -> Literal["F"] | None:
    return "F" if values.flags.f_contiguous and not values.flags.c_contiguous else None


def _fitted_names(estimator: Any) -> list[str] | None:
    try:
        return [str(name) for name in estimator.feature_names_in_]
    except AttributeError:
        return None


def _names(estimator: Any, width: int) -> list[str]:
    """The names at fit, or x0, x1, … as scikit-learn itself calls unnamed columns."""
    fitted = _fitted_names(estimator)
    return fitted if fitted is not None and len(fitted) == width else [f"x{index}" for index in range(width)]


def _check_width(estimator: Any, width: int) -> None:
    expected = getattr(estimator, "n_features_in_", width)
    if expected != width:
        raise EstimatorUnusable(f"the sample has {width} columns; the estimator was fitted on {expected}")


def _matrix(container: Container, names: Sequence[str], values: NDArray[Any], *, seen: bool = True) -> Sample:
    """A sample whose columns all have one dtype. `seen` says that the values are real."""
    dtype = _dtype(values.dtype, "the sample")
    pandas = dtype if container is Container.FRAME else None
    columns = tuple(
        Column(name=name, dtype=dtype, pandas=pandas, **(_range(values[:, index]) if seen else {}))
        for index, name in enumerate(names)
    )
    # pandas itself lays out what it is given column by column.
    order: Literal["F"] | None = "F" if container is Container.FRAME else _order(values)
    return Sample(container, columns, Matrix(np.ascontiguousarray(values)), order)


def _columns(container: Container, estimator: Any, series: dict[str, Any], *, seen: bool = True) -> Sample:
    """A sample of columns that differ: each is a pandas Series or an array of shape (rows,)."""
    categories = known_categories(estimator, list(series))
    columns: list[Column] = []
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in series.items():
        column, array = _read_column(name, values, categories.get(name))
        if not seen:
            column = column.model_copy(update={"low": None, "high": None})
        columns.append(column if container is Container.FRAME else column.model_copy(update={"pandas": None}))
        arrays[name] = array
    if len({array.dtype for array in arrays.values()}) == 1 and all(c.pandas in (None, c.dtype) for c in columns):
        first = next(iter(arrays.values()))
        if first.dtype.kind in "fiub" and not any(c.categories for c in columns):
            return Sample(container, tuple(columns), Matrix(np.stack(list(arrays.values()), axis=1)))
    return Sample(container, tuple(columns), Frame(arrays))


def _read_column(name: str, series: Any, categories: list[Any] | None) -> tuple[Column, NDArray[Any]]:
    """One column and its values as `core.table.Frame` has them."""
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        known = [plain_label(value) for value in dtype.categories]
        kind = _object_kind(np.asarray(dtype.categories, dtype=object), name)
        values = np.asarray(series.astype(object).where(series.notna(), None), dtype=object)
        if kind not in ("string", "bool"):
            holes = bool(series.isna().any())
            values = np.asarray(series.astype("float64" if holes else kind), dtype="float64" if holes else kind)
        column = Column(name=name, dtype=kind, pandas="category", categories=known, ordered=bool(dtype.ordered))
        return column, values
    if isinstance(dtype, pd.DatetimeTZDtype):
        values = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return Column(
            name=name, dtype="datetime", pandas=f"datetime64[{dtype.unit}, UTC]", timezone=str(dtype.tz)
        ), values
    if getattr(dtype, "kind", "") == "M":
        return Column(name=name, dtype="datetime", pandas=str(dtype)), np.asarray(series)
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        values = np.asarray(series)
        kind = _dtype(values.dtype, f"column {name!r}")
        return Column(name=name, dtype=kind, pandas=kind, categories=categories, **_range(values)), values
    return _read_objects(name, series, categories)


def _read_objects(name: str, series: Any, categories: list[Any] | None) -> tuple[Column, NDArray[Any]]:
    """A column of Python objects, or of a pandas type that holds missing values itself."""
    import pandas as pd

    pandas = str(series.dtype) if hasattr(series, "isna") else "object"
    values = np.asarray(series, dtype=object)
    holes = np.asarray(pd.isna(values))
    kind = _object_kind(values[~holes], name)
    has_none = any(value is None for value in values[holes])
    if kind in ("string", "bool"):
        kept = values.copy()
        kept[holes] = None
        array = kept.astype(bool) if kind == "bool" and not holes.any() else kept
    else:
        array = np.where(holes, np.nan, values).astype("float64" if holes.any() else kind)
    column = Column(
        name=name,
        dtype=kind,
        pandas=pandas,
        categories=categories,
        missing="none" if has_none and pandas == "object" else None,
        **(_range(array) if array.dtype != object else {}),
    )
    return column, array


def _object_kind(values: NDArray[Any], name: str) -> DType:
    """What the objects of a column are, all of them."""
    kinds = {type(value) for value in values.tolist()}
    if not kinds or kinds <= {str}:
        return "string"
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    if kinds <= {int, float}:
        return "float64"
    told = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise EstimatorUnusable(
        f"column {name!r} holds values of type {told}; numbers, booleans, text, categories and "
        "datetimes can be served, one kind to a column"
    )


def _dtype(dtype: np.dtype[Any], where: str) -> DType:
    if str(dtype) not in _KNOWN_DTYPES:
        raise EstimatorUnusable(f"{where} is of type {dtype}, which has no JSON form; cast it before fitting")
    return cast(DType, str(dtype))


def _range(values: NDArray[Any]) -> dict[str, float]:
    """The least and the greatest number seen, for people."""
    if values.dtype.kind not in "fiu":
        return {}
    finite = values[np.isfinite(values)]
    return {"low": float(finite.min()), "high": float(finite.max())} if finite.size else {}
