# An estimator's attributes have no types, and so has what a tensor makes with them.
# mypy: disable-error-code=no-any-return
"""Neural networks of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.compile.onnx_formulas import Labels, NoFormula, both, formula, sigmoid, softmax
from training.compile.onnx_graph import Tensor


def _activate(x: Tensor, name: str) -> Tensor:
    match name:
        case "identity":
            return x
        case "relu":
            return x.clip(low=0.0)
        case "tanh":
            return x.op("Tanh")
        case "logistic":
            return sigmoid(x)
        case "softmax":
            return softmax(x)
    raise NoFormula(f"a network with {name}")


def forward(e: Any, x: Tensor) -> Tensor:
    """The last layer's answer, shape (rows, outputs)."""
    last = len(e.coefs_) - 1
    for layer, (weights, bias) in enumerate(zip(e.coefs_, e.intercepts_, strict=True)):
        x = _activate(x @ weights + bias, e.out_activation_ if layer == last else e.activation)
    return x


@formula("predict", "MLPRegressor")
def regression(e: Any, x: Tensor) -> Tensor:
    y = forward(e, x)
    return y.squeeze() if e.n_outputs_ == 1 else y


@formula("predict_proba", "MLPClassifier")
def probabilities(e: Any, x: Tensor) -> Tensor:
    y = forward(e, x)
    return both(y.squeeze()) if e.n_outputs_ == 1 else y


@formula("labels", "MLPClassifier")
def label(e: Any, x: Tensor) -> Labels | list[Labels]:
    y = forward(e, x)
    if e._label_binarizer.y_type_.startswith("multilabel"):
        return [Labels(y.column(index) - 0.5, np.array([0, 1]), is_single=True) for index in range(e.n_outputs_)]
    if e.n_outputs_ == 1:
        return Labels(y.squeeze() - 0.5, np.asarray(e.classes_), is_single=True)
    return Labels(y, np.asarray(e.classes_))


@formula("transform", "BernoulliRBM")
def hidden(e: Any, x: Tensor) -> Tensor:
    return sigmoid(x @ e.components_.T + e.intercept_hidden_)
