"""Tree ensembles summed by nvForest: with a fake of it everywhere, and with its own CPU mode where it is installed.

`tests/tools/nvforest_environment.sh DIR` makes an environment that has it; with TANDEM_NVFOREST_PYTHON naming
that environment's python, the last test runs this file there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)

from service.core.artefact_errors import ModelFileUnreadable
from service.core.errors import CannotAnswer
from service.core.signature import Signature
from service.core.table import Matrix, Table, take
from service.runtimes.describe import describe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.nvforest import Device, NvForestEngine, open_nvforest
from service.runtimes.treelite import open_treelite
from tests.service.runtimes.elsewhere import run_there
from training.compile.candidate import Candidate
from training.compile.treelite import compile_treelite

__all__ = ["run_there"]

HAS_NVFOREST: Final = find_spec("nvforest") is not None
needs_nvforest = pytest.mark.skipif(
    not HAS_NVFOREST, reason="nvforest is not installed in this environment; see TANDEM_NVFOREST_PYTHON"
)

_RANDOM: Final = np.random.RandomState(0)
X: Final = _RANDOM.normal(size=(300, 6))
TEXTS: Final = np.array(["low", "middle", "high"], dtype=object)[np.digitize(X[:, 0] + X[:, 1], (-0.5, 0.5))]
TWO: Final = np.where(X[:, 0] + X[:, 2] > 0, 7, -1)
AMOUNTS: Final = X @ np.array([1.0, -2.0, 0.5, 0.0, 3.0, 0.1])
HOLES: Final = np.where(_RANDOM.uniform(size=X.shape) < 0.1, np.nan, X)
COUNTS: Final = np.column_stack([X[:, :4], _RANDOM.randint(0, 6, size=(300, 2))])


def _xgboost(kind: str, **more: Any) -> Any:
    import xgboost

    return getattr(xgboost, kind)(n_estimators=20, **more)


def _lightgbm(kind: str, **more: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, kind)(n_estimators=20, verbosity=-1, **more)


FAMILIES: Final[dict[str, Callable[[], Any]]] = {
    "forest of texts": lambda: RandomForestClassifier(70, max_depth=6, random_state=0).fit(X, TEXTS),
    "forest of two": lambda: RandomForestClassifier(9, random_state=0).fit(X, TWO),
    "forest of numbers": lambda: RandomForestRegressor(70, random_state=0).fit(X, AMOUNTS),
    "forest with holes": lambda: RandomForestClassifier(20, random_state=0).fit(HOLES, TWO),
    "extra trees": lambda: ExtraTreesClassifier(20, random_state=0).fit(X, TEXTS),
    "extra trees of numbers": lambda: ExtraTreesRegressor(20, random_state=0).fit(X, AMOUNTS),
    "boosting of two": lambda: GradientBoostingClassifier(n_estimators=30, random_state=0).fit(X, TWO),
    "boosting of texts": lambda: GradientBoostingClassifier(n_estimators=30, random_state=0).fit(X, TEXTS),
    "boosting of numbers": lambda: GradientBoostingRegressor(n_estimators=30, random_state=0).fit(X, AMOUNTS),
    "histograms of two": lambda: HistGradientBoostingClassifier(max_iter=30).fit(HOLES, TWO),
    "histograms of texts": lambda: HistGradientBoostingClassifier(max_iter=30).fit(X, TEXTS),
    "histograms of numbers": lambda: HistGradientBoostingRegressor(max_iter=30).fit(HOLES, AMOUNTS),
    "histograms of categories": lambda: HistGradientBoostingClassifier(
        max_iter=30, categorical_features=[4, 5]
    ).fit(COUNTS, TEXTS),
    "isolation forest": lambda: IsolationForest(n_estimators=70, random_state=0).fit(X),
    "xgboost of two": lambda: _xgboost("XGBClassifier").fit(HOLES, (TWO > 0).astype(int)),
    "xgboost of numbers": lambda: _xgboost("XGBRegressor").fit(X, AMOUNTS),
    "lightgbm of texts": lambda: _lightgbm("LGBMClassifier").fit(HOLES, TEXTS.astype(str)),
    "lightgbm of numbers": lambda: _lightgbm("LGBMRegressor").fit(X, AMOUNTS),
}  # fmt: skip


@cache
def compiled(name: str) -> tuple[Any, Signature, Candidate, Table]:
    """The fitted estimator, its signature, what the service reads, and rows where engines tend to differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = FAMILIES[name]()
        sample = COUNTS if "categories" in name else HOLES if _takes_holes(estimator) else X
        described = describe(estimator, sample)
        rows = Matrix(np.vstack([sample, at_thresholds(sample)]))
        (candidate,) = compile_treelite(estimator, described.signature, described.sample).candidates
    return estimator, described.signature, candidate, rows


