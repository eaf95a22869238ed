"""Graphs that are written as numpy is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from training.compile import onnx_graph
from training.compile.onnx_graph import Graph, Lookup, Tensor, TooLarge, concat, stack

X = np.array([[1.0, -2.0, 3.0], [0.5, np.nan, -1.0]])


def run(write: Callable[[Tensor], Tensor], values: Any = X) -> Any:
    graph = Graph()
    name = graph.output(write(graph.input("x", "double", (None, None))))
    session = ort.InferenceSession(graph.model(), providers=["CPUExecutionProvider"])
    return session.run([name], {"x": values})[0]


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph.model()).graph.node]


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x + 1.0 - x * 2.0,
        lambda x: 1.0 / (2.0 - x),
        lambda x: np.ones((4, 3)).T.sum(axis=1) * x,
        lambda x: x @ np.arange(6.0).reshape(3, 2),
        lambda x: -(x**2.0),
    ],
)
def test_arithmetic_is_that_of_numpy(formula: Any) -> None:
    np.testing.assert_array_equal(run(formula), formula(X))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (lambda x: x.isnan().where(0.0, x), np.nan_to_num(X)),
        (lambda x: (x > 0.0).where(1.0, -1.0), np.where(X > 0, 1.0, -1.0)),
        (lambda x: (x > 0.0).cast("int64").sum(), [2, 1]),
        (lambda x: ((x >= 1.0) & ~x.equals(3.0) | (x < -1.5)).cast("double"), [[1, 1, 0], [0, 0, 0]]),
        (lambda x: x.column(2), X[:, 2]),
        (lambda x: x.columns([2, 0]), X[:, [2, 0]]),
        (lambda x: x.columns([0, 2]).clip(high=1.0), X[:, [0, 2]].clip(max=1.0)),
        (lambda x: x.columns([0, 2]).argmax(), [1, 0]),
        (lambda x: (x.columns([0]) > 0.7).cast("int64").lookup([10.0, 20.0]), [[20.0], [10.0]]),
        (lambda x: stack([x.column(2), x.column(0)]), X[:, [2, 0]]),
        (lambda x: x.columns([0, 2]).logsumexp(), np.log(np.exp(X[:, [0, 2]]).sum(axis=1))),
    ],
)
def test_other_operations_are_those_of_numpy(written: Any, expected: Any) -> None:
    np.testing.assert_allclose(run(written), expected, rtol=1e-15)


def test_a_step_that_formulas_share_is_written_once_and_what_nobody_needs_not_at_all() -> None:
    graph = Graph()
    x = graph.input("x", "double", (None, None))
    first, second = (x - np.ones(3)) * 2.0, (x - np.ones(3)) * 3.0
    _ = x.op("Exp")
    graph.output(first)
    graph.output(second)

    assert kinds(graph) == ["Sub", "Mul", "Mul"]


def test_an_input_can_be_an_output() -> None:
    np.testing.assert_array_equal(run(lambda x: x), X)


def test_choosing_every_column_in_order_is_no_step() -> None:
    graph = Graph()
    x = graph.input("x", "double", (None, 3))
    graph.output(x.columns([0, 1, 2]) + 1.0)
    graph.output(x.columns([1, 0, 2]) * 2.0)

    graph.drop_choices("x", np.arange(3))

    assert kinds(graph) == ["Add", "Gather", "Mul"]


def looked_up(graph: Graph, table: Any) -> Lookup:
    return Lookup(graph.input("codes", "int64", (None, None)), np.asarray(table))


def test_looked_up_columns_are_the_sum_of_the_codes_rows() -> None:
    graph = Graph()
    name = graph.output(looked_up(graph, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]) + 0.0)
    session = ort.InferenceSession(graph.model(), providers=["CPUExecutionProvider"])

    (answer,) = session.run([name], {"codes": np.array([[0, 1], [2, 2]])})

    np.testing.assert_array_equal(answer, [[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]])


def test_a_product_with_looked_up_columns_beside_others_holds_only_the_product_of_the_table() -> None:
    table, weights = np.eye(500), np.arange(503.0)
    graph = Graph()
    x = graph.input("x", "double", (None, 3))
    name = graph.output(concat([x, looked_up(graph, table)]) @ weights)

    content = graph.model()

    assert len(content) < 500 * 8 + 1000
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    values = np.nan_to_num(X)
    (answer,) = session.run([name], {"x": values, "codes": np.array([[7, 499]])})
    np.testing.assert_array_equal(answer, np.hstack([values, np.eye(500)[[7, 499]]]) @ weights)


def test_a_table_that_is_too_large_is_not_written_where_it_would_have_to_be_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_graph, "MOST_TABLE_BYTES", 1000)
    graph = Graph()

    wide = looked_up(graph, np.eye(100))

    with pytest.raises(TooLarge, match="100 categories"):
        graph.output(wide * 2.0)
    graph.output(wide @ np.ones(100))
