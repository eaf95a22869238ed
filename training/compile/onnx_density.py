# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Naive Bayes, Gaussian mixtures and discriminants: classes by their densities."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.compile.onnx_formulas import Labels, NoFormula, formula
from training.compile.onnx_graph import Tensor, stack
from training.compile.onnx_neighbors import discriminants

BAYES: Final = ("GaussianNB", "BernoulliNB", "MultinomialNB", "ComplementNB", "CategoricalNB")
MIXTURES: Final = ("GaussianMixture", "BayesianGaussianMixture")
DISCRIMINANTS: Final = ("QuadraticDiscriminantAnalysis", "NearestCentroid")


def joint(e: Any, x: Tensor) -> Tensor:
    """Log of prior times likelihood, shape (rows, classes). Source: `sklearn.naive_bayes`."""
    match type(e).__name__:
        case "GaussianNB":
            constant = np.log(e.class_prior_) - 0.5 * np.log(2.0 * np.pi * e.var_).sum(axis=1)
            steps = x.expand() - e.theta_
            return constant - 0.5 * (steps * steps / e.var_).sum(axis=2)
        case "BernoulliNB":
            x = x if e.binarize is None else (x > float(e.binarize)).cast("double")
            absent = np.log(1 - np.exp(e.feature_log_prob_))
            return x @ (e.feature_log_prob_ - absent).T + (e.class_log_prior_ + absent.sum(axis=1))
        case "MultinomialNB":
            return x @ e.feature_log_prob_.T + e.class_log_prior_
        case "ComplementNB":
            found = x @ e.feature_log_prob_.T
            return found + e.class_log_prior_ if len(e.classes_) == 1 else found
        case _:
            total = None
            for index, table in enumerate(e.feature_log_prob_):
                part = x.column(index).cast("int64").lookup(table.T)
                total = part if total is None else total + part
            assert total is not None
            return total + e.class_log_prior_


@formula("labels", *BAYES)
def most_probable(e: Any, x: Tensor) -> Labels:
    return Labels(joint(e, x), np.asarray(e.classes_))


@formula("predict_log_proba", *BAYES)
def bayes_log_proba(e: Any, x: Tensor) -> Tensor:
    found = joint(e, x)
    return found - found.logsumexp(keepdims=True)


@formula("predict_proba", *BAYES)
def bayes_proba(e: Any, x: Tensor) -> Tensor:
    return bayes_log_proba(e, x).op("Exp")


# -- mixtures ------------------------------------------------------------------------------------


def weighted(e: Any, x: Tensor) -> Tensor:
    """Log of weight times density, shape (rows, components). Source: `sklearn.mixture`."""
    found = _gaussians(e, x)
    if type(e).__name__ == "BayesianGaussianMixture":
        from scipy.special import digamma

        n = e.means_.shape[1]
        halves = 0.5 * (e.degrees_of_freedom_ - np.arange(n)[:, None])
        spread = n * np.log(2.0) + digamma(halves).sum(axis=0)
        return found + (
            -0.5 * n * np.log(e.degrees_of_freedom_)
            + 0.5 * (spread - n / e.mean_precision_)
            + e._estimate_log_weights()
        )
    return found + np.log(e.weights_)


def _gaussians(e: Any, x: Tensor) -> Tensor:
    means, factors = e.means_, e.precisions_cholesky_
    count, n = means.shape
    match e.covariance_type:
        case "full" | "tied":
            parts, logs = [], []
            for k in range(count):
                factor = factors[k] if e.covariance_type == "full" else factors
                y = x @ factor - means[k] @ factor
                parts.append((y * y).sum())
                logs.append(np.log(np.diag(factor)).sum())
            squared, log_det = stack(parts), np.array(logs)
        case "diag":
            precisions = factors**2
            squared = (means**2 * precisions).sum(axis=1) - 2.0 * (x @ (means * precisions).T) + (x * x) @ precisions.T
            log_det = np.log(factors).sum(axis=1)
        case _:
            precisions = factors**2
            ends = (means**2).sum(axis=1) * precisions
            squared = ends - 2.0 * (x @ means.T * precisions) + (x * x).sum(keepdims=True) * precisions
            log_det = n * np.log(factors)
    return -0.5 * (n * np.log(2.0 * np.pi) + squared) + log_det


