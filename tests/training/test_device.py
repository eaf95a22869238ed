"""Fitting with cuML, and what comes back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from tests.service.runtimes.fake_cuml import FakeTwin, cuml
from training.device import GpuRefused, estimator_on_gpu, fit_on_gpu, require_gpu
from training.export import export
from training.pipeline import build_pipeline, sort_columns

__all__ = ["cuml"]

RANDOM = np.random.RandomState(0)
NUMBERS = pd.DataFrame(RANDOM.normal(size=(60, 3)), columns=["a", "b", "c"])
MIXED = NUMBERS.assign(town=RANDOM.choice(["Graz", "Wien"], 60))
HOLES = NUMBERS.mask(RANDOM.uniform(size=NUMBERS.shape) < 0.1)
TEXTS = np.where(NUMBERS["a"] > 0, "yes", "no").astype(object)
AMOUNTS = NUMBERS.to_numpy() @ [1.0, 2.0, 3.0]


@dataclass(frozen=True)
class Found:
    usable: bool
    reason: str
    name: str = "NVIDIA H200"


def given(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("service.runtimes.device")
    module.probe = lambda: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "service.runtimes.device", module)


@pytest.mark.skipif("cuml" in sys.modules, reason="cuML is here")
def test_without_cuml_the_refusal_says_how_to_get_it() -> None:
    with pytest.raises(GpuRefused, match="not installed: pip install"):
        require_gpu()


@pytest.mark.usefixtures("cuml")
def test_without_a_gpu_the_refusal_gives_the_reason_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given(Found(False, "no NVIDIA driver: libnvidia-ml.so.1 is not there"), monkeypatch)

    with pytest.raises(GpuRefused, match=r"no NVIDIA driver: .* --device cpu"):
        require_gpu()


@pytest.mark.usefixtures("cuml")
def test_with_a_gpu_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given(Found(True, ""), monkeypatch)

    assert require_gpu() == "NVIDIA H200"


def test_auto_is_a_forest_whatever_the_number_of_rows() -> None:
    assert (estimator_on_gpu("auto"), estimator_on_gpu("ridge")) == ("random-forest", "ridge")


@pytest.mark.parametrize(
    ("X", "y", "estimator"),
    [
        pytest.param(MIXED, TEXTS, LogisticRegression(), id="mixed columns and texts for classes"),
        pytest.param(NUMBERS, AMOUNTS, Ridge(), id="regression"),
        pytest.param(NUMBERS, TEXTS, KNeighborsClassifier(), id="neighbours"),
        pytest.param(MIXED, TEXTS, SVC(class_weight={"yes": 2.0}), id="weights of classes"),
        pytest.param(NUMBERS, TEXTS, RandomForestClassifier(5, random_state=0), id="a forest alone"),
    ],
)
def test_what_comes_back_is_the_model_that_scikit_learn_would_have_fitted(
    X: pd.DataFrame, y: Any, estimator: Any, cuml: type[FakeTwin], tmp_path: Any
) -> None:
    model = build_pipeline(sort_columns(X), estimator, y)

    fitted, notes = fit_on_gpu(model, X, y)

    reference = model.fit(X, y)
    assert notes == []
    assert repr(fitted) == repr(reference)
    if y is AMOUNTS:
        np.testing.assert_allclose(fitted.predict(X), reference.predict(X), rtol=1e-12)
    else:
        np.testing.assert_array_equal(fitted.predict(X), reference.predict(X))
    assert [method for method, _ in cuml.calls] == ["fit"]
    exported = export(fitted, X, name="twin", repository=tmp_path)
    assert exported.manifest.trust == []


def test_forests_are_fitted_in_single_precision_and_on_one_stream(
    cuml: type[FakeTwin], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[int] = []
    monkeypatch.setattr(cuml, "set_params", lambda self, n_streams: streams.append(n_streams))

    fit_on_gpu(RandomForestRegressor(2), NUMBERS, AMOUNTS)

    assert (cuml.calls[0][1].dtype, streams) == (np.float32, [1])


@pytest.mark.usefixtures("cuml")
def test_missing_values_become_medians_and_a_note() -> None:
    fitted, notes = fit_on_gpu(RandomForestClassifier(5), HOLES, TEXTS)

    assert notes == ["cuML takes no missing values: they became the median of their column"]
    assert [type(step).__name__ for _, step in fitted.steps] == ["SimpleImputer", "RandomForestClassifier"]
    assert fitted.predict(HOLES).shape == (60,)


@pytest.mark.usefixtures("cuml")
@pytest.mark.parametrize(
    ("estimator", "y", "why"),
    [
        pytest.param(ExtraTreesClassifier(), TEXTS, "cuML does not fit ExtraTreesClassifier", id="no twin"),
        pytest.param(SVC(), np.arange(60) % 3, "more than two classes", id="no way back"),
        pytest.param(Lasso(positive=True), AMOUNTS, "positive", id="a setting"),
        pytest.param(Lasso(), np.full(60, np.nan), "cannot fit Lasso", id="the rows"),
    ],
)
def test_what_cuml_does_not_fit_is_refused_in_one_sentence(estimator: Any, y: Any, why: str) -> None:
    with pytest.raises(GpuRefused, match=why):
        fit_on_gpu(estimator, NUMBERS, y)
