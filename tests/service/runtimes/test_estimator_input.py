"""Rows become what the estimator was fitted on, dtype for dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.preprocessing import FunctionTransformer

from service.core.signature import Container, Signature
from service.runtimes.estimator_input import input_builder
from service.runtimes.sample import read_sample

FRAMES = {
    "plain": pd.DataFrame({"f": [1.5, np.nan], "i": [1, 2], "b": [True, False], "s": ["a", "b"]}),
    "missing text": pd.DataFrame({"s": ["a", None], "f": [1.0, 2.0]}),
    "text as objects, NaN missing": pd.DataFrame({"s": pd.Series(["a", np.nan], dtype=object)}),
    "text as objects, None missing": pd.DataFrame({"s": pd.Series(["a", None], dtype=object)}),
    "types that hold missing values": pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "f": pd.array([1.5, None], dtype="Float64"),
            "b": pd.array([True, None], dtype="boolean"),
            "s": pd.array(["a", None], dtype="string"),
        }
    ),
    "small types": pd.DataFrame({"f": np.float32([1, 2]), "i": np.int8([1, 2])}),
    "categories": pd.DataFrame(
        {
            "text": pd.Categorical(["a", None], categories=["b", "a"], ordered=True),
            "number": pd.Categorical([1, 2]),
        }
    ),
    "dates": pd.DataFrame(
        {
            "naive": pd.to_datetime(["2020-01-01T12:00:00.000001", None]),
            "fine": pd.to_datetime(["2020-01-01", None]).as_unit("ns"),
            "zoned": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Vienna"),
        }
    ),
    "one kind of number": pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_data_frame_comes_back_as_it_was(name: str) -> None:
    frame = FRAMES[name]
    sample = read_sample(FunctionTransformer(), frame)
    signature = Signature(container=sample.container, columns=sample.columns, outputs=())

    built = input_builder(signature)(sample.table)

    pd.testing.assert_frame_equal(built, frame, check_exact=True)


ARRAYS: dict[str, Any] = {
    "numbers": np.array([[1.0, np.nan], [2.0, 3.0]]),
    "objects": np.array([["a", 1], ["b", 2]], dtype=object),
    "objects with a hole": np.array([["a", 1.5], [np.nan, 2.5]], dtype=object),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_as_it_was(name: str) -> None:
    sample = read_sample(FunctionTransformer(), ARRAYS[name])
    signature = Signature(container=sample.container, columns=sample.columns, outputs=())

    built = input_builder(signature)(sample.table)

    assert built.dtype == ARRAYS[name].dtype
    pd.testing.assert_frame_equal(pd.DataFrame(built), pd.DataFrame(ARRAYS[name]), check_exact=True)


def test_sparse_rows_and_series_come_back_as_they_were() -> None:
    matrix = sparse.csr_matrix(np.array([[0.0, 1.0], [2.0, 0.0]]))
    texts = ["one", "two"]

    for given, container in ((matrix, Container.SPARSE), (texts, Container.SERIES)):
        sample = read_sample(FunctionTransformer(), given)
        assert sample.container is container
        built = input_builder(Signature(container=sample.container, columns=sample.columns, outputs=()))(sample.table)
        if container is Container.SPARSE:
            np.testing.assert_array_equal(built.toarray(), matrix.toarray())
            assert built.format == "csr"
        else:
            assert built.tolist() == texts


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_keeps_its_memory_layout_because_last_digits_depend_on_it(order: Any) -> None:
    values = np.asarray(np.arange(6.0).reshape(3, 2), order=order)
    frame = pd.DataFrame(values, columns=["a", "b"], copy=False)

    for given in (values, frame):
        sample = read_sample(FunctionTransformer(), given)
        signature = Signature(container=sample.container, columns=sample.columns, outputs=(), order=sample.order)
        built = np.asarray(input_builder(signature)(sample.table))
        assert built.flags.c_contiguous is np.asarray(given).flags.c_contiguous
