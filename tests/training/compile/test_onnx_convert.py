"""What skl2onnx writes, sewn into the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from service.core.errors import CannotAnswer
from service.core.table import Matrix
from tests.training.compile.onnx_cases import TWO, WHOLE, X, assert_agrees, compiled, described, fitted, opened


class Halver(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer that somebody wrote, together with its converter."""

    def fit(self, X: Any, y: Any = None) -> Halver:
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        return X * 0.5


class FloatHalver(Halver):
    """Its converter knows single precision only."""


def _shape(operator: Any) -> None:
    kind = type(operator.inputs[0].type)
    operator.outputs[0].type = kind([None, operator.raw_operator.n_features_in_])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.proto import onnx_proto

    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    kind = onnx_proto.TensorProto.DOUBLE if is_double else onnx_proto.TensorProto.FLOAT
    half = scope.get_unique_variable_name("half")
    container.add_initializer(half, kind, [1], [0.5])
    container.add_node("Mul", [operator.inputs[0].full_name, half], [operator.outputs[0].full_name], op_version=14)


def _convert_single(scope: Any, operator: Any, container: Any) -> None:
    if not isinstance(operator.inputs[0].type, FloatTensorType):
        raise RuntimeError("only single precision")
    _convert(scope, operator, container)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    update_registered_converter(Halver, "TandemHalver", _shape, _convert)
    update_registered_converter(FloatHalver, "TandemFloatHalver", _shape, _convert_single)


def test_a_converter_that_somebody_registered_stands_among_formulas() -> None:
    assert_agrees(make_pipeline(Halver(), LogisticRegression()), X, TWO)


def test_single_precision_is_told_and_close_labels_and_large_numbers_are_passed_on() -> None:
    model = fitted(make_pipeline(FloatHalver(), LogisticRegression()), WHOLE, TWO)
    known = described(model, WHOLE)
    (candidate,) = compiled(model, WHOLE).candidates
    rows = WHOLE[:4].copy()
    rows[1] = 1e35
    coefficients = model[-1].coef_[0]
    rows[2, 1:] = 0.0
    rows[2, 0] = -2.0 * model[-1].intercept_[0] / coefficients[0]

    with pytest.raises(CannotAnswer) as caught:
        opened(candidate, known).run(Matrix(rows), ("predict",))

    assert (candidate.name, candidate.is_double) == ("onnx-single", False)
    assert caught.value.rows.tolist() == [False, True, True, False]


def test_the_reason_is_in_the_words_of_skl2onnx() -> None:
    class Unknown(Halver):
        pass

    found = compiled(fitted(Unknown(), X), X)

    assert found.candidates == ()
    assert found.reasons["transform"].startswith("Unknown.transform has no formula; skl2onnx: ")
    assert np.all([len(why) < 300 for why in found.reasons.values()])
