# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Many models and one answer, or one model for each of several targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.compile.onnx_formulas import (
    Labels,
    NoFormula,
    ask,
    both,
    formula,
    labels,
    matrix,
    numbers,
    one_hot,
    shares,
    sigmoid,
    softmax,
)
from training.compile.onnx_graph import Tensor, concat, stack
from training.compile.onnx_preprocessing import isotonic

# -- many models, one answer --------------------------------------------------------------------------


def _average(parts: list[Tensor], weights: Any = None) -> Tensor:
    """`numpy.average` over the parts."""
    total = None
    for index, part in enumerate(parts):
        part = part if weights is None else part * float(weights[index])
        total = part if total is None else total + part
    assert total is not None
    return total / float(len(parts) if weights is None else np.sum(weights))


@formula("predict_proba", "VotingClassifier", raw=True)
def vote_softly(e: Any, x: Any) -> Tensor:
    return _average([ask(one, "predict_proba", x) for one in e.estimators_], e._weights_not_none)


@formula("labels", "VotingClassifier", raw=True)
def vote(e: Any, x: Any) -> Labels:
    if e.voting == "soft":
        return Labels(vote_softly(e, x), np.asarray(e.classes_))
    weights = e._weights_not_none or [1.0] * len(e.estimators_)
    votes = [one_hot(_encoded(one, x), len(e.classes_)) for one in e.estimators_]
    return Labels(_average(votes, weights), np.asarray(e.classes_))


def _encoded(one: Any, x: Any) -> Tensor:
    """Labels of a model that was fitted on 0, 1, 2, …"""
    return labels(one, x)[0].values().cast("int64")


@formula("transform", "VotingClassifier", raw=True)
def vote_transform(e: Any, x: Any) -> Tensor:
    if e.voting == "hard":
        return stack([_encoded(one, x) for one in e.estimators_])
    if not e.flatten_transform:
        raise NoFormula("votes in three dimensions")
    return concat([ask(one, "predict_proba", x) for one in e.estimators_])


@formula("predict", "VotingRegressor", raw=True)
def mean_vote(e: Any, x: Any) -> Tensor:
    return _average([numbers(one, x) for one in e.estimators_], e._weights_not_none)


@formula("transform", "VotingRegressor", raw=True)
def votes(e: Any, x: Any) -> Tensor:
    return stack([numbers(one, x) for one in e.estimators_])


@formula("transform", "StackingClassifier", "StackingRegressor", raw=True)
def stacked(e: Any, x: Any) -> Tensor:
    """What the first layer answers; of two classes' probabilities, the second's."""
    parts = []
    for one, method in zip(e.estimators_, e.stack_method_, strict=True):
        part = numbers(one, x) if method == "predict" else ask(one, method, x)
        if isinstance(part, list):
            raise NoFormula("stacking of several targets")
        if method == "predict_proba":
            part = part.columns([1]) if len(e.classes_) == 2 else part
        elif method == "predict" or len(e.classes_) == 2:
            part = part.expand()
        parts.append(part)
    return concat([*parts, matrix(x)] if e.passthrough else parts)


@formula("predict_proba", "StackingClassifier", raw=True)
def stacked_proba(e: Any, x: Any) -> Any:
    return ask(e.final_estimator_, "predict_proba", stacked(e, x))


@formula("decision_function", "StackingClassifier", raw=True)
def stacked_decision(e: Any, x: Any) -> Any:
    return ask(e.final_estimator_, "decision_function", stacked(e, x))


@formula("predict", "StackingRegressor", raw=True)
def stacked_regression(e: Any, x: Any) -> Tensor:
    return numbers(e.final_estimator_, stacked(e, x))


@formula("labels", "StackingClassifier", raw=True)
def stacked_labels(e: Any, x: Any) -> Labels:
    if isinstance(e.classes_, list):
        raise NoFormula("stacking of several targets")
    (found,) = labels(e.final_estimator_, stacked(e, x))
    return Labels(found.scores, np.asarray(e.classes_)[found.classes], found.is_single, found.is_inclusive)


