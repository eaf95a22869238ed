from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression

from training.data import BUILT_IN, DataUnusable, Task, load, load_sample, read_table, task_of


def write_csv(folder: Path, columns: dict[str, Any], name: str = "data.csv") -> str:
    path = folder / name
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_sets_have_named_columns_and_as_many_targets_as_rows(name: str) -> None:
    data = load(name)

    assert len(data.X) == len(data.y)
    assert all(isinstance(column, str) for column in data.X.columns)
    assert "target" not in data.X.columns


def test_classes_of_a_built_in_set_have_the_names_the_set_gives_them() -> None:
    assert set(load("iris").y) == {"setosa", "versicolor", "virginica"}
    assert set(load("digits").y) == set(range(10))


def test_another_column_of_a_built_in_set_can_be_the_target() -> None:
    data = load("iris", "petal width (cm)")

    assert data.y.dtype == np.float64
    assert "target" in data.X.columns


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
def test_a_file_reads_alike_in_every_format(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    path = tmp_path / f"data.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")

    read = read_table(path)

    pd.testing.assert_frame_equal(read, frame)


def test_rows_without_a_target_are_left_out_and_reported(tmp_path: Path) -> None:
    source = write_csv(tmp_path, {"a": range(14), "b": [0, 1] * 6 + [None, None]})

    data = load(source, "b")

    assert len(data.X) == 12
    assert data.notes == ("2 of 14 rows left out: 'b' is missing",)


def test_dropped_columns_are_not_seen(tmp_path: Path) -> None:
    source = write_csv(tmp_path, {"a": range(10), "b": range(10), "c": range(10)})

    assert list(load(source, "c", drop=["a"]).X.columns) == ["b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(pd.Series(["x", "y"] * 6), "U", id="text"),
        pytest.param(pd.Series(["x", "y"] * 6, dtype="category"), "U", id="category of text"),
        pytest.param(pd.Series([1, 2] * 6, dtype="category"), "i", id="category of numbers"),
        pytest.param(pd.Series([True, False] * 6), "b", id="booleans"),
        pytest.param(pd.Series([True, None] * 12, dtype="boolean"), "b", id="booleans with holes"),
        pytest.param(pd.Series([1, None] * 12, dtype="Int64"), "i", id="whole numbers with holes"),
        pytest.param(pd.Series([0.0, 1.0] * 6), "i", id="whole numbers as floats"),
        pytest.param(pd.Series([1.5, 2.5] * 6), "f", id="fractions"),
        pytest.param(pd.Series([1e300, 2.0] * 6), "f", id="whole, but too large"),
    ],
)
def test_the_target_becomes_an_array_of_its_own_kind(tmp_path: Path, values: pd.Series[Any], expected: str) -> None:
    path = tmp_path / "data.parquet"
    pd.DataFrame({"a": range(len(values)), "y": values}).to_parquet(path)

    assert load(str(path), "y").y.dtype.kind == expected


@pytest.mark.parametrize(
    ("y", "task"),
    [
        pytest.param(np.array(["a", "b"]), Task.CLASSIFICATION, id="text"),
        pytest.param(np.array([True, False]), Task.CLASSIFICATION, id="booleans"),
        pytest.param(np.arange(100) % 5, Task.CLASSIFICATION, id="few whole numbers"),
        pytest.param(np.array([0, 1, 1]), Task.CLASSIFICATION, id="two values in three rows"),
        pytest.param(np.arange(100), Task.REGRESSION, id="many whole numbers"),
        pytest.param(np.arange(12) % 8, Task.REGRESSION, id="few, but nearly as many as rows"),
        pytest.param(np.array([0.5, 1.5] * 9), Task.REGRESSION, id="fractions"),
    ],
)
def test_the_task_is_read_off_the_target(y: np.ndarray[Any, Any], task: Task) -> None:
    assert task_of(y) is task


@pytest.mark.parametrize(
    ("columns", "target", "message"),
    [
        pytest.param({"a": range(12), "b": range(12)}, "c", "no column 'c'; it has a, b", id="unknown target"),
        pytest.param({"a": range(12), "b": range(12)}, None, "--target.* has a, b", id="no target"),
        pytest.param({"a": range(3), "b": range(3)}, "b", "3 rows .* at least 10", id="too few rows"),
        pytest.param({"b": range(12)}, "b", "no column left", id="nothing to learn from"),
        pytest.param({"a": range(12), "b": [np.inf] * 12}, "b", "infinite", id="infinite target"),
        pytest.param({"a": [], "b": []}, "b", "holds no rows", id="empty"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(
    tmp_path: Path, columns: dict[str, Any], target: str | None, message: str
) -> None:
    source = write_csv(tmp_path, columns)

    with pytest.raises(DataUnusable, match=message):
        load(source, target)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("absent.csv", None, "there is no file", id="absent"),
        pytest.param("irsi", None, "neither a built-in set .*iris.* nor a file", id="misspelt set"),
        pytest.param("data.csv", b"", "cannot be read", id="empty file"),
        pytest.param("data.csv", b"a\n\xff\xfe\n", "cannot be read", id="not text"),
        pytest.param("data.parquet", b"PAR0", "cannot be read", id="not parquet"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataUnusable, match=message):
        load(str(path), "a")


def test_a_sample_keeps_the_columns_the_estimator_was_fitted_on(tmp_path: Path) -> None:
    estimator = LinearRegression().fit(pd.DataFrame({"b": [1, 2], "a": [2, 4]}), [1, 2])
    source = write_csv(tmp_path, {"a": [1, 2, 3], "b": [3, 4, 5], "c": [5, 6, 7], "y": [1, None, 2]})

    X, y = load_sample(Path(source), estimator, "y")

    assert list(X.columns) == ["b", "a"]
    assert y is not None and y.tolist() == [1, 2]


def test_a_sample_of_a_vectorizer_is_a_list_of_texts(tmp_path: Path) -> None:
    source = write_csv(tmp_path, {"text": ["red fox", "blue sky"]})

    X, _ = load_sample(Path(source), CountVectorizer().fit(["red fox"]))

    assert X == ["red fox", "blue sky"]


def test_a_vectorizer_is_not_given_a_table(tmp_path: Path) -> None:
    source = write_csv(tmp_path, {"text": ["red fox"], "id": [1]})

    with pytest.raises(DataUnusable, match=r"one column of texts; .* has text, id"):
        load_sample(Path(source), CountVectorizer().fit(["red fox"]))


def test_a_sample_can_be_an_array_file_but_never_a_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.eye(2))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))

    X, _ = load_sample(tmp_path / "numbers.npy", LinearRegression())

    assert X.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(DataUnusable, match="cannot be read"):
        load_sample(tmp_path / "objects.npy", LinearRegression())
