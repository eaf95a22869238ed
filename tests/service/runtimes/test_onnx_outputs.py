"""From tensors to outputs that look like the estimator's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.core.signature import Output
from service.core.table import SparseRows
from service.runtimes.onnx_outputs import maker


def made(output: Output, *tensors: Any, margin: float = 0.0, **recipe: Any) -> Any:
    return maker(output, recipe, margin)([np.asarray(tensor) for tensor in tensors])


def labels(output: Output, *scores: Any, classes: list[Any], inclusive: bool = False, margin: float = 0.0) -> Any:
    recipe = {"as": "labels", "classes": [classes] * len(scores), "inclusive": [inclusive] * len(scores)}
    return made(output, *scores, margin=margin, **recipe)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool"])
def test_numbers_have_the_dtype_of_the_estimator(dtype: str) -> None:
    values, bad = made(Output(name="transform", dtype=dtype), [0.0, 1.0], **{"as": "values"})

    assert values.dtype == dtype
    assert bad is None


def test_several_targets_are_a_list_of_arrays() -> None:
    output = Output(name="predict_proba", dtype="float64", targets=2)

    values, _ = made(output, [[0.5, 0.5]], [[1.0]], **{"as": "values", "list": True})

    assert [part.tolist() for part in values] == [[[0.5, 0.5]], [[1.0]]]


def test_the_logarithm_of_nothing_is_an_answer() -> None:
    values, _ = made(Output(name="predict_log_proba", dtype="float64"), [0.0, 1.0], **{"as": "logarithms"})

    assert values.tolist() == [-np.inf, 0.0]


def test_sparse_rows_hold_what_is_not_zero() -> None:
    dense = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0]])

    values, _ = made(Output(name="transform", dtype="float64", sparse=True), dense, **{"as": "sparse"})

    assert isinstance(values, SparseRows)
    assert (values.width, values.indptr.tolist()) == (3, [0, 1, 1, 3])
    assert (values.indices.tolist(), values.data.tolist()) == ([1, 0, 2], [2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("dtype", "classes", "kind"),
    [
        ("string", ["a", "bb"], "U"),
        ("object", ["a", "bb"], "O"),
        ("int64", [3, 5], "i"),
        ("float64", [0.5, 1.5], "f"),
        ("bool", [False, True], "b"),
    ],
)
def test_labels_are_those_of_the_training(dtype: str, classes: list[Any], kind: str) -> None:
    values, bad = labels(Output(name="predict", dtype=dtype), [[0.2, 0.8], [0.7, 0.3]], classes=classes)

    assert values.dtype.kind == kind
    assert values.tolist() == [classes[1], classes[0]]
    assert bad is None


def test_the_first_of_equal_scores_wins() -> None:
    values, _ = labels(Output(name="predict", dtype="int64"), [[1.0, 2.0, 2.0]], classes=[7, 8, 9])

    assert values.tolist() == [8]


@pytest.mark.parametrize(("inclusive", "expected"), [(False, [-1, -1, 1]), (True, [-1, 1, 1])])
def test_a_single_score_is_compared_with_zero(inclusive: bool, expected: list[int]) -> None:
    output = Output(name="predict", dtype="int64")

    values, _ = labels(output, [-1.0, 0.0, 1.0], classes=[-1, 1], inclusive=inclusive)

    assert values.tolist() == expected


def test_targets_stand_side_by_side() -> None:
    output = Output(name="predict", dtype="int64", shape=(2,))

    values, _ = labels(output, [1.0, -1.0], [-1.0, 1.0], classes=[0, 1])

    assert values.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([[0.5, 0.5 + 1e-7, 0.0], [0.2, 0.8, 0.0]], id="two classes are best"),
        pytest.param([[1e6, 1e6 + 1.0, 0.0], [1e6, 1e6 + 100.0, 0.0]], id="relative to large scores"),
        pytest.param([1e-7, 0.5], id="near zero"),
    ],
)
def test_scores_nearer_than_the_margin_are_too_close_to_call(scores: Any) -> None:
    _, bad = labels(Output(name="predict", dtype="int64"), scores, classes=[0, 1, 2], margin=1e-5)

    assert bad.tolist() == [True, False]


def test_one_target_that_is_too_close_is_enough() -> None:
    output = Output(name="predict", dtype="int64", shape=(2,))

    _, bad = labels(output, [1.0, 1.0], [0.0, 1.0], classes=[0, 1], margin=1e-5)

    assert bad.tolist() == [True, False]


def test_a_way_of_a_newer_export_is_refused() -> None:
    with pytest.raises(ValueError, match="no way to make predict"):
        made(Output(name="predict", dtype="int64"), [1.0], **{"as": "by magic"})
