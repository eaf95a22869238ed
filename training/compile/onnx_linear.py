# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Linear models, and what is linear in disguise."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from training.compile.onnx_formulas import Labels, NoFormula, ask, both, formula, labels, shares, sigmoid, softmax
from training.compile.onnx_graph import Tensor, stack

REGRESSORS: Final = (
    "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "Lars", "LarsCV",
    "LassoLars", "LassoLarsCV", "LassoLarsIC", "OrthogonalMatchingPursuit", "OrthogonalMatchingPursuitCV",
    "BayesianRidge", "ARDRegression", "HuberRegressor", "TheilSenRegressor", "SGDRegressor", "LinearSVR",
    "PassiveAggressiveRegressor", "QuantileRegressor", "MultiTaskLasso", "MultiTaskLassoCV", "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
)  # fmt: skip
CLASSIFIERS: Final = (
    "LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "Perceptron", "PassiveAggressiveClassifier",
    "RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "LinearDiscriminantAnalysis",
)  # fmt: skip


def affine(x: Tensor, coef: Any, intercept: Any) -> Tensor:
    """`x @ coef.T + intercept`: shape (rows,) for one row of coefficients, else (rows, len(coef))."""
    coef, intercept = np.asarray(coef, dtype=float), np.asarray(intercept, dtype=float)
    if coef.ndim == 2 and len(coef) == 1:
        coef, intercept = coef[0], intercept.reshape(-1)[0] if intercept.size else intercept
    return x @ coef.T + intercept


@formula("predict", *REGRESSORS)
def regression(e: Any, x: Tensor) -> Tensor:
    y = affine(x, e.coef_, e.intercept_)
    return y.expand() if np.ndim(e.coef_) == 2 and len(e.coef_) == 1 else y


@formula("predict", "PoissonRegressor", "GammaRegressor", "TweedieRegressor")
def generalized(e: Any, x: Tensor) -> Tensor:
    y = affine(x, e.coef_, e.intercept_)
    link = type(e._base_loss.link).__name__
    if link not in ("LogLink", "IdentityLink"):
        raise NoFormula(f"a regression with {link}")
    return y.op("Exp") if link == "LogLink" else y


@formula("decision_function", *CLASSIFIERS)
def decision(e: Any, x: Tensor) -> Tensor:
    return affine(x, e.coef_, e.intercept_)


@formula("labels", "RidgeClassifier", "RidgeClassifierCV")
def ridge_labels(e: Any, x: Tensor) -> Labels | list[Labels]:
    scores = affine(x, e.coef_, e.intercept_)
    if e._label_binarizer.y_type_.startswith("multilabel"):
        raise NoFormula("ridge classification of several labels")
    return Labels(scores, np.asarray(e.classes_), is_single=len(e.classes_) == 2)


@formula("predict_proba", "LogisticRegression", "LogisticRegressionCV")
def logistic(e: Any, x: Tensor) -> Tensor:
    scores = affine(x, e.coef_, e.intercept_)
    return both(sigmoid(scores)) if len(e.classes_) <= 2 else softmax(scores)


@formula("predict_proba", "LinearDiscriminantAnalysis")
def discriminant(e: Any, x: Tensor) -> Tensor:
    scores = affine(x, e.coef_, e.intercept_)
    return both(sigmoid(scores)) if len(e.classes_) == 2 else softmax(scores)


@formula("predict_log_proba", "LinearDiscriminantAnalysis")
def discriminant_log(e: Any, x: Tensor) -> Tensor:
    p = discriminant(e, x)
    return p.equals(0.0).where(np.finfo(np.float64).smallest_normal, p).op("Log")


@formula("predict_proba", "SGDClassifier")
def stochastic(e: Any, x: Tensor) -> Tensor:
    scores = affine(x, e.coef_, e.intercept_)
    if e.loss == "modified_huber":
        p = (scores.clip(-1.0, 1.0) + 1.0) / 2.0
        if len(e.classes_) == 2:
            return both(p)
        return shares(p, 1.0 / len(e.classes_))
    p = sigmoid(scores)
    return both(p) if len(e.classes_) == 2 else shares(p, 1.0 / len(e.classes_))


@formula("transform", "LinearDiscriminantAnalysis")
def discriminant_axes(e: Any, x: Tensor) -> Tensor:
    centred = x - e.xbar_ if e.solver == "svd" else x
    return centred @ e.scalings_[:, : e._max_components]


@formula("decision_function", "OneVsRestClassifier")
def each_against_rest(e: Any, x: Tensor) -> Tensor:
    scores = [ask(one, "decision_function", x) for one in e.estimators_]
    return scores[0] if len(scores) == 1 else stack(scores)


@formula("predict_proba", "OneVsRestClassifier")
def each_against_rest_proba(e: Any, x: Tensor) -> Tensor:
    p = [ask(one, "predict_proba", x).column(1) for one in e.estimators_]
    if e.multilabel_:
        return stack(p)
    return both(p[0]) if len(p) == 1 else shares(stack(p), 0.0)