def at_thresholds(sample: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of the sample with one number at, or the least bit beside, the middle of two neighbouring values.

    That is where trees split. The neighbours are those of double and of single precision.
    """
    random, rows = np.random.RandomState(1), []
    for column in range(sample.shape[1]):
        values = np.unique(sample[~np.isnan(sample[:, column]), column])
        for place in random.choice(len(values) - 1, size=10):
            middle = (values[place] + values[place + 1]) / 2
            narrow = np.float32(middle)
            beside = [np.nextafter(kind, side) for kind in (middle, narrow) for side in (-np.inf, np.inf)]
            for value in (middle, narrow, *beside):
                row = sample[random.randint(len(sample))].copy()
                row[column] = value
                rows.append(row)
    return np.array(rows)


def _takes_holes(estimator: Any) -> bool:
    try:
        estimator.predict(HOLES)
    except ValueError:
        return False
    return True


def opened(candidate: Candidate, signature: Signature, device: Device = "cpu", threads: int = 1) -> NvForestEngine:
    return open_nvforest(candidate.files, signature, candidate.options, threads, device)


# -- with a fake -------------------------------------------------------------------------------------


class CupyArray:
    """An array that is not on the host until it is asked to be."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def get(self) -> Any:
        return self._values


class FakeForest:
    """Treelite's sums, in the shapes and with the names that nvForest has."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model
        self.device = device
        self.num_features = model.num_feature
        self.is_classifier = int(model.get_header_accessor().get_field("task_type")[0]) in (0, 2)
        self.num_outputs = self.sums(np.zeros((1, model.num_feature), dtype=str(model.input_type))).get().shape[1]

    def sums(self, rows: Any) -> CupyArray:
        import treelite

        return CupyArray(treelite.gtil.predict(self._model, rows)[:, 0, :])

    def __getattr__(self, name: str) -> Any:
        if name == ("predict_proba" if self.is_classifier else "predict"):
            return self.sums
        raise AttributeError(name)


@pytest.fixture
def nvforest(monkeypatch: pytest.MonkeyPatch) -> list[FakeForest]:
    """The module is there with a fake in it; the list has what was loaded."""
    loaded: list[FakeForest] = []

    def load(model: Any, device: str) -> FakeForest:
        loaded.append(FakeForest(model, device))
        return loaded[-1]

    module = ModuleType("nvforest")
    module.load_from_treelite_model = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvforest", module)
    return loaded


@pytest.mark.parametrize("name", ["forest of texts", "boosting of two", "histograms of texts", "isolation forest"])
def test_outputs_are_made_from_the_sums_of_the_device(name: str, nvforest: list[FakeForest]) -> None:
    estimator, signature, candidate, rows = compiled(name)

    engine = opened(candidate, signature, device="gpu")

    assert [forest.device for forest in nvforest] == ["gpu"]
    assert not engine.is_reentrant
    assert_agrees(engine, estimator, signature, candidate, rows)


@pytest.mark.usefixtures("nvforest")
def test_a_tie_is_left_to_an_engine_that_adds_in_the_estimators_order() -> None:
    forest = RandomForestClassifier(2, max_depth=1, bootstrap=False, random_state=0).fit([[0.0], [0.0]], [0, 1])
    described = describe(forest, np.zeros((2, 1)))
    (candidate,) = compile_treelite(forest, described.signature, described.sample).candidates

    with pytest.raises(CannotAnswer, match="too close"):
        opened(candidate, described.signature).run(Matrix(np.zeros((1, 1))), ("predict",))


@pytest.mark.usefixtures("nvforest")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"files": {}}, "needs the file", id="no file"),
        pytest.param({"files": {"model.tl": b"x" * 100}}, "cannot read", id="garbage"),
        pytest.param({"options": {"scores": "votes", "cast": "float32", "magic": 1}}, "magic", id="unknown option"),
        pytest.param({"options": {"scores": "votes", "cast": "float32", "order": [0]}}, "features", id="width"),
    ],
)
def test_what_does_not_fit_is_refused_at_opening(change: dict[str, Any], why: str) -> None:
    _, signature, candidate, _ = compiled("forest of two")
    arguments: dict[str, Any] = {"files": candidate.files, "options": candidate.options} | change

    with pytest.raises(ModelFileUnreadable, match=why):
        open_nvforest(signature=signature, device="cpu", **arguments)


@pytest.mark.usefixtures("nvforest")
def test_several_targets_are_refused_at_opening() -> None:
    forest = RandomForestRegressor(2).fit(X, np.column_stack([AMOUNTS, AMOUNTS]))
    described = describe(forest, X)
    (candidate,) = compile_treelite(forest, described.signature, described.sample).candidates

    with pytest.raises(ModelFileUnreadable, match="one target"):
        opened(candidate, described.signature)


# -- with nvForest itself ----------------------------------------------------------------------------


@needs_nvforest
@pytest.mark.parametrize("name", FAMILIES)
def test_nvforest_itself_agrees_on_hard_rows(name: str) -> None:
    estimator, signature, candidate, rows = compiled(name)

    engine = opened(candidate, signature)

    assert_agrees(engine, estimator, signature, candidate, rows)


@needs_nvforest
@pytest.mark.parametrize("name", FAMILIES)
def test_nvforest_itself_answers_one_row_as_among_many(name: str) -> None:
    _, signature, candidate, rows = compiled(name)
    engine = opened(candidate, signature, threads=2)
    sure, together = certain(engine, rows, candidate.outputs)

    for place in range(0, len(sure), 29):
        alone = engine.run(take(rows, sure[place : place + 1]), candidate.outputs)
        for output in candidate.outputs:
            np.testing.assert_array_equal(alone[output][0], together[output][place])


def test_nvforest_itself_in_its_own_environment(run_there: Callable[[str, Path, str], None]) -> None:
    run_there("TANDEM_NVFOREST_PYTHON", Path(__file__), "nvforest_itself and not environment")


# -- how closely -------------------------------------------------------------------------------------


def certain(engine: NvForestEngine, rows: Table, outputs: tuple[str, ...]) -> tuple[np.ndarray[Any, Any], Any]:
    """The rows that the engine answers for, and its answers to them."""
    try:
        return np.arange(rows.n_rows), engine.run(rows, outputs)
    except CannotAnswer as error:
        sure = np.flatnonzero(~error.rows)
        return sure, engine.run(take(rows, sure), outputs)


def assert_agrees(
    engine: NvForestEngine, estimator: Any, signature: Signature, candidate: Candidate, rows: Table
) -> None:
    sure, answers = certain(engine, rows, candidate.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = EstimatorEngine(estimator, signature).run(take(rows, sure), candidate.outputs)
    reference = open_treelite(candidate.files, signature, candidate.options).run(take(rows, sure), candidate.outputs)
    assert len(sure) > 0.8 * rows.n_rows
    # XGBoost and LightGBM compute in single precision, or in an order of their own.
    rtol = 1e-12 if type(estimator).__module__.startswith("sklearn.") else 1e-5
    for output in candidate.outputs:
        assert answers[output].dtype == expected[output].dtype
        assert answers[output].shape == expected[output].shape
        if expected[output].dtype.kind == "f":
            np.testing.assert_allclose(answers[output], expected[output], rtol=rtol, atol=rtol)
            np.testing.assert_allclose(answers[output], reference[output], rtol=rtol, atol=rtol)
        else:
            np.testing.assert_array_equal(answers[output], expected[output])
