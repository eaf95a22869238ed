"""The engine that evaluates trees with Treelite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import treelite
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from service.core.artefact_errors import ModelFileUnreadable
from service.core.contracts import Engine
from service.core.errors import CannotAnswer
from service.core.signature import Column, Container, DType, Output, Signature
from service.core.table import Frame, Matrix, Table, Values
from service.runtimes.treelite import TREES, TreeliteEngine, front_signature, open_treelite
from service.runtimes.treelite_library import Trees
from service.runtimes.treelite_recipe import Recipe

ROWS: NDArray[np.float64] = np.random.default_rng(0).normal(size=(300, 3))
LABELS = (ROWS[:, 0] > ROWS[:, 1]).astype(int)
VOTES = {"scores": "votes", "cast": "float32"}


def signature(*dtypes: DType, max_abs: float | None = 3.4e38) -> Signature:
    return Signature(
        container=Container.ARRAY,
        columns=tuple(Column(name=f"x{i}", dtype=dtype, max_abs=max_abs) for i, dtype in enumerate(dtypes)),
        outputs=(
            Output(name="predict", dtype="int64", classes=[0, 1]),
            Output(name="predict_proba", dtype="float64", shape=(2,), classes=[0, 1]),
        ),
    )


FLOATS = signature("float64", "float64", "float64")


@pytest.fixture(scope="module")
def forest() -> Any:
    return RandomForestClassifier(n_estimators=10, random_state=0).fit(ROWS, LABELS)


@pytest.fixture(scope="module")
def files(forest: Any) -> dict[str, bytes]:
    return {TREES: treelite.sklearn.import_model(forest).serialize_bytes()}


class Front:
    """An engine that doubles its rows, and passes on those that hold a nine."""

    is_reentrant = False

    def __init__(self, *, answers_others: bool) -> None:
        self._answers_others = answers_others

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        made: dict[str, Values] = {"transform": rows.values * 2}
        nines = (rows.values == 9).any(axis=1)
        if nines.any():
            raise CannotAnswer("a nine", nines, made if self._answers_others else None)
        return made


def test_a_forest_answers_as_the_estimator_bit_for_bit(forest: Any, files: dict[str, bytes]) -> None:
    engine = open_treelite(files, FLOATS, VOTES)

    answers = engine.run(Matrix(ROWS), ("predict", "predict_proba"))

    assert np.array_equal(np.asarray(answers["predict_proba"]), forest.predict_proba(ROWS))
    assert np.array_equal(np.asarray(answers["predict"]), forest.predict(ROWS))
    assert engine.is_reentrant


def test_rows_are_rounded_to_what_the_estimator_rounds_them_to(forest: Any, files: dict[str, bytes]) -> None:
    tree = forest.estimators_[0].tree_
    column, threshold = int(tree.feature[0]), float(tree.threshold[0])
    beside = np.zeros((1, 3))
    beside[0, column] = np.nextafter(threshold, np.inf)

    answer = open_treelite(files, FLOATS, VOTES).run(Matrix(beside), ("predict_proba",))

    assert np.array_equal(np.asarray(answer["predict_proba"]), forest.predict_proba(beside))


def test_columns_of_several_kinds_make_one_matrix(forest: Any, files: dict[str, bytes]) -> None:
    columns = {
        "x0": np.array([1, -1], dtype=np.int64),
        "x1": np.array([True, None], dtype=object),
        "x2": np.array([0.5, np.nan], dtype=np.float32),
    }
    engine = open_treelite(files, signature("int64", "bool", "float32"), VOTES)

    answer = engine.run(Frame(columns), ("predict_proba",))

    same = np.array([[1, 1, 0.5], [-1, np.nan, np.nan]])
    assert np.array_equal(np.asarray(answer["predict_proba"]), forest.predict_proba(same))


def test_a_number_beyond_float32_is_left_to_another_engine(files: dict[str, bytes]) -> None:
    engine = open_treelite(files, signature("float64", "float64", "float64", max_abs=None), VOTES)
    rows = ROWS[:3].copy()
    rows[1, 2] = 1e39

    with pytest.raises(CannotAnswer) as raised:
        engine.run(Matrix(rows), ("predict_proba",))

    assert raised.value.rows.tolist() == [False, True, False]
    assert raised.value.answers is not None
    alone = engine.run(Matrix(rows[[0, 2]]), ("predict_proba",))
    assert np.array_equal(np.asarray(raised.value.answers["predict_proba"])[[0, 2]], np.asarray(alone["predict_proba"]))


def test_a_close_label_is_left_to_another_engine_and_its_probability_is_not(files: dict[str, bytes]) -> None:
    engine = open_treelite(files, FLOATS, {**VOTES, "margin": 0.5})

    with pytest.raises(CannotAnswer, match="too close") as raised:
        engine.run(Matrix(ROWS), ("predict", "predict_proba"))

    answers = engine.run(Matrix(ROWS), ("predict_proba",))
    votes = np.asarray(answers["predict_proba"])
    assert raised.value.rows.tolist() == (np.abs(votes[:, 0] - votes[:, 1]) <= 0.5).tolist()


def test_categories_are_coded_and_unknown_ones_are_missing() -> None:
    coded = np.column_stack([ROWS[:, 0], np.arange(300) % 3])
    labels = ((coded[:, 1] == 1) ^ (coded[:, 0] > 0)).astype(int)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[1]).fit(coded, labels)
    files = {TREES: treelite.sklearn.import_model(model).serialize_bytes()}
    options = {"scores": "margins", "cast": "float64", "link": "sigmoid", "codes": {"1": ["a", "b", "c"]}}
    engine = open_treelite(files, signature("float64", "string"), options)
    numbers, texts = np.zeros(5), np.array(["a", "b", "c", "d", None], dtype=object)

    answer = engine.run(Frame({"x0": numbers, "x1": texts}), ("predict_proba",))

    same = np.column_stack([numbers, [0, 1, 2, np.nan, np.nan]])
    assert np.allclose(np.asarray(answer["predict_proba"]), model.predict_proba(same), rtol=1e-12)


def test_features_follow_the_order_that_was_said(forest: Any, files: dict[str, bytes]) -> None:
    engine = open_treelite(files, FLOATS, {**VOTES, "order": [2, 0, 1]})

    answer = engine.run(Matrix(ROWS[:, [1, 2, 0]].copy()), ("predict_proba",))

    assert np.array_equal(np.asarray(answer["predict_proba"]), forest.predict_proba(ROWS))


def test_a_zero_is_missing_where_the_matrix_was_sparse(forest: Any, files: dict[str, bytes]) -> None:
    rows = np.round(ROWS[:50])
    engine = open_treelite(files, FLOATS, {**VOTES, "zero_is_missing": True})

    answer = engine.run(Matrix(rows), ("predict_proba",))

    assert np.array_equal(np.asarray(answer["predict_proba"]), forest.predict_proba(np.where(rows == 0, np.nan, rows)))


def behind(front: Engine, files: dict[str, bytes]) -> TreeliteEngine:
    return TreeliteEngine(Trees(files[TREES], 1), Recipe.read(VOTES), FLOATS, front)


def test_trees_take_what_the_front_makes(forest: Any, files: dict[str, bytes]) -> None:
    engine = behind(Front(answers_others=True), files)

    answer = engine.run(Matrix(ROWS), ("predict_proba",))

    assert np.array_equal(np.asarray(answer["predict_proba"]), forest.predict_proba(ROWS * 2))
    assert not engine.is_reentrant


def test_rows_that_the_front_passes_on_are_passed_on(forest: Any, files: dict[str, bytes]) -> None:
    rows = ROWS[:3].copy()
    rows[2, 0] = 9

    with pytest.raises(CannotAnswer, match="a nine") as raised:
        behind(Front(answers_others=True), files).run(Matrix(rows), ("predict_proba",))

    assert raised.value.rows.tolist() == [False, False, True]
    assert raised.value.answers is not None
    answered = np.asarray(raised.value.answers["predict_proba"])[:2]
    assert np.array_equal(answered, forest.predict_proba(rows[:2] * 2))


def test_a_front_that_answers_nothing_answers_nothing(files: dict[str, bytes]) -> None:
    with pytest.raises(CannotAnswer, match="a nine") as raised:
        behind(Front(answers_others=False), files).run(Matrix(np.full((2, 3), 9.0)), ("predict_proba",))

    assert raised.value.answers is None


def test_a_table_narrower_than_the_trees_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ModelFileUnreadable, match="3 features, and the table makes 2"):
        open_treelite(files, signature("float64", "float64"), VOTES)


def test_the_checkpoint_must_be_there() -> None:
    with pytest.raises(ModelFileUnreadable, match="needs the file"):
        open_treelite({}, FLOATS, VOTES)


def test_the_front_makes_a_matrix_as_wide_as_the_trees() -> None:
    (output,) = front_signature(FLOATS, 7).outputs

    assert (output.name, output.dtype, output.shape) == ("transform", "float64", (7,))
