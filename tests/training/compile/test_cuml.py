"""Which estimators are candidates for cuML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from service.runtimes.describe import describe
from tests.service.runtimes.fake_cuml import FakeTwin, UnsupportedOnGPU, cuml
from training.compile.candidate import Compiled
from training.compile.cuml import compile_cuml

__all__ = ["cuml"]

X = np.random.RandomState(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


def compiled(estimator: Any) -> Compiled:
    described = describe(estimator.fit(X, Y), X)
    return compile_cuml(estimator, described.signature, described.sample)


def test_the_last_step_of_a_pipeline_counts_and_no_file_is_written() -> None:
    found = compiled(make_pipeline(StandardScaler(), LogisticRegression()))

    (candidate,) = found.candidates
    assert set(candidate.outputs) == {"predict", "predict_proba", "predict_log_proba", "decision_function"}
    assert (candidate.runtime, dict(candidate.files)) == ("cuml", {})
    assert candidate.options == {"class": "cuml.linear_model.LogisticRegression"}
    assert not candidate.is_double


def test_outputs_that_cuml_does_not_give_have_a_reason() -> None:
    svm = make_pipeline(StandardScaler(), SVC())

    found = compiled(svm)

    assert [candidate.outputs for candidate in found.candidates] == [("predict", "decision_function")]
    assert found.reasons == {}


def test_an_estimator_without_a_twin_has_a_reason() -> None:
    assert compiled(GradientBoostingClassifier(n_estimators=2)).reasons == {
        "": "cuML has no twin of GradientBoostingClassifier"
    }


def test_cuml_is_asked_where_it_is_installed(cuml: type[FakeTwin], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: Any) -> dict[str, Any]:
        raise UnsupportedOnGPU("`C` is not supported on Sundays")

    monkeypatch.setattr(cuml, "_params_from_cpu", refuse)

    assert compiled(LogisticRegression()).reasons == {"": "cuML: `C` is not supported on Sundays"}


def test_forests_are_left_to_nvforest() -> None:
    assert compiled(RandomForestClassifier(2)).reasons == {"": "nvForest computes forests on a GPU"}


def test_cuml_that_cannot_be_asked_refuses_nothing(cuml: type[FakeTwin], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any) -> dict[str, Any]:
        raise ImportError("libcuml.so: cannot open shared object file")

    monkeypatch.setattr(cuml, "_params_from_cpu", fail)

    assert len(compiled(LogisticRegression()).candidates) == 1
