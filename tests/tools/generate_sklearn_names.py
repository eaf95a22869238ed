"""Writes `service/repository/sklearn_names.txt`: the scikit-learn names that fitted models use.

Run it after a change of the pinned scikit-learn, and read the difference:

    python -m tests.tools.generate_sklearn_names
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import sklearn
from sklearn.base import BaseEstimator

TARGET: Final = Path(__file__).parents[2] / "service" / "repository" / "sklearn_names.txt"

# Files, downloads, test helpers, drawing, borrowed packages: nothing a fitted model is made of.
_SKIPPED: Final = {
    "callback", "conftest", "datasets", "experimental", "externals", "inspection", "tests",
    "_build_utils", "_mocking", "_plot", "_pprint", "_repr_html", "_testing", "estimator_checks",
}  # fmt: skip

# Modules whose every class serves fitted models: losses, distances, trees of neighbours, kernels,
# optimisers, splitters. `newObj` and `__pyx_unpickle_…` are how Cython classes are pickled.
_WHOLE: Final = (
    "_loss._loss", "_loss.link", "_loss.loss", "gaussian_process.kernels", "linear_model._sgd_fast",
    "metrics._dist_metrics", "model_selection._split", "neighbors._ball_tree", "neighbors._kd_tree",
    "neural_network._stochastic_optimizers",
)  # fmt: skip

# Single names out of modules that hold other things as well.
_SINGLE: Final = (
    "calibration._CalibratedClassifier",
    "cluster._birch._CFNode",
    "cluster._birch._CFSubcluster",
    "cluster._bisect_k_means._BisectingTree",
    "cluster._kmeans._kmeans_single_elkan",
    "cluster._kmeans._kmeans_single_lloyd",
    "compose._column_transformer.make_column_selector",
    "ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "feature_extraction.text.strip_accents_ascii",
    "feature_extraction.text.strip_accents_unicode",
    "feature_extraction.text.strip_tags",
    "impute._iterative._ImputerTriplet",
    "metrics._scorer._CurveScorer",
    "metrics._scorer._MultimetricScorer",
    "metrics._scorer._PassthroughScorer",
    "metrics._scorer._Scorer",
    "preprocessing._function_transformer._identity",
    "tree._tree.Tree",
    "utils._bunch.Bunch",
    "utils.validation.check_array",
    "utils._metadata_requests.MetadataRequest",
    "utils._metadata_requests.MetadataRouter",
    "utils._metadata_requests.MethodMapping",
    "utils._metadata_requests.MethodMetadataRequest",
    "utils._metadata_requests.MethodPair",
    "utils._metadata_requests.RouterMappingPair",
)

# Packages whose public functions turn arrays into numbers or arrays, and are given as `scoring`,
# `score_func`, `metric` or `func`. None reads, writes or evaluates, and the opener calls none.
_ARITHMETIC: Final = ("feature_selection", "metrics", "metrics.cluster", "metrics.pairwise", "preprocessing")
_NOT_ARITHMETIC: Final = ("_", "check_", "distance_metrics", "get_", "kernel_metrics", "make_")


def names() -> list[str]:
    """Every name of the installed scikit-learn that belongs in the file, sorted."""
    found = {f"sklearn.{name}" for name in _SINGLE}
    for module in _modules():
        whole = module.__name__.removeprefix("sklearn.") in _WHOLE
        for name, value in vars(module).items():
            if _is_estimator(value, module) or (whole and _is_part(name, value, module)):
                found.add(f"{module.__name__}.{name}")
    for package in _ARITHMETIC:
        for name, value in vars(importlib.import_module(f"sklearn.{package}")).items():
            defined_here = getattr(value, "__module__", "").startswith(f"sklearn.{package.partition('.')[0]}.")
            if inspect.isfunction(value) and defined_here and not name.startswith(_NOT_ARITHMETIC):
                found.add(f"{value.__module__}.{value.__name__}")
    return sorted(found)


def _modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(sklearn.__path__, "sklearn.", onerror=lambda name: None):
        if not _SKIPPED.intersection(info.name.split(".")):
            yield importlib.import_module(info.name)


def _is_estimator(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, BaseEstimator) and value.__module__ == module.__name__


def _is_part(name: str, value: Any, module: ModuleType) -> bool:
    if name == "newObj" or name.startswith("__pyx_unpickle_"):
        return True
    return isinstance(value, type) and value.__module__ == module.__name__


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TARGET.write_text("".join(f"{name}\n" for name in names()), "utf-8")
