from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from service.core.errors import CannotAnswer, ModelFailed
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix, SparseRows, Table, Values
from service.loading.golden import Golden, Recorded, by_row, compare, read_golden, write_golden

_SIGNATURE = Signature(
    container=Container.ARRAY,
    columns=(Column(name="a", dtype="float64"), Column(name="b", dtype="float64")),
    outputs=(
        Output(name="predict", dtype="float64", classes=[0.0, 1.0]),
        Output(name="decision_function", dtype="float64"),
    ),
)
_ROWS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def _answers(values: NDArray[Any]) -> dict[str, Values]:
    return {"predict": (values[:, 0] > 2).astype(float), "decision_function": values.sum(axis=1)}


class _Engine:
    """Gives the recorded answers, changed as the test says."""

    is_reentrant = True

    def __init__(self, change: Callable[[str, Any], Any] = lambda name, values: values) -> None:
        self.change = change

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        return {name: self.change(name, _answers(rows.values)[name]) for name in outputs}


@pytest.fixture
def golden() -> Golden:
    """Two rows of a sample and a hard one."""
    sample, hard = (Recorded(Matrix(rows), _answers(rows)) for rows in (_ROWS[:2], _ROWS[2:]))
    return read_golden(write_golden(sample, hard, _SIGNATURE), _SIGNATURE)


def test_what_was_recorded_is_read_again(golden: Golden) -> None:
    assert isinstance(golden.sample.rows, Matrix)
    assert np.array_equal(golden.sample.rows.values, _ROWS[:2])
    assert golden.sample.answers == {"predict": [0.0, 1.0], "decision_function": [3.0, 7.0]}
    assert golden.hard is not None
    assert golden.hard.answers == {"predict": [1.0], "decision_function": [11.0]}
    assert golden.example == {"a": 1.0, "b": 2.0}


def test_file_without_hard_rows_is_read_too() -> None:
    content = write_golden(Recorded(Matrix(_ROWS), _answers(_ROWS)), None, _SIGNATURE)

    golden = read_golden(content, _SIGNATURE)

    assert golden.sample.rows.n_rows == 3
    assert golden.hard is None


def test_missing_value_in_a_hard_row_leaves_the_sample_as_it_was() -> None:
    # An integer column with a missing value is float64, and the estimator would see other numbers.
    signature = _SIGNATURE.model_copy(
        update={
            "columns": (Column(name="a", dtype="int8", nullable=True), Column(name="b", dtype="float64")),
            "container": Container.FRAME,
        }
    )
    tables = [Frame({"a": a, "b": np.array([0.5])}) for a in (np.array([1], dtype=np.int8), np.array([np.nan]))]
    sample, hard = (Recorded(rows, {name: np.array([1.0]) for name in signature.output_names}) for rows in tables)

    golden = read_golden(write_golden(sample, hard, signature), signature)

    assert isinstance(golden.sample.rows, Frame)
    assert golden.sample.rows.columns["a"].dtype == np.int8


def test_engine_that_repeats_the_answers_differs_by_nothing(golden: Golden) -> None:
    assert compare(_Engine(), golden, _SIGNATURE, "decision_function").size == 0.0


def test_size_of_the_difference_is_that_of_the_worst_row(golden: Golden) -> None:
    engine = _Engine(lambda name, values: values * (1 + 1e-6))

    found = compare(engine, golden, _SIGNATURE, "decision_function")

    assert found.size == pytest.approx(1e-6, rel=1e-3)


def test_label_that_is_a_number_must_be_equal(golden: Golden) -> None:
    engine = _Engine(lambda name, values: values + 1e-9)

    assert math.isinf(compare(engine, golden, _SIGNATURE, "predict").size)


def test_hard_rows_can_be_left_out(golden: Golden) -> None:
    engine = _Engine(lambda name, values: np.where(values > 10, 0.0, values))

    whole = compare(engine, golden, _SIGNATURE, "decision_function")
    sample = compare(engine, golden, _SIGNATURE, "decision_function", sample_only=True)

    assert whole.size == 1.0
    assert sample.size == 0.0


class _Picky(_Engine):
    """Passes on rows whose first value is at least `limit`, and is wrong about them."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        assert isinstance(rows, Matrix)
        passed_on = rows.values[:, 0] >= self._limit
        if passed_on.any():
            raise CannotAnswer("too large", passed_on)
        return super().run(rows, outputs)


@pytest.mark.parametrize("limit", [pytest.param(3.0, id="some rows"), pytest.param(0.0, id="all rows")])
def test_rows_that_are_passed_on_are_not_held_against_an_engine(golden: Golden, limit: float) -> None:
    assert compare(_Picky(limit), golden, _SIGNATURE, "decision_function").size == 0.0


def test_failure_of_the_engine_is_raised(golden: Golden) -> None:
    def fail(name: str, values: Any) -> Any:
        raise ModelFailed

    with pytest.raises(ModelFailed):
        compare(_Engine(fail), golden, _SIGNATURE, "predict")


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        pytest.param(np.array([[0.5, np.nan], [np.inf, 1.0]]), [[0.5, "NaN"], ["Infinity", 1.0]], id="not finite"),
        pytest.param(
            SparseRows(4, np.array([0, 2, 2]), np.array([1, 3]), np.array([0.5, -np.inf])),
            [[4, [1, 3], [0.5, "-Infinity"]], [4, [], []]],
            id="sparse",
        ),
        pytest.param([np.array([[0.1, 0.9]]), np.array([[1.0]])], [[[0.1, 0.9], [1.0]]], id="several targets"),
        pytest.param(np.array(["yes", "no"]), ["yes", "no"], id="labels"),
    ],
)
def test_reply_is_cut_into_rows(values: Values, rows: list[Any]) -> None:
    from service.protocols.native import write_outputs

    signature = _SIGNATURE.model_copy(update={"outputs": (Output(name="transform", dtype="float64"),)})
    written = orjson.dumps(write_outputs({"transform": values}, signature), option=orjson.OPT_SERIALIZE_NUMPY)

    assert by_row(orjson.loads(written), "transform") == rows
