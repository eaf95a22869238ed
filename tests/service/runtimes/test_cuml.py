"""The engine that does an estimator's arithmetic with cuML."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import CannotAnswer, RowsRefused
from service.core.table import Frame, Matrix, take
from service.runtimes.cuml import CumlEngine, open_cuml, prepared, refusal
from service.runtimes.describe import describe, same
from service.runtimes.estimator import EstimatorEngine
from tests.faults.cases import fault
from tests.service.runtimes.elsewhere import run_there
from tests.service.runtimes.fake_cuml import FakeTwin, cuml

__all__ = ["cuml", "run_there"]

_RANDOM: Final = np.random.RandomState(0)
X: Final = _RANDOM.normal(size=(120, 5))
TEXTS: Final = np.array(["low", "middle", "high"], dtype=object)[np.digitize(X[:, 0], (-0.5, 0.5))]
TWO: Final = (X[:, 0] + X[:, 1] > 0).astype(int) * 3
AMOUNTS: Final = X @ np.array([1.0, -2.0, 0.5, 0.0, 3.0])
BOTH: Final = np.column_stack([AMOUNTS, -X[:, 1]])

needs_cuml = pytest.mark.skipif(
    find_spec("cuml") is None, reason="cuml is not installed in this environment; see TANDEM_CUML_PYTHON"
)

CONVERTIBLE: Final[dict[str, tuple[Any, Any]]] = {
    "linear regression": (LinearRegression(), AMOUNTS),
    "linear regression of two targets": (LinearRegression(), BOTH),
    "positive linear regression": (LinearRegression(positive=True), AMOUNTS),
    "ridge": (Ridge(solver="lbfgs", positive=True), AMOUNTS),
    "lasso": (Lasso(precompute=True, warm_start=True, alpha=0.01), AMOUNTS),
    "elastic net": (ElasticNet(positive=True, alpha=0.01), AMOUNTS),
    "logistic regression of two": (LogisticRegression(class_weight="balanced"), TWO),
    "logistic regression of texts": (LogisticRegression(warm_start=True), TEXTS),
    "scaled intercept": (LogisticRegression(solver="liblinear", intercept_scaling=3.0), TWO),
    "linear svc": (LinearSVC(multi_class="crammer_singer"), TEXTS),
    "linear svc of two": (LinearSVC(intercept_scaling=2.0), TWO),
    "linear svr": (LinearSVR(max_iter=10_000), AMOUNTS),
    "svc of two": (SVC(random_state=np.random.RandomState(0)), TWO),
    "svc of texts": (SVC(kernel="poly", class_weight="balanced"), np.where(TWO == 0, "no", "yes")),
    "svr": (SVR(), AMOUNTS),
    "kernel ridge": (KernelRidge(kernel="rbf"), AMOUNTS),
    "k-means": (KMeans(4, n_init=2, init=lambda X, k, random_state: X[:k], random_state=0), None),
    "neighbours": (KNeighborsClassifier(), TEXTS),
    "weighted neighbours": (KNeighborsClassifier(3, weights="distance", metric="manhattan"), TWO),
    "neighbours of minkowski": (KNeighborsClassifier(p=3, algorithm="brute"), TWO),
    "neighbours of two targets": (KNeighborsClassifier(), np.column_stack([TWO, X[:, 1] > 0])),
    "regression by neighbours": (KNeighborsRegressor(weights="distance"), AMOUNTS),
    "regression by neighbours of two targets": (KNeighborsRegressor(algorithm="kd_tree"), BOTH),
    "pca": (PCA(0.9), None),
    "pca of its own choice": (PCA("mle"), None),
    "truncated svd": (TruncatedSVD(2, random_state=0), None),
    "forest": (
        RandomForestClassifier(
            7, ccp_alpha=0.001, max_samples=80, class_weight="balanced_subsample", criterion="log_loss"
        ),
        TEXTS,
    ),
    "forest of numbers": (RandomForestRegressor(5, criterion="absolute_error", min_weight_fraction_leaf=0.01), AMOUNTS),
}
REFUSED: Final[dict[str, tuple[Any, Any, str]]] = {
    "no twin": (ExtraTreesClassifier(3), TWO, "no twin of ExtraTreesClassifier"),
    "svc of three": (SVC(), TEXTS, "two classes"),
    "kernel function": (SVR(kernel=lambda a, b: a @ b.T), AMOUNTS, "a function"),
    "precomputed": (KernelRidge(kernel="precomputed"), None, "precomputed"),
    "whitening": (PCA(2, whiten=True), None, "rows of the batch"),
    "weights": (KNeighborsClassifier(weights=lambda d: 1 / (1 + d)), TWO, "a function"),
    "cosine": (KNeighborsClassifier(metric="cosine"), TWO, "centred"),
    "two targets": (Lasso(), BOTH, "one target"),
    "forest of two targets": (RandomForestRegressor(2), BOTH, "one target"),
}


class Own(LogisticRegression):  # type: ignore[misc]
    """A subclass, which may predict whatever it likes."""


def engine_of(estimator: Any, sample: Any = X) -> tuple[CumlEngine, EstimatorEngine, Any]:
    described = describe(estimator, sample)
    opened = open_cuml({}, described.signature, {}, open_estimator=lambda: estimator)
    return opened, EstimatorEngine(estimator, described.signature), described.sample


def fitted(estimator: Any, target: Any) -> Any:
    """Whether it converged does not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, target)


