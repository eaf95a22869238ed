"""What can be seen in an estimator without calling it: pipelines, column transformers, encoders.

Everything here is duck-typed on the attributes that scikit-learn documents, so that
subclasses and other libraries' estimators are seen too, and nothing is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def estimator_name(estimator: Any) -> str:
    """`Pipeline(StandardScaler, LogisticRegression)`: the classes, for people."""
    kind = type(estimator).__name__
    steps = getattr(estimator, "steps", None)
    if not steps:
        return kind
    inner = ", ".join(step if isinstance(step, str) else estimator_name(step) for _, step in steps)
    return f"{kind}({inner})"


def shared_steps(estimator: Any) -> tuple[Any, Any] | None:
    """The transforming steps of a pipeline and its last step, or None where that is not safe to split.

    Only for scikit-learn's own Pipeline, whose predict is known to be just that: the
    steps' transform, then the last step's method.
    """
    if is_search(estimator):
        estimator = estimator.best_estimator_
    kind = type(estimator)
    if (kind.__module__, kind.__qualname__) != ("sklearn.pipeline", "Pipeline") or len(estimator.steps) < 2:
        return None
    last = estimator.steps[-1][1]
    return None if last is None or last == "passthrough" else (estimator[:-1], last)


def is_search(estimator: Any) -> bool:
    """Whether it is a GridSearchCV or one of its kin, which hand every call to `best_estimator_`."""
    return hasattr(estimator, "best_estimator_") and any(
        kind.__qualname__ == "BaseSearchCV" for kind in type(estimator).__mro__
    )


def known_categories(estimator: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    """The categories that encoders inside `estimator` learned, by input column.

    Followed as long as a step keeps its columns apart: through pipelines, imputers and
    column transformers up to the first encoder. A column that two encoders see has the
    categories of the first.
    """
    found: dict[str, list[Any]] = {}
    for columns, step in leaves(estimator, list(names)):
        categories = getattr(step, "categories_", None)
        if categories is None or len(categories) != len(columns):
            continue
        for name, values in zip(columns, categories, strict=True):
            found.setdefault(name, [v for v in np.asarray(values, dtype=object).tolist() if v == v and v is not None])
    return found


def text_columns(estimator: Any, names: Sequence[str]) -> set[str]:
    """Input columns that go to a text vectorizer."""
    return {name for columns, step in leaves(estimator, list(names)) if is_vectorizer(step) for name in columns}


def is_vectorizer(estimator: Any) -> bool:
    """Whether it takes texts: CountVectorizer, TfidfVectorizer, HashingVectorizer and their like."""
    return hasattr(estimator, "build_analyzer") and hasattr(estimator, "transform")


def reads_files(estimator: Any) -> bool:
    """Whether some vectorizer in it takes its texts for names of files to open."""
    try:
        params = estimator.get_params(deep=True)
    except Exception:  # not derived from scikit-learn's base class, or its parameters are gone
        return False
    return any(name.split("__")[-1] == "input" and value in ("filename", "file") for name, value in params.items())


def first_step(estimator: Any) -> Any:
    """What sees the input first: a pipeline's first step, and so on inwards."""
    if is_search(estimator):
        return first_step(estimator.best_estimator_)
    steps = getattr(estimator, "steps", None)
    return first_step(steps[0][1]) if steps else estimator


def leaves(estimator: Any, columns: list[str]) -> Iterator[tuple[list[str], Any]]:
    """The steps that see input columns as they came, each with the names of its columns."""
    if is_search(estimator):
        yield from leaves(estimator.best_estimator_, columns)
    elif getattr(estimator, "steps", None):
        for _, step in estimator.steps:
            if step is None or step == "passthrough":
                continue
            yield from leaves(step, columns)
            if not _keeps_columns(step, len(columns)):
                return
    elif hasattr(estimator, "transformers_"):
        for _, step, selected in estimator.transformers_:
            if not isinstance(step, str):
                yield from leaves(step, _select(columns, selected))
    elif hasattr(estimator, "transformer_list"):  # FeatureUnion: every part sees every column
        for _, step in estimator.transformer_list:
            if not isinstance(step, str):
                yield from leaves(step, columns)
    else:
        yield columns, estimator


def _keeps_columns(step: Any, width: int) -> bool:
    """An imputer fills holes and leaves the columns where they are, unless it adds or drops some."""
    is_imputer = hasattr(step, "missing_values") and not getattr(step, "add_indicator", False)
    statistics = getattr(step, "statistics_", None)
    if not is_imputer or statistics is None or len(statistics) != width:
        return False
    return not any(value is None or value != value for value in np.asarray(statistics, dtype=object).tolist())


def _select(columns: list[str], selected: Any) -> list[str]:
    """The names a ColumnTransformer's column specification picks: names, positions, a slice or a mask."""
    if isinstance(selected, str | int | np.integer):
        selected = [selected]
    if isinstance(selected, slice):
        if isinstance(selected.start, str) or isinstance(selected.stop, str):
            start = columns.index(selected.start) if selected.start is not None else 0
            stop = columns.index(selected.stop) + 1 if selected.stop is not None else len(columns)
            return columns[start:stop]
        return columns[selected]
    chosen = np.asarray(selected)
    if chosen.dtype == bool:
        return [name for name, wanted in zip(columns, chosen, strict=True) if wanted]
    return [columns[int(item)] if isinstance(item, int | np.integer) else str(item) for item in chosen.tolist()]
