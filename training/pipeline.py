"""From column types and an estimator's name to a pipeline that is ready to be fitted.

Every step is scikit-learn's own, so that a service opens the model without further trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.core.errors import TandemError
from training.data import DataUnusable, Task

# The classifier and the regressor of each name; None where there is no such thing.
ESTIMATORS: Final[dict[str, tuple[str | None, str | None]]] = {
    "linear": ("sklearn.linear_model.LogisticRegression", "sklearn.linear_model.LinearRegression"),
    "logistic": ("sklearn.linear_model.LogisticRegression", None),
    "ridge": ("sklearn.linear_model.RidgeClassifier", "sklearn.linear_model.Ridge"),
    "lasso": (None, "sklearn.linear_model.Lasso"),
    "elastic-net": (None, "sklearn.linear_model.ElasticNet"),
    "decision-tree": ("sklearn.tree.DecisionTreeClassifier", "sklearn.tree.DecisionTreeRegressor"),
    "random-forest": ("sklearn.ensemble.RandomForestClassifier", "sklearn.ensemble.RandomForestRegressor"),
    "extra-trees": ("sklearn.ensemble.ExtraTreesClassifier", "sklearn.ensemble.ExtraTreesRegressor"),
    "hist-boosting": (
        "sklearn.ensemble.HistGradientBoostingClassifier",
        "sklearn.ensemble.HistGradientBoostingRegressor",
    ),
    "svm": ("sklearn.svm.SVC", "sklearn.svm.SVR"),
    "knn": ("sklearn.neighbors.KNeighborsClassifier", "sklearn.neighbors.KNeighborsRegressor"),
    "naive-bayes": ("sklearn.naive_bayes.GaussianNB", None),
    "mlp": ("sklearn.neural_network.MLPClassifier", "sklearn.neural_network.MLPRegressor"),
    "xgboost": ("xgboost.XGBClassifier", "xgboost.XGBRegressor"),
    "lightgbm": ("lightgbm.LGBMClassifier", "lightgbm.LGBMRegressor"),
}
# `auto` is a random forest: good without tuning, whatever the scales. It gets slow where
# histogram boosting gets good, and scikit-learn puts that point at ten thousand rows.
MANY_ROWS: Final = 10_000
# What the libraries' own defaults get wrong for a first fit.
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "LogisticRegression": {"max_iter": 1000},
    "MLPClassifier": {"max_iter": 1000},
    "MLPRegressor": {"max_iter": 1000},
    "LGBMClassifier": {"verbosity": -1},
    "LGBMRegressor": {"verbosity": -1},
}
SEED: Final = 0
# A category beyond the most frequent ones says little and costs a column.
MOST_CATEGORIES: Final = 100
# These compare values or count them, so the scale of a column does not matter.
SCALE_FREE: Final = ("sklearn.tree", "sklearn.ensemble", "sklearn.naive_bayes", "sklearn.dummy")
FOREIGN: Final = ("xgboost", "lightgbm")


class EstimatorUnknown(TandemError):
    """No such estimator, or it does not take such parameters."""

    title = "Estimator unknown"


@dataclass(frozen=True, slots=True)
class Columns:
    """What becomes of each column; `dropped` says why."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    dropped: Mapping[str, str]


def sort_columns(X: pd.DataFrame) -> Columns:
    """Tell numbers from categories, and from what no pipeline can learn from.

    Raises:
        DataUnusable: nothing is left.
    """
    numeric, categorical, dropped = [], [], {}
    for name in X.columns:
        if reason := _why_not(X[name]):
            dropped[name] = reason
        elif X[name].dtype.kind in "iuf":
            numeric.append(name)
        else:
            categorical.append(name)
    if not numeric and not categorical:
        told = "; ".join(f"{name}: {reason}" for name, reason in dropped.items())
        raise DataUnusable(f"no column is left to learn from. {told}")
    return Columns(tuple(numeric), tuple(categorical), dropped)


