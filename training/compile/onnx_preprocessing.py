# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Scalers, imputers, selectors and other steps before a model."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from training.compile.onnx_formulas import NoFormula, formula, numbers
from training.compile.onnx_graph import Tensor, concat, stack

SELECTORS: Final = (
    "SelectKBest", "SelectPercentile", "SelectFpr", "SelectFdr", "SelectFwe", "GenericUnivariateSelect",
    "VarianceThreshold", "SelectFromModel", "RFE", "RFECV", "SequentialFeatureSelector",
)  # fmt: skip
# Functions that a FunctionTransformer may hold, by their operators.
FUNCTIONS: Final = {np.log: "Log", np.exp: "Exp", np.sqrt: "Sqrt", np.abs: "Abs", np.sin: "Sin", np.cos: "Cos"}


@formula("transform", "StandardScaler")
def standardize(e: Any, x: Tensor) -> Tensor:
    x = x - e.mean_ if e.with_mean else x
    return x / e.scale_ if e.with_std else x


@formula("transform", "MinMaxScaler")
def to_range(e: Any, x: Tensor) -> Tensor:
    x = x * e.scale_ + e.min_
    return x.clip(*map(float, e.feature_range)) if e.clip else x


@formula("transform", "MaxAbsScaler")
def by_largest(e: Any, x: Tensor) -> Tensor:
    x = x / e.scale_
    return x.clip(-1.0, 1.0) if getattr(e, "clip", False) else x


@formula("transform", "RobustScaler")
def by_quantiles(e: Any, x: Tensor) -> Tensor:
    x = x - e.center_ if e.with_centering else x
    return x / e.scale_ if e.with_scaling else x


@formula("transform", "Normalizer")
def normalize(e: Any, x: Tensor) -> Tensor:
    return unit(x, e.norm)


def unit(x: Tensor, norm: str) -> Tensor:
    """Rows of length 1; rows of zeros stay zeros."""
    match norm:
        case "l1":
            length = x.op("Abs").sum(keepdims=True)
        case "l2":
            length = (x * x).sum(keepdims=True).op("Sqrt")
        case _:
            length = x.op("Abs").max(keepdims=True)
    return x / length.equals(0.0).where(1.0, length)


@formula("transform", "Binarizer")
def binarize(e: Any, x: Tensor) -> Tensor:
    return (x > e.threshold).cast("double")


@formula("transform", "PolynomialFeatures")
def powers(e: Any, x: Tensor) -> Tensor:
    """Products of columns, one factor at a time from the left, as scikit-learn multiplies."""
    exponents = e.powers_
    factors = [np.repeat(np.arange(exponents.shape[1]), row) for row in exponents]
    widest = x.graph.constant(np.ones(1)) + 0.0 * x.columns([0])  # a column of ones
    wide = concat([x, widest])
    one = exponents.shape[1]
    result = None
    for place in range(max(map(len, factors), default=0) or 1):
        chosen = wide.columns([row[place] if place < len(row) else one for row in factors])
        result = chosen if result is None else result * chosen
    assert result is not None
    return result


@formula("transform", "KBinsDiscretizer")
def bins(e: Any, x: Tensor) -> Tensor:
    found = [
        (x.column(index).expand() >= np.asarray(edges)[1:-1]).cast("double").sum()
        if len(edges) > 2
        else x.column(index) * 0.0
        for index, edges in enumerate(e.bin_edges_)
    ]
    if e.encode == "ordinal":
        return stack(found)
    sizes = [int(n) for n in e.n_bins_]
    return concat(
        [one.expand().equals(np.arange(float(n))).cast("double") for one, n in zip(found, sizes, strict=True)]
    )