@formula("labels", *MIXTURES)
def component(e: Any, x: Tensor) -> Labels:
    return Labels(weighted(e, x), np.arange(len(e.means_)))


@formula("predict_proba", *MIXTURES)
def responsibilities(e: Any, x: Tensor) -> Tensor:
    found = weighted(e, x)
    return (found - found.logsumexp(keepdims=True)).op("Exp")


@formula("score_samples", *MIXTURES)
def mixture_density(e: Any, x: Tensor) -> Tensor:
    return weighted(e, x).logsumexp()


# -- discriminants -------------------------------------------------------------------------------


def scores(e: Any, x: Tensor) -> Tensor:
    """Shape (rows, classes)."""
    if type(e).__name__ == "NearestCentroid":
        return discriminants(e, x)
    parts = []
    for rotation, scaling, mean in zip(e.rotations_, e.scalings_, e.means_, strict=True):
        y = (x - mean) @ (rotation * scaling**-0.5)
        parts.append((y * y).sum())
    sizes = np.array([np.log(scaling).sum() for scaling in e.scalings_])
    return -0.5 * (stack(parts) + sizes) + np.log(e.priors_)


@formula("decision_function", *DISCRIMINANTS)
def discriminant(e: Any, x: Tensor) -> Tensor:
    found = scores(e, x)
    return found.column(1) - found.column(0) if len(e.classes_) == 2 else found


@formula("labels", "QuadraticDiscriminantAnalysis")
def best_discriminant(e: Any, x: Tensor) -> Labels:
    return Labels(scores(e, x), np.asarray(e.classes_))


@formula("predict_log_proba", *DISCRIMINANTS)
def discriminant_log_proba(e: Any, x: Tensor) -> Tensor:
    found = scores(e, x)
    # Not through `logsumexp`: near a probability of 1, the digits are those of the difference from the greatest.
    below = found - found.max(keepdims=True)
    return below - below.op("Exp").sum(keepdims=True).op("Log")


@formula("predict_proba", *DISCRIMINANTS)
def discriminant_proba(e: Any, x: Tensor) -> Tensor:
    return discriminant_log_proba(e, x).op("Exp")


# -- one density ---------------------------------------------------------------------------------


@formula("score_samples", "PCA")
def likelihood(e: Any, x: Tensor) -> Tensor:
    return _gaussian(x, e.mean_, np.asarray(e.get_precision()))


@formula("score_samples", "FactorAnalysis")
def factor_likelihood(e: Any, x: Tensor) -> Tensor:
    return _gaussian(x, e.mean_, np.asarray(e.get_precision()))


def _gaussian(x: Tensor, mean: NDArray[Any], precision: NDArray[Any]) -> Tensor:
    centred = x - mean
    _, log_det = np.linalg.slogdet(precision)
    return -0.5 * (centred * (centred @ precision)).sum() - 0.5 * (len(mean) * np.log(2.0 * np.pi) - log_det)


@formula("score_samples", "EllipticEnvelope")
def mahalanobis(e: Any, x: Tensor) -> Tensor:
    centred = x - e.location_
    return -((centred @ np.asarray(e.get_precision())) * centred).sum()


@formula("decision_function", "EllipticEnvelope")
def envelope(e: Any, x: Tensor) -> Tensor:
    return mahalanobis(e, x) - float(e.offset_)


@formula("labels", "EllipticEnvelope")
def envelope_labels(e: Any, x: Tensor) -> Labels:
    if not np.isfinite(e.offset_):
        raise NoFormula("an envelope without an end")
    return Labels(envelope(e, x), np.array([-1, 1]), is_single=True, is_inclusive=True)
