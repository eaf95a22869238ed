"""scikit-learn's forests, boosting and isolation forests as Treelite models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from service.runtimes.treelite_recipe import Recipe
from training.compile.treelite_trees import Ensemble, NotCompiled, base_first


def read_sklearn(estimator: Any) -> Ensemble:
    """The trees of a fitted estimator of scikit-learn itself; a subclass may have changed any method.

    Raises:
        NotCompiled: it has no trees that Treelite takes.
    """
    kind = type(estimator)
    read = _READERS.get(kind.__qualname__) if kind.__module__.startswith("sklearn.ensemble.") else None
    if read is None:
        raise NotCompiled(f"{kind.__qualname__} is not an ensemble of trees that Treelite knows")
    return read(estimator)


def _forest_classifier(estimator: Any) -> Ensemble:
    counts = tuple(int(count) for count in np.atleast_1d(estimator.n_classes_))
    if max(counts) == 1:
        raise NotCompiled("it knows one class only, and Treelite counts two at least")
    targets = counts if len(counts) > 1 else None
    model = _import(estimator)
    for number, tree in enumerate(estimator.estimators_):
        # Treelite divides each leaf by its sum once more, which gives other last digits, and other ties.
        leaves = _leaves(model, number, tree)
        own = np.ascontiguousarray(tree.tree_.value[leaves].ravel())
        accessor = model.get_tree_accessor(number)
        if accessor.get_field("leaf_vector").shape != own.shape:
            raise NotCompiled("Treelite keeps the leaves of a forest in another way than scikit-learn")
        accessor.set_field("leaf_vector", own)
    return Ensemble(model, Recipe(scores="votes", cast="float32", targets=targets))


def _forest_regressor(estimator: Any) -> Ensemble:
    return Ensemble(_import(estimator), Recipe(scores="values", cast="float32"))


def _boosting_classifier(estimator: Any) -> Ensemble:
    several = estimator.n_trees_per_iteration_ > 1
    recipe = Recipe(
        scores="margins",
        cast="float32",
        link="softmax" if several else "sigmoid",
        slope=2.0 if estimator.loss == "exponential" else 1.0,  # its link is half a logit
        decide="at_least_zero",
    )
    return Ensemble(base_first(_import(estimator)), recipe)


def _boosting_regressor(estimator: Any) -> Ensemble:
    return Ensemble(base_first(_import(estimator)), Recipe(scores="values", cast="float32"))


def _histogram_classifier(estimator: Any) -> Ensemble:
    several = estimator.n_trees_per_iteration_ > 1
    recipe = Recipe(scores="margins", cast="float64", link="softmax" if several else "sigmoid", decide="above_zero")
    return _histogram(estimator, recipe)


def _histogram_regressor(estimator: Any) -> Ensemble:
    link = type(estimator._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotCompiled(f"its loss has a {link}, which this compiler does not know")
    recipe = Recipe(scores="values", cast="float64", link="exponential" if link == "LogLink" else "identity")
    return _histogram(estimator, recipe)


def _histogram(estimator: Any, recipe: Recipe) -> Ensemble:
    """Categories are coded on the way in, by the estimator's own encoder's lists: Treelite takes no texts."""
    bare = copy.copy(estimator)
    categorical = estimator.is_categorical_
    if categorical is not None and estimator._preprocessor is not None:
        # The encoder puts the categorical columns first, and the trees count them so.
        first, others = np.flatnonzero(categorical), np.flatnonzero(~categorical)
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        codes = {int(column): _known(values) for column, values in zip(first, encoder.categories_, strict=True)}
        order = tuple(int(column) for column in (*first, *others))
        recipe = recipe.model_copy(update={"codes": codes, "order": order})
        bare._preprocessor = None
    return Ensemble(base_first(_import(bare)), recipe)


def _known(values: Any) -> list[Any]:
    """The categories of one column in the order of their codes; what stands for missing has no code."""
    known = np.asarray(values).tolist()
    kept = [value for value in known if value is not None and value == value]
    if kept != known[: len(kept)]:
        raise NotCompiled("its encoder has a missing category among the others")
    if not all(isinstance(value, str | int | float | bool) for value in kept):
        raise NotCompiled("it has categories that JSON cannot carry")
    return kept


def _isolation_forest(estimator: Any) -> Ensemble:
    """Leaves get scikit-learn's own path lengths, which are summed, not averaged: bit for bit its numbers."""
    from sklearn.ensemble._iforest import _average_path_length

    model = _import(estimator)
    trees = zip(
        estimator.estimators_,
        estimator._decision_path_lengths,
        estimator._average_path_length_per_tree,
        strict=True,
    )
    for number, (tree, depths, lengths) in enumerate(trees):
        leaves = _leaves(model, number, tree)
        model.get_tree_accessor(number).set_field("leaf_value", np.where(leaves, depths + lengths - 1.0, 0.0))
    denominator = float(len(estimator.estimators_) * _average_path_length([estimator._max_samples])[0])
    if not denominator:
        raise NotCompiled("it was fitted on one row, and every score is the same")
    header = model.get_header_accessor()
    header.set_field("average_tree_output", np.array([0], dtype=np.uint8))
    header.set_field("ratio_c", np.array([denominator], dtype=np.float32))
    recipe = Recipe(scores="depths", cast="float32", denominator=denominator, offset=float(estimator.offset_))
    return Ensemble(model, recipe)


def _leaves(model: Any, number: int, tree: Any) -> Any:
    """Which nodes of a tree are leaves, as a mask; both libraries number the nodes alike."""
    leaves = tree.tree_.children_left == -1
    if not np.array_equal(model.get_tree_accessor(number).get_field("cleft") == -1, leaves):
        raise NotCompiled("Treelite numbers the nodes of a tree in another way than scikit-learn")
    return leaves


def _import(estimator: Any) -> Any:
    import treelite

    try:
        return treelite.sklearn.import_model(estimator)
    except Exception as error:  # Treelite asserts what it expects of scikit-learn's inside
        raise NotCompiled(f"Treelite: {error or type(error).__name__}"[:300]) from error


_READERS: Final[dict[str, Callable[[Any], Ensemble]]] = {
    "RandomForestClassifier": _forest_classifier,
    "RandomForestRegressor": _forest_regressor,
    "ExtraTreesClassifier": _forest_classifier,
    "ExtraTreesRegressor": _forest_regressor,
    "GradientBoostingClassifier": _boosting_classifier,
    "GradientBoostingRegressor": _boosting_regressor,
    "HistGradientBoostingClassifier": _histogram_classifier,
    "HistGradientBoostingRegressor": _histogram_regressor,
    "IsolationForest": _isolation_forest,
}