@formula("transform", "PowerTransformer")
def power(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.preprocessing.PowerTransformer._yeo_johnson_transform` and scipy's boxcox."""
    columns = [
        (_boxcox if e.method == "box-cox" else _yeo_johnson)(x.column(index), float(lmbda))
        for index, lmbda in enumerate(e.lambdas_)
    ]
    y = stack(columns)
    return standardize(e._scaler, y) if e.standardize else y


def _boxcox(x: Tensor, lmbda: float) -> Tensor:
    logs = x.op("Log")
    return logs if abs(lmbda) < 1e-19 else apply(np.expm1, logs * lmbda) / lmbda


def _yeo_johnson(x: Tensor, lmbda: float) -> Tensor:
    near = np.spacing(1.0)
    # Each side sees only what belongs to it: the other's power of a negative number is not a number.
    up, down = x.clip(low=0.0) + 1.0, 1.0 - x.clip(high=0.0)
    above = up.op("Log") if abs(lmbda) < near else (up**lmbda - 1.0) / lmbda
    rest = 2.0 - lmbda
    below = -down.op("Log") if abs(rest) <= near else -((down**rest - 1.0) / rest)
    return x.isnan().where(x, (x >= 0.0).where(above, below))


@formula("transform", "QuantileTransformer")
def quantiles(e: Any, x: Tensor) -> Tensor:
    if e.output_distribution != "uniform":
        raise NoFormula("quantiles of a normal distribution: onnxruntime has no inverse of it")
    columns = []
    for index in range(e.quantiles_.shape[1]):
        column, known = x.column(index), e.quantiles_[:, index]
        up = interpolate(column, known, e.references_)
        down = interpolate(-column, -known[::-1], -e.references_[::-1])
        y = 0.5 * (up - down)
        y = column.equals(known[-1]).where(1.0, y)
        columns.append(column.equals(known[0]).where(0.0, y))
    return stack(columns)


def interpolate(x: Tensor, xs: ArrayLike, ys: ArrayLike) -> Tensor:
    """`numpy.interp`: straight lines between the points, level outside. Shapes (rows,), (points,), (points,).

    Source: `arr_interp` in numpy's compiled_base.c: the last point not greater than x begins the line.
    """
    xs, ys = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    if len(xs) == 1:
        return x * 0.0 + ys[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.diff(ys) / np.diff(xs)
    at = (x.expand() >= xs).cast("int64").sum() - 1
    line = at.clip(0, len(xs) - 2)
    begin = line.lookup(xs)
    y = line.lookup(np.nan_to_num(slopes, posinf=0.0, neginf=0.0)) * (x - begin) + line.lookup(ys[:-1])
    y = (x >= xs[-1]).where(ys[-1], y)
    y = (x < xs[0]).where(ys[0], y)
    return x.isnan().where(x, y)


@formula("transform", "FunctionTransformer")
def function(e: Any, x: Tensor) -> Tensor:
    if e.kw_args:
        raise NoFormula("a function with arguments")
    # Histogram boosting keeps the check of its own input in such a transformer.
    is_check = isinstance(e.func, partial) and e.func.func.__name__ == "check_array"
    return x if e.func is None or is_check else apply(e.func, x)


def apply(known: Any, x: Tensor) -> Tensor:
    """`known(x)` for one of numpy's functions."""
    if known is np.log1p:  # also near zero to the last digits; source: Kahan
        u = x + 1.0
        return (u - 1.0).equals(0.0).where(x, u.op("Log") * x / (u - 1.0))
    if known is np.expm1:
        u = x.op("Exp")
        near = u.equals(1.0)
        return near.where(x, u.equals(0.0).where(-1.0, (u - 1.0) * x / near.where(1.0, u.op("Log"))))
    if known is np.square:
        return x * x
    for one, operator in FUNCTIONS.items():
        if known is one:
            return x.op(operator)
    raise NoFormula("a function of its own")


@formula("transform", *SELECTORS)
def select(e: Any, x: Tensor) -> Tensor:
    return x.columns(np.flatnonzero(e.get_support()))


@formula("transform", "SimpleImputer")
def impute(e: Any, x: Tensor) -> Tensor:
    statistics = np.asarray(e.statistics_, dtype=object)
    if not all(isinstance(value, int | float | np.number) for value in statistics):
        raise NoFormula("an imputer of text where no encoder follows")
    known = statistics.astype(float)
    holes = _holes(e.missing_values, x)
    kept = np.arange(len(known)) if e.keep_empty_features else np.flatnonzero(~np.isnan(known))
    filled = holes.where(known, x)
    filled = filled if len(kept) == len(known) else filled.columns(kept)
    if e.indicator_ is None:
        return filled
    return concat([filled, holes.columns(e.indicator_.features_).cast("double")])


@formula("transform", "IterativeImputer")
def impute_in_turns(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.impute.IterativeImputer.transform`."""
    if e.sample_posterior or e.keep_empty_features or np.any(e._is_empty_feature):
        raise NoFormula("an imputer that draws, or has empty columns")
    holes = _holes(e.missing_values, x)
    filled = impute(e.initial_imputer_, x)
    width = e.n_features_in_
    for step in e.imputation_sequence_ if e.n_iter_ else ():
        chosen = step.feat_idx
        guess = numbers(step.estimator, filled.columns(step.neighbor_feat_idx))
        guess = guess.op("Max", float(e._min_value[chosen])).op("Min", float(e._max_value[chosen]))
        is_this = np.arange(width) == chosen
        filled = (holes & holes.graph.constant(is_this)).where(guess.expand(), filled)
    if e.indicator_ is None:
        return filled
    return concat([filled, holes.columns(e.indicator_.features_).cast("double")])


@formula("transform", "MissingIndicator")
def indicate(e: Any, x: Tensor) -> Tensor:
    return _holes(e.missing_values, x).columns(e.features_)


def _holes(missing_values: Any, x: Tensor) -> Tensor:
    if isinstance(missing_values, str) or missing_values is None:
        raise NoFormula("an imputer of text where no encoder follows")
    return x.isnan() if missing_values != missing_values else x.equals(float(missing_values))


@formula("transform", "TfidfTransformer")
def weigh_terms(e: Any, x: Tensor) -> Tensor:
    if e.sublinear_tf:
        present = x > 0.0
        x = present.where(present.where(x, 1.0).op("Log") + 1.0, x)
    x = x * e.idf_ if e.use_idf else x
    return x if e.norm is None else unit(x, e.norm)


@formula("transform", "AdditiveChi2Sampler")
def additive_chi2(e: Any, x: Tensor) -> Tensor:
    """Source: `sklearn.kernel_approximation.AdditiveChi2Sampler._transform_dense`."""
    interval = e.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[e.sample_steps]
    logs, is_zero = (x > 0.0).where(x, 1.0).op("Log"), x.equals(0.0)
    parts = [(x * interval).op("Sqrt")]
    for step in range(1, e.sample_steps):
        factor = (2.0 * x * interval / np.cosh(np.pi * step * interval)).op("Sqrt")
        turn = step * interval * logs
        parts += [is_zero.where(0.0, factor * turn.op("Cos")), is_zero.where(0.0, factor * turn.op("Sin"))]
    return concat(parts)


@formula("transform", "RBFSampler")
def random_waves(e: Any, x: Tensor) -> Tensor:
    return (x @ e.random_weights_ + e.random_offset_).op("Cos") * np.sqrt(2.0 / e.n_components)


@formula("transform", "SkewedChi2Sampler")
def skewed_waves(e: Any, x: Tensor) -> Tensor:
    projected = (x + e.skewedness).op("Log") @ e.random_weights_ + e.random_offset_
    return projected.op("Cos") * (np.sqrt(2.0) / np.sqrt(e.n_components))


@formula("transform", "SplineTransformer")
def splines(e: Any, x: Tensor) -> Tensor:
    """Piecewise polynomials: between two knots each basis function is one of degree `degree`."""
    if e.extrapolation != "constant" or getattr(e, "handle_missing", "error") != "error":
        raise NoFormula(f"splines with extrapolation {e.extrapolation!r}")
    from scipy.interpolate import BSpline, PPoly

    parts = []
    for index, spline in enumerate(e.bsplines_):
        first, last = spline.t[spline.k], spline.t[-spline.k - 1]
        width = spline.c.shape[1] - (not e.include_bias)
        pieces = [PPoly.from_spline(BSpline(spline.t, c, spline.k)) for c in spline.c.T[:width]]
        knots = pieces[0].x
        used = np.flatnonzero((np.diff(knots) > 0) & (knots[:-1] >= first) & (knots[:-1] < last))
        column = x.column(index).clip(float(first), float(last))
        at = ((column.expand() >= knots[used]).cast("int64").sum() - 1).clip(0, len(used) - 1)
        offset = (column - at.lookup(knots[used])).expand()
        coefficients = np.stack([piece.c[:, used] for piece in pieces], axis=2)
        y = at.lookup(coefficients[0])
        for lower in coefficients[1:]:
            y = y * offset + at.lookup(lower)
        parts.append(y)
    return concat(parts)


@formula("transform", "FeatureAgglomeration")
def pool(e: Any, x: Tensor) -> Tensor:
    if e.pooling_func is not np.mean:
        raise NoFormula("pooling by a function of its own")
    members = np.asarray(e.labels_)[:, None] == np.arange(e.n_clusters_)[None, :]
    return x @ (members / members.sum(axis=0))


@formula("transform", "IsotonicRegression")
@formula("predict", "IsotonicRegression")
def monotonic(e: Any, x: Tensor) -> Tensor:
    return isotonic(e, x.reshape(-1))


def isotonic(e: Any, x: Tensor) -> Tensor:
    """Shape (rows,) to (rows,)."""
    if e.out_of_bounds == "clip":
        x = x.clip(float(e.X_min_), float(e.X_max_))
    y = interpolate(x, e.X_thresholds_, e.y_thresholds_)
    if e.out_of_bounds == "nan":
        outside = (x < float(e.X_min_)) | (x > float(e.X_max_))
        y = outside.where(np.nan, y)
    elif e.out_of_bounds == "raise":
        pass  # rows outside are refused by the estimator; the proof tells
    return y