def certain(engine: CumlEngine, rows: Any, outputs: tuple[str, ...]) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """The answers, and the indices of the rows that they are for."""
    try:
        return engine.run(rows, outputs), np.arange(rows.n_rows)
    except CannotAnswer as error:
        sure = np.flatnonzero(~error.rows)
        return engine.run(take(rows, sure), outputs), sure


@pytest.mark.usefixtures("cuml")
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_answers_are_the_estimators_own(name: str) -> None:
    estimator, target = CONVERTIBLE[name]
    engine, reference, _ = engine_of(fitted(estimator, target))
    rows = Matrix(np.random.RandomState(1).normal(size=(120, 5)))

    answers, sure = certain(engine, rows, engine.outputs)

    expected = reference.run(take(rows, sure), engine.outputs)
    assert len(sure) >= 110
    for output, values in expected.items():
        assert same(values, answers[output]) or close(values, answers[output]), output


def close(one: Any, other: Any) -> bool:
    """Another order of summation, at most; labels are equal and dtypes too."""
    if isinstance(one, list):
        return all(close(a, b) for a, b in zip(one, other, strict=True))
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    return one.dtype.kind == "f" and np.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cuml_cannot_answer_for_is_known_before_it_is_asked(name: str) -> None:
    estimator, target, why = REFUSED[name]
    estimator.fit(X if name != "precomputed" else X @ X.T, AMOUNTS if target is None else target)

    assert why in str(refusal(estimator))


def test_only_the_very_class_counts() -> None:
    assert refusal(Own().fit(X, TWO)) == "cuML has no twin of Own"


@pytest.mark.usefixtures("cuml")
def test_refusal_at_opening_names_the_reason() -> None:
    with pytest.raises(EstimatorUnusable, match="two classes"):
        engine_of(SVC().fit(X, TEXTS))


def test_settings_of_the_fit_are_reset_on_a_copy() -> None:
    forest = RandomForestClassifier(3, ccp_alpha=0.01, max_samples=50).fit(X, TWO)

    ready = prepared(forest)

    assert (ready.ccp_alpha, ready.max_samples) == (0.0, None)
    assert (forest.ccp_alpha, forest.max_samples) == (0.01, 50)
    assert ready.estimators_ is forest.estimators_


def test_earlier_steps_stay_on_the_host_and_only_numbers_reach_the_device(cuml: type[FakeTwin]) -> None:
    frame = pd.DataFrame({"town": np.array(["a", "b", "c"], dtype=object)[np.arange(120) % 3], "size": X[:, 0]})
    steps = ColumnTransformer([("town", OneHotEncoder(), ["town"]), ("size", StandardScaler(), ["size"])])
    pipeline = make_pipeline(steps, LogisticRegression()).fit(frame, TEXTS)
    engine, reference, rows = engine_of(pipeline, frame)

    answers = engine.run(take(rows, np.arange(7)), engine.outputs)

    assert [(method, given.shape) for method, given in cuml.calls] == [("decision_function", (7, 4))]
    expected = reference.run(take(rows, np.arange(7)), engine.outputs)
    assert all(same(expected[name], answers[name]) for name in engine.outputs)


