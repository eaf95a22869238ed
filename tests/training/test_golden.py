from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix
from training.golden import CELLS, ROWS, choose_rows


def _signature(*columns: Column, width: int | None = None) -> Signature:
    shape = () if width is None else (width,)
    output = Output(name="transform", dtype="float64", shape=shape)
    return Signature(container=Container.FRAME, columns=columns, outputs=(output,))


def _floats(count: int, nullable: bool = False) -> list[Column]:
    return [Column(name=f"x{index}", dtype="float64", nullable=nullable) for index in range(count)]


def test_rows_of_a_small_sample_are_all_recorded() -> None:
    chosen = choose_rows(_signature(*_floats(2)), Matrix(np.arange(10.0).reshape(5, 2)))

    assert chosen.tolist() == [0, 1, 2, 3, 4]


def test_of_a_large_sample_the_first_rows_and_the_extremes_are_recorded() -> None:
    values = np.random.default_rng(1).normal(size=(1000, 2))
    values[700, 0], values[800, 1] = 99.0, -99.0

    chosen = choose_rows(_signature(*_floats(2)), Matrix(values))

    assert len(chosen) == ROWS
    assert {*range(ROWS // 4), 700, 800} <= set(chosen.tolist())


def test_rows_with_missing_values_are_recorded_where_they_may_be_missing() -> None:
    values = np.zeros((1000, 1))
    values[900] = np.nan

    assert 900 in choose_rows(_signature(*_floats(1, nullable=True)), Matrix(values))
    assert 900 not in choose_rows(_signature(*_floats(1)), Matrix(values))


def test_rows_that_no_json_can_carry_are_left_out() -> None:
    values = np.array([[1.0], [np.inf], [-np.inf], [2.0]])

    assert choose_rows(_signature(*_floats(1, nullable=True)), Matrix(values)).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param(Column(name="x", dtype="string"), np.array(["a", None, "b"], dtype=object), id="text"),
        pytest.param(
            Column(name="x", dtype="datetime"), np.array(["2026-01-01", "NaT", "2026-01-02"], "M8[ns]"), id="datetime"
        ),
        pytest.param(Column(name="x", dtype="int64"), np.array([1.0, np.nan, 2.0]), id="whole number"),
    ],
)
def test_missing_values_of_every_kind_are_left_out_where_none_may_be(column: Column, values: Any) -> None:
    assert choose_rows(_signature(column), Frame({"x": values})).tolist() == [0, 2]


def test_where_no_row_can_be_sent_none_is_chosen() -> None:
    assert choose_rows(_signature(*_floats(1)), Matrix(np.full((3, 1), np.inf))).size == 0


@pytest.mark.parametrize(
    ("width", "rows"), [(1, ROWS), (CELLS // 10 - 1, 10), (CELLS * 2, 1)], ids=["narrow", "wide", "wider than allowed"]
)
def test_wide_answers_are_recorded_for_fewer_rows(width: int, rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(100, 1))

    assert len(choose_rows(_signature(*_floats(1), width=width), Matrix(values))) == rows


@given(
    values=st.lists(
        st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=80
    ).map(lambda rows: np.array(rows, dtype=np.float64)),
    nullable=st.booleans(),
)  # fmt: skip
def test_chosen_rows_are_sendable_sorted_distinct_and_the_same_again(values: Any, nullable: bool) -> None:
    signature = _signature(*_floats(2, nullable))

    chosen = choose_rows(signature, Matrix(values))

    sendable = ~np.isinf(values).any(axis=1) & (nullable | ~np.isnan(values).any(axis=1))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert sendable[chosen].all()
    assert bool(chosen.size) == bool(sendable.any())
    assert chosen.size <= ROWS
    assert choose_rows(signature, Matrix(values)).tolist() == chosen.tolist()