def _bags(e: Any, x: Tensor) -> list[tuple[Any, Tensor]]:
    everything = np.arange(e.n_features_in_)
    return [
        (one, x if np.array_equal(chosen, everything) else x.columns(chosen))
        for one, chosen in zip(e.estimators_, e.estimators_features_, strict=True)
    ]


@formula("predict", "BaggingRegressor")
def bagged(e: Any, x: Tensor) -> Tensor:
    return _average([numbers(one, part) for one, part in _bags(e, x)])


@formula("predict_proba", "BaggingClassifier")
def bagged_proba(e: Any, x: Tensor) -> Tensor:
    n = e.n_classes_
    parts = []
    for one, part in _bags(e, x):
        if not hasattr(one, "predict_proba"):
            parts.append(one_hot(_encoded(one, part), n))
            continue
        p = ask(one, "predict_proba", part)
        # A bag may have missed a class.
        parts.append(p if len(one.classes_) == n else p @ np.eye(n)[np.asarray(one.classes_, dtype=int)])
    return _average(parts)


@formula("decision_function", "BaggingClassifier")
def bagged_decision(e: Any, x: Tensor) -> Tensor:
    return _average([ask(one, "decision_function", part) for one, part in _bags(e, x)])


@formula("labels", "BaggingClassifier")
def bagged_labels(e: Any, x: Tensor) -> Labels:
    return Labels(bagged_proba(e, x), np.asarray(e.classes_))