@pytest.mark.usefixtures("cuml")
def test_names_of_columns_stay_on_the_host() -> None:
    frame = pd.DataFrame(X, columns=list("abcde"))
    engine, reference, rows = engine_of(LogisticRegression().fit(frame, TEXTS), frame)

    answers = engine.run(rows, engine.outputs)

    expected = reference.run(rows, engine.outputs)
    assert all(same(values, answers[name]) or close(values, answers[name]) for name, values in expected.items())


def test_a_sparse_matrix_is_sent_as_it_is_to_those_that_take_one(cuml: type[FakeTwin]) -> None:
    words = sparse.csr_matrix(np.maximum(X, 0))
    engine, _, rows = engine_of(LogisticRegression().fit(words, TWO), words)

    engine.run(rows, ("predict",))

    assert sparse.issparse(cuml.calls[0][1])


def test_the_best_estimator_of_a_search_is_served(cuml: type[FakeTwin]) -> None:
    search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=2).fit(X, AMOUNTS)
    engine, reference, rows = engine_of(search)

    answers = engine.run(rows, ("predict",))

    assert same(reference.run(rows, ("predict",))["predict"], answers["predict"])
    assert cuml.calls[0][0] == "predict"


@pytest.mark.usefixtures("cuml")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_costs_only_its_own_row(bad: float) -> None:
    engine, reference, rows = engine_of(RandomForestRegressor(3, random_state=0).fit(X, AMOUNTS))
    values = np.array(rows.values[:4])
    values[2, 1] = bad

    with pytest.raises(CannotAnswer) as refused:
        engine.run(Matrix(values), ("predict",))

    assert refused.value.rows.tolist() == [False, False, True, False]
    assert refused.value.answers is not None
    expected = reference.run(Matrix(np.array(rows.values[:2])), ("predict",))["predict"]
    np.testing.assert_array_equal(refused.value.answers["predict"][:2], expected)


@fault("G05", sent="numbers that single precision cannot hold", expected="left to another engine")
@pytest.mark.usefixtures("cuml")
def test_a_number_beyond_single_precision_is_left_to_another_engine_by_forests_alone() -> None:
    values = np.full((1, 5), 1e39)
    forest, _, _ = engine_of(RandomForestRegressor(3).fit(X, AMOUNTS))
    ridge, _, _ = engine_of(Ridge().fit(X, AMOUNTS))

    assert ridge.run(Matrix(values), ("predict",))["predict"].shape == (1,)
    with pytest.raises(CannotAnswer, match="finite"):
        forest.run(Matrix(values), ("predict",))


@pytest.mark.usefixtures("cuml")
@pytest.mark.parametrize("estimator", [LogisticRegression(), SVC(kernel="linear"), LinearSVC()], ids=repr)
def test_a_row_on_the_boundary_is_left_to_another_engine(estimator: Any) -> None:
    engine, _, _ = engine_of(estimator.fit(np.array([[-1.0], [1.0]]), [0, 1]), np.array([[-1.0], [1.0]]))
    estimator.intercept_[:] = 0

    with pytest.raises(CannotAnswer, match="too close") as refused:
        engine.run(Matrix(np.array([[0.0], [0.5]])), ("predict",))

    assert refused.value.rows.tolist() == [True, False]


@pytest.mark.usefixtures("cuml")
def test_rows_of_both_kinds_are_left_to_another_engine_together() -> None:
    estimator = LogisticRegression().fit(np.array([[0.0], [2.0]]), [0, 1])
    estimator.coef_[:], estimator.intercept_[:] = 1.0, -1.0
    engine, _, _ = engine_of(estimator, np.array([[0.0], [2.0]]))

    with pytest.raises(CannotAnswer) as refused:
        engine.run(Matrix(np.array([[1.0], [0.5], [np.nan]])), ("predict",))

    assert refused.value.rows.tolist() == [True, False, True]


