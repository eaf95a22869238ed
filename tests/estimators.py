"""Every scikit-learn estimator that answers requests, fitted on a small table, all within seconds."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import all_estimators

# The experimental estimators join `all_estimators` once anybody has imported these.
_EXPERIMENTAL: Final = (enable_halving_search_cv, enable_iterative_imputer)

ANSWERS: Final = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples",
)  # fmt: skip

LEFT_OUT: Final[dict[str, str]] = {}
"""Estimators that offer an answer but cannot be fitted here, with the reason. None, so far."""

ROWS, COLUMNS, CLASSES = 40, 4, 3

# Non-negative, so that the chi2, NMF, Poisson and Gamma families fit as well.
_TABLE = np.random.RandomState(0).uniform(0.1, 2.0, size=(ROWS, COLUMNS))
_LABELS = np.arange(ROWS) % CLASSES
_TABLE[:, 0] += _LABELS  # something to learn
_AMOUNTS = _TABLE @ np.array([1.0, 2.0, 0.5, 1.5])
_COLOURS = ("red", "green", "blue")
_TEXTS = [f"{_COLOURS[label]} word{row % 5} tail" for row, label in enumerate(_LABELS)]
_INDICATORS = np.column_stack([_LABELS == 0, _LABELS == 1]).astype(int)

_CLASSIFIER = LogisticRegression(max_iter=200)
_REGRESSOR = Ridge()

# What a constructor must be told; everything else keeps its default.
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "ClassifierChain": {"estimator": _CLASSIFIER},
    "ColumnTransformer": {"transformers": [("scale", StandardScaler(), [0, 1]), ("keep", "passthrough", [2])]},
    "FeatureUnion": {"transformer_list": [("scale", StandardScaler()), ("range", MinMaxScaler())]},
    "FixedThresholdClassifier": {"estimator": _CLASSIFIER},
    "GridSearchCV": {"estimator": _CLASSIFIER, "param_grid": {"C": [0.5, 1.0]}, "cv": 2},
    "HalvingGridSearchCV": {"estimator": _CLASSIFIER, "param_grid": {"C": [0.5, 1.0]}, "cv": 2},
    "HalvingRandomSearchCV": {"estimator": _CLASSIFIER, "param_distributions": {"C": [0.5, 1.0]}, "cv": 2},
    "MultiOutputClassifier": {"estimator": _CLASSIFIER},
    "MultiOutputRegressor": {"estimator": _REGRESSOR},
    "OneVsOneClassifier": {"estimator": _CLASSIFIER},
    "OneVsRestClassifier": {"estimator": _CLASSIFIER},
    "OutputCodeClassifier": {"estimator": _CLASSIFIER},
    "Pipeline": {"steps": [("scale", StandardScaler()), ("classify", _CLASSIFIER)]},
    "RFE": {"estimator": _CLASSIFIER},
    "RFECV": {"estimator": _CLASSIFIER, "cv": 2},
    "RandomizedSearchCV": {
        "estimator": _CLASSIFIER,
        "param_distributions": {"C": [0.5, 1.0]},
        "n_iter": 2,
        "cv": 2,
    },
    "RegressorChain": {"estimator": _REGRESSOR},
    "SelectFromModel": {"estimator": _CLASSIFIER},
    "SelfTrainingClassifier": {"estimator": _CLASSIFIER},
    "SequentialFeatureSelector": {"estimator": _CLASSIFIER, "cv": 2},
    "SparseCoder": {"dictionary": _TABLE[:6]},
    "StackingClassifier": {"estimators": [("dummy", DummyClassifier()), ("linear", _CLASSIFIER)], "cv": 2},
    "StackingRegressor": {"estimators": [("ridge", _REGRESSOR), ("linear", LinearRegression())], "cv": 2},
    "TunedThresholdClassifierCV": {"estimator": _CLASSIFIER, "cv": 2},
    "VotingClassifier": {"estimators": [("dummy", DummyClassifier()), ("linear", _CLASSIFIER)]},
    "VotingRegressor": {"estimators": [("ridge", _REGRESSOR), ("linear", LinearRegression())]},
    "LocalOutlierFactor": {"novelty": True},
    # Defaults that do not suit 40 x 4.
    "BernoulliRBM": {"n_components": 3, "n_iter": 3},
    "BisectingKMeans": {"n_clusters": 3},
    "HashingVectorizer": {"n_features": 32},
    "FeatureHasher": {"n_features": 16, "input_type": "string"},
    "GaussianRandomProjection": {"n_components": 2},
    "SparseRandomProjection": {"n_components": 2},
    "RandomTreesEmbedding": {"max_depth": 3},
    "SelectKBest": {"k": 2},
    "TransformedTargetRegressor": {"regressor": _REGRESSOR},
    "LatentDirichletAllocation": {"n_components": 3, "max_iter": 3},
    "PatchExtractor": {"patch_size": (2, 2)},
    "QuantileTransformer": {"n_quantiles": 10},
    "RANSACRegressor": {"min_samples": 10},
    "CCA": {"n_components": 1},
    "PLSCanonical": {"n_components": 1},
    "PLSSVD": {"n_components": 1},
    "PLSRegression": {"n_components": 2},
    "DictionaryLearning": {"n_components": 3, "max_iter": 5},
    "MiniBatchDictionaryLearning": {"n_components": 3, "max_iter": 5},
    "SparsePCA": {"n_components": 2, "max_iter": 5},
    "MiniBatchSparsePCA": {"n_components": 2, "max_iter": 5},
}

# Given to every estimator that knows the word.
_HABITS: Final[dict[str, Any]] = {"random_state": 0, "n_estimators": 5, "n_jobs": 1}


def fitted_estimators() -> Iterator[tuple[str, Any, Any]]:
    """(name, fitted estimator, X) for every estimator of `answering_estimators` not in `LEFT_OUT`.

    `X` is what `predict` or `transform` is to be given: mostly an array of shape (40, 4). The
    result is the same on every call. Convergence warnings are silenced: nobody reads the models.
    """
    for name, kind in answering_estimators():
        if name not in LEFT_OUT:
            X, y = _data(name, kind)
            estimator = kind(**_arguments(name, kind))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                estimator.fit(X) if y is None else estimator.fit(X, y)
            yield name, estimator, X


def answering_estimators() -> list[tuple[str, type]]:
    """(name, class) of everything in scikit-learn that can answer a request, by name."""
    return [(name, kind) for name, kind in all_estimators() if any(hasattr(kind, a) for a in ANSWERS)]


def _arguments(name: str, kind: type) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    return {word: value for word, value in _HABITS.items() if word in known} | _ARGUMENTS.get(name, {})


def _data(name: str, kind: type) -> tuple[Any, Any]:
    """What to fit on: X of shape (40, 4), unless the estimator wants text, labels, distances, …"""
    match name:
        case "CountVectorizer" | "TfidfVectorizer" | "HashingVectorizer":
            return _TEXTS, None
        case "FeatureHasher":
            return [text.split() for text in _TEXTS], None
        case "DictVectorizer":
            return [{"colour": text.partition(" ")[0], "size": float(row)} for row, text in enumerate(_TEXTS)], None
        case "LabelEncoder" | "LabelBinarizer":
            return _LABELS, None
        case "MultiLabelBinarizer":
            return [(int(label), int(label) + 1) for label in _LABELS], None
        case "PatchExtractor":
            return _TABLE.reshape(10, 4, 4), None
        case "IsotonicRegression":
            return _TABLE[:, 0], _AMOUNTS
        case "KernelCenterer":
            return _TABLE @ _TABLE.T, None
        case "CCA" | "PLSCanonical" | "PLSRegression" | "PLSSVD" | "RegressorChain" | "MultiOutputRegressor":
            return _TABLE, np.column_stack([_AMOUNTS, _TABLE[:, 1]])
        case "MultiTaskElasticNet" | "MultiTaskElasticNetCV" | "MultiTaskLasso" | "MultiTaskLassoCV":
            return _TABLE, np.column_stack([_AMOUNTS, _TABLE[:, 1]])
        case "ClassifierChain" | "MultiOutputClassifier":
            return _TABLE, _INDICATORS
        case "FixedThresholdClassifier" | "TunedThresholdClassifierCV":
            return _TABLE, (_LABELS == 0).astype(int)
        case _ if issubclass(kind, RegressorMixin):
            return _TABLE, _AMOUNTS
    return _TABLE, _LABELS
