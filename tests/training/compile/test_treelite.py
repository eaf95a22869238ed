"""Tree ensembles for the Treelite engine, alone and behind other steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from service.core.table import Values, copied
from service.runtimes.describe import describe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.treelite import FRONT, TREES, open_treelite
from training.compile.candidate import Candidate
from training.compile.treelite import compile_treelite

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, 4))
LABELS = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0.5)
PEOPLE = pd.DataFrame(
    {"age": np.where(ROWS[:, 0] > 1, np.nan, ROWS[:, 0]), "city": RANDOM.choice(["Graz", "Linz", "Wien"], 200)}
).astype({"city": object})
FOREST = RandomForestClassifier(n_estimators=7, max_depth=4, random_state=0)
STRANGE = FunctionTransformer(lambda table: np.sort(table, axis=1)[:, ::-1])


def compiled(estimator: Any, sample: Any) -> Candidate:
    described = describe(estimator, sample)
    (candidate,) = compile_treelite(estimator, described.signature, described.sample).candidates
    return candidate


def reason(estimator: Any, sample: Any) -> str:
    described = describe(estimator, sample)
    result = compile_treelite(estimator, described.signature, described.sample)
    assert not result.candidates
    return result.reasons[""]


def answers(estimator: Any, sample: Any, candidate: Candidate) -> tuple[dict[str, Values], dict[str, Values]]:
    """What the estimator and the engine answer, for all outputs that the engine has."""
    described = describe(estimator, sample)
    engine = open_treelite(candidate.files, described.signature, candidate.options)
    own = EstimatorEngine(estimator, described.signature).run(copied(described.sample), candidate.outputs)
    return own, engine.run(described.sample, candidate.outputs)


def assert_equal(own: dict[str, Values], found: dict[str, Values]) -> None:
    assert own.keys() == found.keys()
    for name, values in own.items():
        np.testing.assert_array_equal(np.asarray(values), np.asarray(found[name]))
        assert np.asarray(values).dtype.kind == np.asarray(found[name]).dtype.kind


def test_a_forest_alone_is_one_file_and_all_its_outputs() -> None:
    candidate = compiled(FOREST.fit(ROWS, LABELS), ROWS)

    assert (candidate.name, candidate.runtime, candidate.is_double) == ("treelite", "treelite", True)
    assert set(candidate.files) == {TREES}
    assert candidate.outputs == ("predict", "predict_proba", "predict_log_proba")
    assert candidate.options == {"scores": "votes", "cast": "float32"}


@pytest.mark.parametrize("labels", [LABELS, np.array(["a", "b", "c"])[LABELS], LABELS == 0, LABELS * 2.0])
def test_labels_are_those_of_the_estimator(labels: Any) -> None:
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(ROWS, labels)

    assert_equal(*answers(forest, ROWS, compiled(forest, ROWS)))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda forest: make_pipeline(forest), id="pipeline of one"),
        pytest.param(lambda forest: make_pipeline("passthrough", forest), id="nothing before"),
        pytest.param(lambda forest: GridSearchCV(forest, {"max_depth": [2, 3]}, cv=2), id="search"),
    ],
)
def test_what_is_around_trees_and_does_nothing_is_left_out(wrap: Any) -> None:
    model = wrap(RandomForestClassifier(n_estimators=5, random_state=0)).fit(ROWS, LABELS)

    candidate = compiled(model, ROWS)

    assert set(candidate.files) == {TREES}
    assert_equal(*answers(model, ROWS, candidate))


def test_steps_before_the_trees_become_a_front() -> None:
    model = make_pipeline(StandardScaler(), FOREST).fit(ROWS, LABELS)

    candidate = compiled(model, ROWS)

    assert set(candidate.files) == {TREES, FRONT}
    assert candidate.is_double
    assert_equal(*answers(model, ROWS, candidate))


@pytest.mark.parametrize("sparse", [False, True])
def test_missing_values_and_texts_before_the_trees_are_the_fronts_business(sparse: bool) -> None:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=sparse), ["city"]),
        sparse_threshold=1.0,
    )
    model = make_pipeline(columns, FOREST).fit(PEOPLE, LABELS)

    assert_equal(*answers(model, PEOPLE, compiled(model, PEOPLE)))


def test_categories_that_another_step_codes_are_coded_again_as_boosting_does() -> None:
    columns = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), ["city"]), remainder="passthrough"
    )
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0])
    model = make_pipeline(columns, boosting).fit(PEOPLE, LABELS)

    assert_equal(*answers(model, PEOPLE, compiled(model, PEOPLE)))


def test_xgboost_behind_a_sparse_matrix_takes_zeros_for_missing() -> None:
    xgboost = pytest.importorskip("xgboost")
    encoder = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer((encoder, ["city"]), ("passthrough", ["age"]), sparse_threshold=1.0)
    model = make_pipeline(columns, xgboost.XGBClassifier(n_estimators=5)).fit(PEOPLE, LABELS)

    candidate = compiled(model, PEOPLE)
    own, found = answers(model, PEOPLE, candidate)

    assert candidate.options["zero_is_missing"]
    np.testing.assert_allclose(np.asarray(own["predict_proba"]), np.asarray(found["predict_proba"]), rtol=1e-6)


def test_a_step_without_an_onnx_form_is_a_reason() -> None:
    model = make_pipeline(STRANGE, RandomForestRegressor(n_estimators=3)).fit(ROWS, LABELS)

    assert "the steps before the trees have no ONNX form" in reason(model, ROWS)


def test_an_estimator_without_trees_is_a_reason() -> None:
    assert "LogisticRegression is not an ensemble" in reason(LogisticRegression().fit(ROWS, LABELS), ROWS)


def test_labels_that_json_cannot_carry_leave_the_probabilities() -> None:
    forest = RandomForestClassifier(n_estimators=3).fit(ROWS, np.array([b"a", b"b", b"c"])[LABELS])
    described = describe(forest, ROWS)

    result = compile_treelite(forest, described.signature, described.sample)

    assert result.candidates[0].outputs == ("predict_proba", "predict_log_proba")
    assert set(result.reasons) == {"predict"}


def test_an_output_that_trees_do_not_give_is_a_reason() -> None:
    class Transforming(RandomForestClassifier):  # type: ignore[misc]
        """A subclass may have changed any method."""

    assert "Transforming is not an ensemble" in reason(Transforming(n_estimators=3).fit(ROWS, LABELS), ROWS)