@formula("decision_function", "AdaBoostClassifier")
def adaptive(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.ensemble.AdaBoostClassifier.decision_function`."""
    n, weights = len(e.classes_), np.asarray(e.estimator_weights_, dtype=float)
    total = None
    for one, weight in zip(e.estimators_, weights, strict=False):
        found = labels(one, x)[0]
        places = np.searchsorted(e.classes_, found.classes)
        table = np.where(np.eye(n)[places] == 1, weight, -weight / (n - 1))
        part = found.index().lookup(table)
        total = part if total is None else total + part
    assert total is not None
    scores = total / weights.sum()
    return scores.column(1) - scores.column(0) if n == 2 else scores


@formula("predict_proba", "AdaBoostClassifier")
def adaptive_proba(e: Any, x: Tensor) -> Tensor:
    n = len(e.classes_)
    scores = adaptive(e, x)
    return softmax(stack([-scores, scores]) / 2.0) if n == 2 else softmax(scores / float(n - 1))


@formula("predict", "AdaBoostRegressor")
def weighted_median(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.ensemble.AdaBoostRegressor._get_median_predict`."""
    weights = np.asarray(e.estimator_weights_, dtype=float)[: len(e.estimators_)]
    answers = stack([numbers(one, x) for one in e.estimators_])
    n = len(e.estimators_)
    ranked, order = x.graph.ops("TopK", (answers, np.array([n])), ("double", "int64"), axis=1, largest=0, sorted=1)
    sums = order.lookup(weights) @ np.triu(np.ones((n, n)))
    chosen = (sums >= 0.5 * sums.columns([n - 1])).cast("int64").argmax()
    return (ranked * one_hot(chosen, n)).sum()


@formula("predict_proba", "CalibratedClassifierCV", raw=True)
def calibrated(e: Any, x: Any) -> Tensor:
    return _average([_calibrated_once(one, x, len(e.classes_)) for one in e.calibrated_classifiers_])


def _calibrated_once(one: Any, x: Any, n: int) -> Tensor:
    """Source: `sklearn.calibration._CalibratedClassifier.predict_proba`."""
    if one.method not in ("sigmoid", "isotonic"):
        raise NoFormula(f"calibration by {one.method}")
    if len(one.estimator.classes_) != n:
        raise NoFormula("calibration of a model that missed a class")
    has_decision = hasattr(one.estimator, "decision_function")
    scores = ask(one.estimator, "decision_function" if has_decision else "predict_proba", x)
    columns = [scores if has_decision else scores.column(1)] if n == 2 else [scores.column(index) for index in range(n)]
    p = [
        isotonic(c, column) if one.method == "isotonic" else sigmoid(-(column * float(c.a_) + float(c.b_)))
        for c, column in zip(one.calibrators, columns, strict=True)
    ]
    if n == 2:
        return both(p[0])
    return shares(stack(p), 1.0 / n)


@formula("labels", "CalibratedClassifierCV", raw=True)
def calibrated_labels(e: Any, x: Any) -> Labels:
    return Labels(calibrated(e, x), np.asarray(e.classes_))


# -- several targets ----------------------------------------------------------------------------------


@formula("predict", "MultiOutputRegressor", raw=True)
def each_target(e: Any, x: Any) -> Tensor:
    return stack([numbers(one, x) for one in e.estimators_])


@formula("predict_proba", "MultiOutputClassifier", raw=True)
def each_target_proba(e: Any, x: Any) -> list[Tensor]:
    return [ask(one, "predict_proba", x) for one in e.estimators_]


@formula("labels", "MultiOutputClassifier", raw=True)
def each_target_labels(e: Any, x: Any) -> list[Labels]:
    return [found for one in e.estimators_ for found in labels(one, x)]


@formula("predict", "RegressorChain")
def chain(e: Any, x: Tensor) -> Tensor:
    answers: list[Tensor] = []
    for one in e.estimators_:
        answers.append(numbers(one, concat([x, stack(answers)]) if answers else x))
    return stack(answers).columns(np.argsort(e.order_))


def _chained(e: Any, x: Tensor, method: str) -> list[Tensor]:
    """Each classifier's own answer; the labels of those before are columns of its input."""
    if e.chain_method_ != "predict":
        raise NoFormula(f"a chain by {e.chain_method_}")
    before: list[Tensor] = []
    answers = []
    for one in e.estimators_:
        wide = concat([x, stack(before)]) if before else x
        found = labels(one, wide)[0]
        before.append(found.values())
        if method == "labels":
            answers.append(found.index().cast("double"))
        else:
            answer = ask(one, method, wide)
            answers.append(answer.column(1) if method == "predict_proba" else answer)
    return [answers[index] for index in np.argsort(e.order_)]


@formula("predict_proba", "ClassifierChain")
def chain_proba(e: Any, x: Tensor) -> Tensor:
    return stack(_chained(e, x, "predict_proba"))


@formula("decision_function", "ClassifierChain")
def chain_decision(e: Any, x: Tensor) -> Tensor:
    return stack(_chained(e, x, "decision_function"))


@formula("predict", "ClassifierChain")
def chain_labels(e: Any, x: Tensor) -> Tensor:
    if any(list(classes) != [0, 1] for classes in e.classes_):
        raise NoFormula("a chain of labels other than 0 and 1")
    return stack(_chained(e, x, "labels"))


# -- models that do not look --------------------------------------------------------------------------


@formula("predict", "DummyRegressor")
def constant(e: Any, x: Tensor) -> Tensor:
    value = np.asarray(e.constant_, dtype=float).reshape(-1)
    if len(value) != 1:
        raise NoFormula("constants for several targets")
    return (x.columns([0]) * 0.0).isnan().where(value[0], value[0]).squeeze()


@formula("predict_proba", "DummyClassifier")
def prior(e: Any, x: Tensor) -> Tensor:
    if e.strategy in ("stratified",) or e.n_outputs_ != 1:
        raise NoFormula(f"a dummy that answers {e.strategy}")
    match e.strategy:
        case "prior":
            p = np.asarray(e.class_prior_, dtype=float)
        case "most_frequent":
            p = np.eye(e.n_classes_)[np.argmax(e.class_prior_)]
        case "uniform":
            p = np.full(e.n_classes_, 1.0 / e.n_classes_)
        case _:
            p = (np.asarray(e.classes_) == np.asarray(e.constant).reshape(-1)[0]).astype(float)
    return (x.columns([0]) * 0.0).isnan().where(p, p)


@formula("labels", "DummyClassifier")
def prior_labels(e: Any, x: Tensor) -> Labels:
    if e.strategy == "uniform":
        raise NoFormula("a dummy that answers by chance")
    return Labels(prior(e, x), np.asarray(e.classes_))