def estimator_class(name: str, task: Task, rows: int) -> Any:
    """The class behind a friendly name, or behind that of any scikit-learn classifier or regressor.

    A name that is only one of the two overrides `task`.

    Raises:
        EstimatorUnknown: there is none, or its library is not installed.
    """
    from sklearn.utils import all_estimators

    if name == "auto":
        name = "random-forest" if rows < MANY_ROWS else "hist-boosting"
    if name in ESTIMATORS:
        classifier, regressor = ESTIMATORS[name]
        wanted, other = (classifier, regressor) if task is Task.CLASSIFICATION else (regressor, classifier)
        return _imported(wanted or other or name)
    for path in (path for pair in ESTIMATORS.values() for path in pair if path):
        if path.endswith(f".{name}"):
            return _imported(path)
    found = dict(all_estimators(type_filter=["classifier", "regressor"]))
    if name not in found:
        raise EstimatorUnknown(
            f"there is no estimator {name!r}; there are auto, {', '.join(ESTIMATORS)}, and every classifier "
            "and regressor of scikit-learn by its class name"
        )
    return found[name]


def make_estimator(kind: Any, params: Mapping[str, Any]) -> Any:
    """An instance with a fixed seed where it takes one, and with `params`.

    Raises:
        EstimatorUnknown: it has no such parameter, or is built around other estimators.
    """
    try:
        estimator = kind()
    except TypeError:
        raise EstimatorUnknown(
            f"{kind.__name__} is built around other estimators: fit it in Python and use tandem export"
        ) from None
    known = estimator.get_params()
    seed = {"random_state": SEED} if "random_state" in known else {}
    wanted = seed | DEFAULTS.get(kind.__name__, {}) | dict(params)
    # The foreign libraries take parameters beyond those they list.
    unknown = [name for name in wanted if name.partition("__")[0] not in known]
    if unknown and not kind.__module__.startswith(FOREIGN):
        raise EstimatorUnknown(f"{kind.__name__} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
    return estimator.set_params(**wanted)


def build_pipeline(columns: Columns, estimator: Any, y: NDArray[Any]) -> Any:
    """The unfitted pipeline: impute and scale numbers where `estimator` needs it, one-hot categories.

    Missing numbers become the median unless the estimator takes them as they are; a missing
    category is a category of its own, and one never seen before is answered as a rare one.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.utils import get_tags

    takes = get_tags(estimator).input_tags
    is_foreign = type(estimator).__module__.startswith(FOREIGN)
    steps: list[Any] = [] if takes.allow_nan else [SimpleImputer(strategy="median", keep_empty_features=True)]
    if not type(estimator).__module__.startswith((*SCALE_FREE, *FOREIGN)):
        steps.append(StandardScaler())
    # The foreign libraries refuse some characters in column names; behind a ColumnTransformer there are none.
    if columns.categorical or is_foreign:
        # XGBoost takes a zero that a sparse matrix does not store for a missing value, and forests take missing
        # values in dense rows alone.
        sparse = takes.sparse and not is_foreign and not takes.allow_nan
        encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=sparse
        )
        numbers = make_pipeline(*steps) if steps else "passthrough"
        blocks = [("numbers", numbers, list(columns.numeric)), ("categories", encoder, list(columns.categorical))]
        steps = [ColumnTransformer([block for block in blocks if block[2]])]
    if type(estimator).__name__ == "XGBClassifier":
        estimator = _with_labels(estimator, y)
    return make_pipeline(*steps, estimator) if steps else estimator


def _why_not(column: pd.Series[Any]) -> str | None:
    """Why nothing can be learned from this column, if so."""
    if not column.notna().any():
        return "every value is missing"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "a date or time; derive numbers from it (year, weekday, age in days) to use it"
    if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind in "iufb":
        counts = column.name.startswith("Unnamed: ") and column.is_monotonic_increasing and column.is_unique
        return "the row numbers that pandas writes beside a table" if counts else None
    kinds = {type(value) for value in column.dropna()}
    if len(kinds) > 1 or not kinds <= {str, bool}:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        return f"values of type {found}; numbers, text, booleans and categories can be used, one kind to a column"
    distinct = column.nunique()
    if distinct > max(2, column.notna().sum() / 2):
        return f"text with {distinct} distinct values in {len(column)} rows: an identifier or free text"
    return None


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise EstimatorUnknown(f"{name} needs {module}, which is not installed: pip install {module}") from error


def _with_labels(estimator: Any, y: NDArray[Any]) -> Any:
    """XGBoost wants classes 0, 1, 2, …; a vote of one translates them, and any service may open it."""
    from sklearn.ensemble import VotingClassifier

    classes = np.unique(y)
    if np.array_equal(classes, np.arange(classes.size)):
        return estimator
    return VotingClassifier([("xgboost", estimator)], voting="soft")