@formula("labels", "OneVsRestClassifier")
def each_against_rest_labels(e: Any, x: Tensor) -> Labels | list[Labels]:
    scores = [second_score(one, x) for one in e.estimators_]
    threshold = _threshold(e.estimators_[0])
    if e.multilabel_:
        return [Labels(score - threshold, np.array([0, 1]), is_single=True) for score in scores]
    if len(scores) > 1:
        return Labels(stack(scores), np.asarray(e.classes_))
    return Labels(scores[0] - threshold, np.asarray(e.classes_), is_single=True)


@formula("decision_function", "OneVsOneClassifier")
def each_against_each(e: Any, x: Tensor) -> Tensor:
    """Votes, and the sum of the scores as a third of a vote. Source: `sklearn.multiclass._ovr_decision_function`."""
    scores, votes = [], []
    for one in e.estimators_:
        scores.append(second_score(one, x))
        votes.append(labels(one, x)[0].index().cast("double"))
    found = ovr_scores(stack(votes), -stack(scores), len(e.classes_))
    return found.column(1) if len(e.classes_) == 2 else found


@formula("labels", "OneVsOneClassifier")
def each_against_each_labels(e: Any, x: Tensor) -> Labels:
    scores = each_against_each(e, x)
    if len(e.classes_) > 2:
        return Labels(scores, np.asarray(e.classes_))
    return Labels(scores - _threshold(e.estimators_[0]), np.asarray(e.classes_), is_single=True)


def _threshold(one: Any) -> float:
    """Where the second class begins. Source: `sklearn.multiclass._threshold_for_binary_predict`."""
    return 0.0 if hasattr(one, "decision_function") else 0.5


def ovr_scores(second_wins: Tensor, confidences: Tensor, n: int) -> Tensor:
    """Scores per class from (rows, n (n - 1) / 2) duels i < j; positive confidence is for the first of the two.

    `second_wins` is 1 where j wins and 0 where i does.
    Source: `sklearn.utils.multiclass._ovr_decision_function`.
    """
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    first, second = (np.zeros((len(pairs), n)) for _ in range(2))
    for duel, (i, j) in enumerate(pairs):
        first[duel, i] = second[duel, j] = 1.0
    votes = (1.0 - second_wins) @ first + second_wins @ second
    sums = confidences @ (first - second)
    return votes + sums / (3.0 * (sums.op("Abs") + 1.0))


@formula("labels", "OutputCodeClassifier")
def codes(e: Any, x: Tensor) -> Labels:
    y = stack([second_score(one, x) for one in e.estimators_])
    book = np.asarray(e.code_book_, dtype=float)
    # The nearest code: |y|² is the same for all, and does not change which is nearest.
    return Labels(y @ (2.0 * book.T) - (book**2).sum(axis=1), np.asarray(e.classes_))


def second_score(one: Any, x: Tensor) -> Tensor:
    """What a classifier of two classes says for the second, shape (rows,). Source: `multiclass._predict_binary`."""
    if hasattr(one, "decision_function"):
        score = ask(one, "decision_function", x)
        assert isinstance(score, Tensor)
        return score
    return ask(one, "predict_proba", x).column(1)


@formula("decision_function", "_ConstantPredictor")
def constant_score(e: Any, x: Tensor) -> Tensor:
    return x.column(0) * 0.0 + float(e.y_[0])


@formula("predict_proba", "_ConstantPredictor")
def constant_proba(e: Any, x: Tensor) -> Tensor:
    return both(constant_score(e, x))


@formula("predict", "CCA", "PLSCanonical", "PLSRegression")
def latent_regression(e: Any, x: Tensor) -> Tensor:
    y = (x - e._x_mean) @ e.coef_.T + e.intercept_
    return y.squeeze() if e._predict_1d else y


@formula("transform", "CCA", "PLSCanonical", "PLSRegression")
def latent_axes(e: Any, x: Tensor) -> Tensor:
    return ((x - e._x_mean) / e._x_std) @ e.x_rotations_


@formula("transform", "PLSSVD")
def latent_svd(e: Any, x: Tensor) -> Tensor:
    return ((x - e._x_mean) / e._x_std) @ e.x_weights_


@formula("decision_function", "SGDOneClassSVM")
def one_class(e: Any, x: Tensor) -> Tensor:
    return x @ e.coef_.reshape(-1) - e.offset_.reshape(-1)[0]


@formula("score_samples", "SGDOneClassSVM")
def one_class_scores(e: Any, x: Tensor) -> Tensor:
    return x @ e.coef_.reshape(-1)


@formula("labels", "SGDOneClassSVM")
def one_class_labels(e: Any, x: Tensor) -> Labels:
    return Labels(one_class(e, x), np.array([-1, 1]), is_single=True, is_inclusive=True)