@pytest.mark.usefixtures("cuml")
def test_a_row_as_near_to_one_centre_as_to_another_is_left_to_another_engine() -> None:
    sample = np.array([[0.0], [2.0], [50.0]])
    engine, _, _ = engine_of(KMeans(3, n_init=1, random_state=0).fit(sample), sample)

    with pytest.raises(CannotAnswer, match="too close") as refused:
        engine.run(Matrix(np.array([[1.0], [26.5], [30.0]])), ("predict",))

    assert refused.value.rows.tolist() == [True, False, False]


@pytest.mark.usefixtures("cuml")
def test_neighbours_are_not_searched_for_again_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, rows = engine_of(KNeighborsClassifier(algorithm="brute").fit(X, TWO))

    def searched(*_: Any) -> bool:
        raise AssertionError("the short cut past kneighbors")

    monkeypatch.setattr("sklearn.neighbors._classification.ArgKminClassMode.is_usable_for", searched)

    assert engine.run(rows, ("predict",))["predict"].shape == (120,)


@pytest.mark.usefixtures("cuml")
def test_scores_on_the_boundary_are_answered() -> None:
    engine, _, _ = engine_of(LogisticRegression(fit_intercept=False).fit([[-1.0], [1.0]], [0, 1]), np.ones((2, 1)))

    assert engine.run(Matrix(np.zeros((1, 1))), ("predict_proba",))["predict_proba"].tolist() == [[0.5, 0.5]]


@pytest.mark.usefixtures("cuml")
def test_a_refusal_by_an_earlier_step_is_the_models_own() -> None:
    frame = pd.DataFrame({"town": np.array(["a", "b"] * 60, dtype=object)})
    engine, _, _ = engine_of(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, TWO), frame)

    with pytest.raises(RowsRefused):
        engine.run(Frame({"town": np.array(["elsewhere"], dtype=object)}), ("predict",))


def test_what_the_device_raises_is_raised_as_it_is(cuml: type[FakeTwin], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, rows = engine_of(Ridge().fit(X, AMOUNTS))

    def exhausted(self: FakeTwin, method: str, rows: Any) -> None:
        raise MemoryError("std::bad_alloc: out_of_memory")

    monkeypatch.setattr(cuml, "_check", exhausted)

    with pytest.raises(MemoryError):
        engine.run(rows, ("predict",))


# -- in an environment that has cuML: what it really accepts, for which it needs no GPU ------------


def _class_of(estimator: Any) -> Any:
    from service.runtimes.cuml import TWINS

    path, _, name = TWINS[type(estimator).__name__].path.rpartition(".")
    return getattr(import_module(path), name)


@needs_cuml
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_cuml_itself_accepts_the_settings_that_are_left(name: str) -> None:
    estimator, target = CONVERTIBLE[name]
    fitted(estimator, target)

    assert refusal(estimator) is None
    _class_of(estimator)._params_from_cpu(prepared(estimator))


@needs_cuml
@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression(positive=True),
        Lasso(warm_start=True),
        ElasticNet(precompute=True),
        LogisticRegression(intercept_scaling=2.0),
        LinearSVC(multi_class="crammer_singer"),
        RandomForestRegressor(ccp_alpha=0.1),
        RandomForestClassifier(class_weight="balanced_subsample"),
        RandomForestRegressor(max_samples=5),
        PCA("mle"),
    ],
    ids=repr,
)
def test_cuml_itself_refuses_settings_of_the_fit_where_they_are_not_reset(estimator: Any) -> None:
    from cuml.internals.interop import UnsupportedOnGPU

    with pytest.raises(UnsupportedOnGPU):
        _class_of(estimator)._params_from_cpu(estimator)


def test_cuml_itself_in_its_own_environment(run_there: Callable[[str, Path, str], None]) -> None:
    run_there("TANDEM_CUML_PYTHON", Path(__file__), "cuml_itself and not environment")
