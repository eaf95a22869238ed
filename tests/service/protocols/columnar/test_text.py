from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    RequestError,
    TandemError,
    UnreadableRequest,
)
from service.core.messages import InferReply
from service.core.signature import Column, Container, Output, Signature
from service.core.table import Frame, Matrix, SparseRows, Table
from service.protocols.columnar.reply_table import rows_between
from service.protocols.columnar.text import read_csv, read_lines, write_csv, write_lines
from service.protocols.native import decode_columns, write_outputs
from tests.service.protocols.columnar.bodies import MIXED, NUMBERS
from tests.service.protocols.fake_server import SHOP, signature_of
from tests.service.protocols.tables import cells, signatures


def read(body: bytes, signature: Signature = MIXED, **parameters: str) -> Table:
    return read_csv(body, signature, parameters, 2**20)


def lists(table: Table) -> list[list[Any]]:
    """Columns as lists, NaN and NaT as None."""
    arrays = table.values.T if isinstance(table, Matrix) else table.columns.values()
    return [[None if value != value else value for value in array.tolist()] for array in arrays]


def test_columns_are_found_by_their_names_in_any_order() -> None:
    table = read(b"word,count,truth,at,size\ngreat,3,true,2025-01-02T03:04:05+01:00,0.5\n")

    assert isinstance(table, Frame)
    assert {name: values.tolist() for name, values in table.columns.items()} == {
        "count": [3], "word": ["great"], "truth": [True],
        "at": [np.datetime64("2025-01-02T02:04:05", "us").item()], "size": [0.5],
    }  # fmt: skip


def test_without_a_header_the_order_is_that_of_the_signature() -> None:
    assert lists(read(b"1,2,3\n4,5,6\n", NUMBERS, header="absent")) == [[1, 4], [2, 5], [3, 6]]


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbfx0,x1,x2\r\n1,2,3\r\n",
        b"x0,x1,x2\n\n1,2,3\n\n",
        b'"x0","x1","x2"\n"1","2","3"',
        b"x2,x1,x0\n3, 2 ,1.\n",
        b"x0,x1,x2\n+1,.2e1,3E0\n",
    ],
    ids=["from a spreadsheet", "blank lines", "quoted", "blanks", "signs and exponents"],
)
def test_one_row_written_in_many_ways(body: bytes) -> None:
    assert lists(read(body, NUMBERS)) == [[1], [2], [3]]


def test_empty_cells_are_missing_where_something_may_be_missing() -> None:
    table = read(b"count,word,truth,at,size\n,,,,\n")

    assert lists(table) == [[None]] * 5


def test_an_empty_cell_is_an_empty_text_where_none_may_be_missing() -> None:
    signature = signature_of(Column(name="a", dtype="string"), Column(name="b", dtype="int8"))

    assert lists(read(b"a,b\n,1\n", signature)) == [[""], [1]]


@pytest.mark.parametrize(
    "cell", ["9007199254740993", "18446744073709551617", "1e400", "inf", "-Infinity", "1_0", "１", "x"]
)
def test_what_a_float_cannot_be_is_refused_as_it_was_written(cell: str) -> None:
    with pytest.raises(InvalidRows) as caught:
        read(f"x0,x1,x2\n1,1,1\n1,{cell},1\n".encode(), NUMBERS)

    (problem,) = caught.value.problems
    assert (problem.row, problem.column, problem.got.strip("'")) == (1, "x1", cell)


@pytest.mark.parametrize(("cell", "count"), [("9007199254740991", 2**53 - 1), ("1e3", 1000), ("-5.0", -5)])
def test_integers_keep_every_digit(cell: str, count: int) -> None:
    assert lists(read(f"count,at\n{cell},\n2,\n".encode()))[0] == [count, 2]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(b"", UnreadableRequest, id="empty"),
        pytest.param(b"x0,x1,x2\n", InvalidRequest, id="no rows"),
        pytest.param(b"x0,x1,x2\n1,2\n", InvalidRows, id="too short"),
        pytest.param(b"x0,x1,x2\n1,2,3,4\n", InvalidRows, id="too long"),
        pytest.param(b"x0,x1\n1,2\n", InvalidRows, id="a column missing"),
        pytest.param(b"x0,x1,x2,x3\n1,2,3,4\n", InvalidRows, id="a column too many"),
        pytest.param(b"x0,x0,x1\n1,2,3\n", InvalidRequest, id="a name twice"),
        pytest.param(b"x0,x1,x2\n1,2,\xff\n", UnreadableRequest, id="no UTF-8"),
        pytest.param(b'x0,x1,x2\n1,2,"3\n', UnreadableRequest, id="an open quote"),
        pytest.param(b'x0,x1,x2\n1,2,"3"4\n', UnreadableRequest, id="more after a quote"),
        pytest.param(b"x0,x1,x2\n1,2," + b"9" * 200_000, UnreadableRequest, id="a huge cell"),
    ],
)
def test_what_is_wrong_with_csv_is_the_callers_fault(body: bytes, error: type[TandemError]) -> None:
    signature = signature_of(*(Column(name=f"x{i}", dtype="float64") for i in range(3)))

    with pytest.raises(error) as caught:
        read(body, signature)

    assert len(str(caught.value)) < 500


