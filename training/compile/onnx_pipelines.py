# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Steps before a model, and what stands around one model."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, Final

import numpy as np

from training.compile.onnx_formulas import Labels, NoFormula, ask, formula, kind_of, labels, matrix, numbers
from training.compile.onnx_graph import Tensor, concat
from training.compile.onnx_inputs import Block, is_column_by_column, is_encoder, tabulate
from training.compile.onnx_preprocessing import apply

METHODS: Final = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")


# -- steps before a model -----------------------------------------------------------------------------


@formula("transform", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "LabelEncoder", "LabelBinarizer", raw=True)
def encode(e: Any, x: Any) -> Tensor:
    if not isinstance(x, Block):
        return _encode_numbers(e, x)
    return tabulate([e], x)


def _encode_numbers(e: Any, x: Tensor) -> Tensor:
    """One-hot columns of computed numbers."""
    is_plain = kind_of(e) == "OneHotEncoder" and e.drop_idx_ is None and not e._infrequent_enabled
    if not is_plain or any(np.asarray(known).dtype.kind not in "iuf" for known in e.categories_):
        raise NoFormula(f"{type(e).__name__} of computed columns")
    known = [np.asarray(values, dtype=float) for values in e.categories_]
    return concat([x.column(i).expand().equals(values).cast("double") for i, values in enumerate(known)])


def run_steps(steps: list[Any], x: Any) -> Any:
    """`transform` of one step after another."""
    steps = [step for step in steps if step is not None and not isinstance(step, str)]
    while steps:
        if isinstance(x, Block):
            first = list(takewhile(is_column_by_column, steps))
            while first and not is_encoder(first[-1]):
                first.pop()
            if first:
                x, steps = tabulate(first, x), steps[len(first) :]
                continue
        x, steps = ask(steps[0], "transform", x), steps[1:]
    return x


def _steps(e: Any) -> tuple[list[Any], Any]:
    *before, (_, last) = e.steps
    return [step for _, step in before], last


def _through_pipeline(method: str) -> None:
    @formula(method, "Pipeline", raw=True)
    def through(e: Any, x: Any) -> Any:
        before, last = _steps(e)
        if method == "transform":
            return matrix(run_steps([*before, last], x))
        return ask(last, method, run_steps(before, x))


for _method in METHODS:
    _through_pipeline(_method)


@formula("labels", "Pipeline", raw=True)
def pipeline_labels(e: Any, x: Any) -> list[Labels]:
    before, last = _steps(e)
    return labels(last, run_steps(before, x))


@formula("transform", "ColumnTransformer", raw=True)
def side_by_side(e: Any, x: Any) -> Tensor:
    weights = e.transformer_weights or {}
    parts = []
    for name, step, _ in e.transformers_:
        chosen = list(e._transformer_to_input_indices[name])
        if len(chosen) == 0 or (isinstance(step, str) and step == "drop"):
            continue
        part = x.select(chosen) if isinstance(x, Block) else x.columns(chosen)
        result = matrix(part if isinstance(step, str) else run_steps([step], part))
        parts.append(result * float(weights[name]) if weights.get(name) is not None else result)
    return concat(parts)


@formula("transform", "FeatureUnion", raw=True)
def union(e: Any, x: Any) -> Tensor:
    weights = e.transformer_weights or {}
    parts = []
    for name, step in e.transformer_list:
        if isinstance(step, str) and step == "drop":
            continue
        part = matrix(x) if isinstance(step, str) else matrix(run_steps([step], x))
        parts.append(part * float(weights[name]) if weights.get(name) is not None else part)
    return concat(parts)


# -- around one model ---------------------------------------------------------------------------------


@formula("predict", "TransformedTargetRegressor", raw=True)
def transformed_target(e: Any, x: Any) -> Tensor:
    y = numbers(e.regressor_, x)
    scale = e.transformer_
    match kind_of(scale):
        case "FunctionTransformer" if scale.inverse_func is None:
            return y
        case "FunctionTransformer":
            return apply(scale.inverse_func, y)
        case "StandardScaler":
            y = y * scale.scale_ if scale.with_std else y
            return y + scale.mean_ if scale.with_mean else y
    raise NoFormula("a target transformed by a function of its own")


@formula("predict_proba", "FixedThresholdClassifier", "TunedThresholdClassifierCV", raw=True)
def thresholded_proba(e: Any, x: Any) -> Any:
    return ask(e.estimator_, "predict_proba", x)


@formula("decision_function", "FixedThresholdClassifier", "TunedThresholdClassifierCV", raw=True)
def thresholded_decision(e: Any, x: Any) -> Any:
    return ask(e.estimator_, "decision_function", x)


@formula("labels", "FixedThresholdClassifier", "TunedThresholdClassifierCV", raw=True)
def thresholded(e: Any, x: Any) -> Labels:
    """The second class where its score reaches the threshold."""
    is_tuned = kind_of(e) == "TunedThresholdClassifierCV"
    methods = e._get_response_method()
    wanted = [methods] if isinstance(methods, str) else list(methods)
    method = next(name for name in wanted if hasattr(e.estimator_, name))
    threshold = e.best_threshold_ if is_tuned else e.threshold
    if threshold == "auto":
        threshold = 0.5 if method == "predict_proba" else 0.0
    classes = np.asarray(e.classes_)
    positive = classes[1] if getattr(e, "pos_label", None) is None else e.pos_label
    second = int(np.flatnonzero(classes == positive)[0])
    scores = ask(e.estimator_, method, x)
    if method == "predict_proba":
        scores = scores.column(second)
    elif second == 0:
        scores = -scores
    return Labels(scores - float(threshold), classes if second == 1 else classes[::-1], True, True)


@formula("predict", "RFE", "RFECV", raw=True)
def selected_numbers(e: Any, x: Any) -> Tensor:
    return numbers(e.estimator_, ask(e, "transform", x))


@formula("labels", "RFE", "RFECV", raw=True)
def selected_labels(e: Any, x: Any) -> list[Labels]:
    return labels(e.estimator_, ask(e, "transform", x))


def _through_selection(method: str) -> None:
    @formula(method, "RFE", "RFECV", raw=True)
    def through(e: Any, x: Any) -> Any:
        return ask(e.estimator_, method, ask(e, "transform", x))


for _method in ("predict_proba", "decision_function"):
    _through_selection(_method)
