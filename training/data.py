"""From a name or a file to rows, a target, and what the target asks for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.core.errors import TandemError
from service.core.signature import EXACT_INTEGERS

BUILT_IN: Final = ("iris", "wine", "breast_cancer", "digits", "diabetes")
SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".parquet")
# Whole numbers with more distinct values than this are amounts, not classes.
MOST_CLASSES: Final = 20
# Fewer rows cannot be split into some to learn from and some to score.
FEWEST_ROWS: Final = 10


class DataUnusable(TandemError):
    """The data cannot be read, or lacks what training needs."""

    title = "Data unusable"


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Data:
    """Rows to learn from.

    `y` has shape (rows,) and no missing value; text is of dtype U, so that the model's answers
    are text as well. `notes` say what was left out of the source.
    """

    source: str
    X: pd.DataFrame
    y: NDArray[Any]
    target: str
    notes: tuple[str, ...] = ()


def load(source: str, target: str | None = None, *, drop: Collection[str] = ()) -> Data:
    """Read `source`, one of `BUILT_IN` or a file, and set the target apart.

    Args:
        target: the column to predict; a built-in set has one of its own.
        drop: columns that the model shall not see.

    Raises:
        DataUnusable: unreadable, without such columns, or with too few rows that have a target.
    """
    frame = read_built_in(source) if source in BUILT_IN else read_table(Path(source))
    if target is None and source in BUILT_IN:
        target = "target"
    if target is None:
        raise DataUnusable(f"say with --target which column to predict; {source} has {_listed(frame.columns)}")
    _check_columns(frame, [target, *drop], source)
    known = frame[target].notna()
    kept = int(known.sum())
    if kept < FEWEST_ROWS:
        raise DataUnusable(
            f"{source} has {kept} rows with a {target!r}; at least {FEWEST_ROWS} are needed "
            "to learn from some and score on others"
        )
    left_out = f"{len(frame) - kept} of {len(frame)} rows left out: {target!r} is missing"
    notes = (left_out,) if kept < len(frame) else ()
    X = frame[known].drop(columns=[target, *drop]).reset_index(drop=True)
    if X.shape[1] == 0:
        raise DataUnusable(f"{source} has no column left to predict {target!r} from")
    return Data(source, X, _labels(frame[target]), target, notes)


def read_built_in(name: str) -> pd.DataFrame:
    """One of scikit-learn's own sets, its target as column `target`.

    Where the set names its classes, the target holds the names: a reply then reads "setosa", not 0.
    """
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    # Column by column, as files are read: how a frame lies in memory decides the last digit of a dot product.
    frame = pd.DataFrame(dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True)))
    frame["target"] = bunch.target_names[bunch.target] if "target_names" in bunch else bunch.target
    return frame


def read_table(path: Path) -> pd.DataFrame:
    """The CSV, TSV or Parquet file as a data frame whose columns are named by text.

    Raises:
        DataUnusable: there is no such file, it is of another kind, or has no rows.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise DataUnusable(
            f"{str(path)!r} is neither a built-in set ({', '.join(BUILT_IN)}) nor a file in {', '.join(SUFFIXES)}"
        )
    try:
        frame = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    except FileNotFoundError:
        raise DataUnusable(f"there is no file {str(path)!r}") from None
    except ImportError as error:
        raise DataUnusable(f"reading {path.name} needs pyarrow: pip install 'tandem-serving[train]'") from error
    except (ValueError, OSError) as error:  # every parser's own error is a ValueError
        raise DataUnusable(f"{str(path)!r} cannot be read: {error}") from error
    if frame.empty:
        raise DataUnusable(f"{str(path)!r} holds no rows")
    frame.columns = pd.Index([str(column) for column in frame.columns])
    return frame


def load_sample(path: Path, estimator: Any, target: str | None = None) -> tuple[Any, NDArray[Any] | None]:
    """Rows of `path` as the fitted `estimator` takes them, and their targets if `target` names that column.

    Columns that it was not fitted on are left out, and a vectorizer gets texts instead of a table.

    Raises:
        DataUnusable: unreadable, or without such a column.
    """
    if path.suffix.lower() == ".npy":
        return _read_array(path), None
    table = read_table(path)
    y = None
    if target is not None:
        _check_columns(table, [target], str(path))
        table = table[table[target].notna()]
        y = _labels(table.pop(target))
    return rows_for(estimator, table, str(path)), y


def rows_for(estimator: Any, table: pd.DataFrame, source: str) -> Any:
    """`table` as the fitted `estimator` takes it: the columns that it was fitted on, or of a vectorizer the texts.

    Raises:
        DataUnusable: a vectorizer, and several columns.
    """
    from service.runtimes.structure import first_step, is_vectorizer

    if is_vectorizer(first_step(estimator)):
        if table.shape[1] != 1:
            raise DataUnusable(f"the model takes one column of texts; {source} has {_listed(table.columns)}")
        return table.iloc[:, 0].tolist()
    fitted = [str(name) for name in getattr(estimator, "feature_names_in_", table.columns)]
    return table[fitted] if set(fitted) <= set(table.columns) else table


def task_of(y: NDArray[Any]) -> Task:
    """What the target asks for: text, booleans and few whole numbers are classes, the rest are amounts."""
    if y.dtype.kind not in "iuf":
        return Task.CLASSIFICATION
    if y.dtype.kind == "f":
        return Task.REGRESSION
    # Few is also meant in proportion: twelve rows with eight different counts hold no classes.
    limit = max(2, min(MOST_CLASSES, len(y) // 5))
    return Task.CLASSIFICATION if np.unique(y).size <= limit else Task.REGRESSION


def _check_columns(frame: pd.DataFrame, wanted: Sequence[str], source: str) -> None:
    for column in wanted:
        if column not in frame.columns:
            raise DataUnusable(f"{source} has no column {column!r}; it has {_listed(frame.columns)}")


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataUnusable(f"there is no file {str(path)!r}") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataUnusable(f"{str(path)!r} cannot be read: {error}") from error
    return array


def _read_text(path: Path) -> pd.DataFrame:
    # Read in one piece, so that a column has one type from its first row to its last.
    return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", low_memory=False)


def _labels(column: pd.Series[Any]) -> NDArray[Any]:
    """The target without pandas' own types, and whole numbers as such: holes and other tools make them floats."""
    values: NDArray[Any] = column.dropna().infer_objects().to_numpy()
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataUnusable(f"the target {column.name!r} holds infinite numbers")
        is_whole = (values % 1 == 0).all() and np.abs(values).max() <= EXACT_INTEGERS
        return values.astype(np.int64) if is_whole else values
    if values.dtype.kind in "iub":
        return values
    kinds = {type(value) for value in values.tolist()}
    if kinds <= {int} or kinds <= {bool}:  # from the types of pandas that hold missing values themselves
        return values.astype(kinds.pop())
    if kinds != {str}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataUnusable(f"the target {column.name!r} holds {found}; expected numbers, booleans or text")
    return values.astype(str)


def _listed(columns: pd.Index[Any]) -> str:
    shown = ", ".join(map(str, columns[:30]))
    return shown + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")