def cell_of(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(data=st.data(), signature=signatures())
def test_csv_is_decoded_as_the_values_that_it_holds(data: st.DataObject, signature: Signature) -> None:
    """What JSON takes as columns, CSV takes, and to the same values, but that empty texts may be missing ones."""
    rows = data.draw(st.integers(1, 3))
    kinds = (int, float, str, bool, type(None))
    values = {
        column.name: data.draw(st.lists(cells().filter(lambda v: type(v) in kinds), min_size=rows, max_size=rows))
        for column in signature.columns
    }
    texts = {name: [cell_of(value) for value in some] for name, some in values.items()}
    content = io.StringIO(newline="")
    writer = csv.writer(content, quoting=csv.QUOTE_ALL)
    writer.writerow(texts)
    writer.writerows(zip(*texts.values(), strict=True))
    try:
        expected = decode_columns(values, signature, exact=True)
    except InvalidRows:
        return  # CSV may still take it: true as a text is no truth in JSON
    if any(c.dtype == "string" and ("" in values[c.name] or None in values[c.name]) for c in signature.columns):
        return

    found = read(content.getvalue().encode(), signature)

    assert lists(found) == lists(expected)


# -- JSON lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"age":1,"city":"Graz"}\n{"age":2,"city":null}\n',
        b'\n{"city":"Graz","age":1}\r\n\n {"age":2.0} ',
        b'[1,"Graz"]\n[2,null]',
    ],
    ids=["objects", "blank lines", "lists"],
)
def test_each_line_is_a_row(body: bytes) -> None:
    assert lists(read_lines(body, SHOP, {}, 2**20)) == [[1, 2], ["Graz", None]]


def test_lines_of_a_series_are_its_values() -> None:
    texts = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)

    assert lists(read_lines(b'"great"\n"bad"\n', texts, {}, 2**20)) == [["great", "bad"]]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "at least one line"),
        (b"\n \n", "at least one line"),
        (b'{"age":1}\n{"age":', "line 2 is not valid JSON"),
        (b'{"age":1} {"age":2}', "line 1 is not valid JSON"),
        (b'[1,"a"],\n[2,"b"]', "line 1"),
        (b'{"age":1}\n[2,"x"]', "row 1"),
        (b'{"age":1}\n{"age":18446744073709551616}', "18446744073709551616"),
        (b'{"age":1}\n{"age":1e400}', "1e400"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_place(body: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_lines(body, SHOP, {}, 2**20)


# -- answers -------------------------------------------------------------------------------------

OUTPUTS = {
    "predict": Output(name="predict", dtype="string", classes=["no", "yes"]),
    "predict_proba": Output(name="predict_proba", dtype="float32", shape=(2,), classes=["no", "yes"]),
    "transform": Output(name="transform", dtype="float64", shape=(3,), sparse=True),
    "targets": Output(name="targets", dtype="float64", targets=2, classes=[[0, 1], [0, 1, 2]]),
}
ANSWERS: dict[str, Any] = {
    "predict": np.array(["yes", "no", "yes"]),
    "predict_proba": np.array([[0.1, 0.9], [np.nan, np.inf], [1, 0]], dtype="f4"),
    "transform": SparseRows(3, np.array([0, 1, 1, 3]), np.array([2, 0, 1]), np.array([5.0, np.nan, -np.inf])),
    "targets": [np.array([[0.5, 0.5]] * 3), np.array([[0.25, 0.5, 0.25]] * 3)],
}


def reply(*names: str) -> InferReply:
    signature = signature_of(*SHOP.columns, outputs=tuple(OUTPUTS[name] for name in names))
    return InferReply("shop", 3, signature, {name: ANSWERS[name] for name in names})


@pytest.mark.parametrize("names", [["predict"], ["predict", "predict_proba"], ["transform"], ["targets", "predict"]])
def test_each_line_is_the_reply_to_one_record(names: list[str]) -> None:
    answer = reply(*names)

    lines = write_lines(answer).splitlines()

    for row, line in enumerate(lines):
        alone = {name: rows_between(values, row, row + 1) for name, values in answer.outputs.items()}
        written = orjson.dumps(write_outputs(alone, answer.signature, one=True), option=orjson.OPT_SERIALIZE_NUMPY)
        assert orjson.loads(line) == orjson.loads(written)
    assert len(lines) == 3


def test_csv_of_an_answer_is_read_by_pandas_to_the_same_numbers() -> None:
    table = pd.read_csv(io.BytesIO(write_csv(reply("predict", "predict_proba", "targets"))))

    assert list(table.columns) == [
        "predict", "predict_proba_no", "predict_proba_yes",
        "targets_0_0", "targets_0_1", "targets_1_0", "targets_1_1", "targets_1_2",
    ]  # fmt: skip
    assert table["predict"].tolist() == ["yes", "no", "yes"]
    probabilities = table[["predict_proba_no", "predict_proba_yes"]].to_numpy().astype("f4")
    assert np.array_equal(probabilities, ANSWERS["predict_proba"], equal_nan=True)


def test_labels_of_several_kinds_are_written_as_json_has_them() -> None:
    signature = signature_of(*SHOP.columns, outputs=(Output(name="predict", dtype="object"),))
    labels = np.array([True, None, b"\x00", 'a,"b"', 1], dtype=object)

    written = write_csv(InferReply("shop", 3, signature, {"predict": labels}))

    rows = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert rows == [["predict"], ["true"], [""], ['{"b64":"AA=="}'], ['a,"b"'], ["1"]]
