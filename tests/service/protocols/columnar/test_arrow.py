from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    NotAcceptable,
    RequestError,
    RequestTooLarge,
    UnreadableRequest,
    UnsupportedMediaType,
)
from service.core.messages import InferReply
from service.core.signature import Column, Output, Signature
from service.core.table import Frame, Matrix, Table
from service.protocols.columnar.arrow import read_parquet, read_stream, write_parquet, write_stream
from service.protocols.native import decode_columns
from tests.service.protocols.columnar.bodies import MIXED, NUMBERS, mixed_table, parquet_file, stream
from tests.service.protocols.fake_server import SHOP, signature_of
from tests.service.protocols.tables import columns, fitting

Read = Callable[[Any, Signature], Table]
LIMIT = 2**20


def by_stream(table: Any, signature: Signature) -> Table:
    return read_stream(stream(table), signature, {}, LIMIT)


def by_batches(table: Any, signature: Signature) -> Table:
    return read_stream(stream(table, "zstd", rows=1), signature, {}, LIMIT)


def by_parquet(table: Any, signature: Signature) -> Table:
    return read_parquet(parquet_file(table), signature, {}, LIMIT)


by_every_way = pytest.mark.parametrize("read", [by_stream, by_batches, by_parquet])


def lists(table: Table) -> list[list[Any]]:
    """Columns as lists, NaN and NaT as None."""
    arrays = table.values.T if isinstance(table, Matrix) else table.columns.values()
    return [[None if value != value else value for value in array.tolist()] for array in arrays]


def one(kind: str = "float64", **about: Any) -> Signature:
    return signature_of(Column(name="x", dtype=kind, nullable=True, **about))  # type: ignore[arg-type]


@by_every_way
def test_columns_are_found_by_name_and_nulls_are_missing(read: Read) -> None:
    table = read(mixed_table(10).select(["size", "at", "truth", "word", "count"]), MIXED)

    assert isinstance(table, Frame) and list(table.columns) == list(MIXED.names)
    assert lists(table) == lists(decode_columns(_as_json(mixed_table(10)), MIXED, exact=True))


def _as_json(table: Any) -> dict[str, list[Any]]:
    content = table.to_pydict()
    content["at"] = [None if at is None else at.isoformat().replace("+00:00", "Z") for at in content["at"]]
    return content  # type: ignore[no-any-return]


@by_every_way
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_a_column_of_plain_values_is_decoded_as_the_list_of_them(read: Read, data: st.DataObject) -> None:
    column = data.draw(columns().filter(lambda c: c.dtype != "datetime"))
    signature = signature_of(column)
    kinds = {"string": [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], "bool": [pa.bool_()]}
    plain = [pa.int64(), pa.float64(), pa.float32(), pa.uint8()]
    kind = data.draw(st.sampled_from(kinds.get(column.dtype, plain)))
    values = data.draw(st.lists(fitting(column) | st.none(), min_size=1, max_size=4))
    if pa.types.is_integer(kind):
        values = [None if value is None else int(value) for value in values]
    table = pa.table({column.name: pa.array(values, kind)})
    try:
        expected = decode_columns({column.name: values}, signature, exact=True)
    except InvalidRows:
        with pytest.raises(InvalidRows):
            read(table, signature)
        return

    found = read(table, signature)

    assert lists(found) == lists(expected)
    assert isinstance(found, Frame) or (isinstance(expected, Matrix) and found.values.dtype == expected.values.dtype)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a", None, "größe, and more than twelve bytes"]),
        pa.array(["a", None, "größe, and more than twelve bytes"], pa.large_string()),
        pa.array(["a", None, "größe, and more than twelve bytes"], pa.string_view()),
        pa.array(["a", None, "größe, and more than twelve bytes"]).dictionary_encode(),
        pa.array(["a", None, "größe, and more than twelve bytes"]).cast(pa.binary()),
        pa.array(["no", "a", None, "größe, and more than twelve bytes"])[1:],
        pa.DictionaryArray.from_arrays(
            pa.array([0, 1, 2], pa.int8()), ["a", None, "größe, and more than twelve bytes"]
        ),
        pa.DictionaryArray.from_arrays(
            pa.array([1, None, 0], pa.uint16()), pa.array(["größe, and more than twelve bytes", "a"], pa.string_view())
        ),
    ],
    ids=lambda values: str(values.type)[:40],
)  # fmt: skip
def test_texts_are_texts_in_every_layout(values: Any) -> None:
    assert lists(by_stream(pa.table({"x": values}), one("string"))) == [
        ["a", None, "größe, and more than twelve bytes"]
    ]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 3], pa.int8()),
        pa.array([1, None, 3], pa.uint64()),
        pa.array([1, None, 3], pa.float16()),
        pa.array([1, None, 3], pa.float32()),
        pa.array([9, 1, None, 3], pa.float64())[1:],
        pa.array([1, None, 3], pa.int64()).dictionary_encode(),
        pa.array([1.0, None, 3.0]).dictionary_encode(),
        pa.array([1.0, float("nan"), 3.0]),
    ],
    ids=lambda values: str(values.type)[:40],
)
@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "int8"])
def test_numbers_are_numbers_in_every_layout(values: Any, kind: str) -> None:
    assert lists(by_stream(pa.table({"x": values}), one(kind))) == [[1, None, 3]]


@pytest.mark.parametrize("others", [[], [None]])
def test_integers_keep_their_digits_beside_nulls(others: list[None]) -> None:
    table = pa.table({"x": pa.array([2**53 + 1, *others])})

    with pytest.raises(InvalidRows, match="9007199254740993"):
        by_stream(table, one("float64"))
    with pytest.raises(InvalidRows, match="9007199254740993"):
        by_stream(table, one("int64"))


def test_all_is_null() -> None:
    table = pa.table({"x": pa.nulls(3)})

    assert [lists(by_stream(table, one(kind))) for kind in ("float64", "string", "bool")] == [[[None] * 3]] * 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Vienna"])
def test_moments_come_in_every_unit_with_a_zone_or_without(unit: str, zone: str | None) -> None:
    at = np.datetime64("2025-01-02T03:04:05")
    naive = pa.array([at.astype(f"M8[{unit}]"), None], pa.timestamp(unit))
    table = pa.table({"x": naive.cast(pa.int64()).cast(pa.timestamp(unit, zone))})
    column = one("datetime", timezone=zone, pandas=f"datetime64[us{f', {zone}' if zone else ''}]")

    found = by_stream(table, column)

    assert isinstance(found, Frame) and found.columns["x"].tolist() == [at.astype("M8[us]").item(), None]


@pytest.mark.parametrize(
    ("kind", "zone"), [(pa.timestamp("us"), "UTC"), (pa.timestamp("us", "UTC"), None), (pa.date32(), "UTC")]
)
@pytest.mark.parametrize("is_coded", [False, True])
def test_a_zone_is_neither_made_up_nor_dropped(kind: Any, zone: str | None, is_coded: bool) -> None:
    values = pa.array([0], pa.int32()).cast(kind) if kind == pa.date32() else pa.array([0], kind)
    table = pa.table({"x": values.dictionary_encode() if is_coded else values})

    with pytest.raises(InvalidRows, match="an offset"):
        by_stream(table, one("datetime", timezone=zone))


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_moments(kind: Any) -> None:
    table = pa.table({"x": pa.array([pd.Timestamp("2025-01-02").date(), None], kind)})

    assert lists(by_stream(table, one("datetime"))) == [[pd.Timestamp("2025-01-02").to_pydatetime(), None]]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1], pa.decimal128(5, 2)),
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([1], pa.duration("s")),
        pa.array([1], pa.time32("s")),
        pa.array([b"ab"], pa.binary(2)),
        pa.RunEndEncodedArray.from_arrays([2**31 - 1], [1.0]),
        pa.array([[1, 2]], pa.list_(pa.int8(), 2)),
    ],
    ids=lambda values: str(values.type)[:40],
)
def test_types_that_hold_no_values_of_a_model_are_refused_by_name(values: Any) -> None:
    with pytest.raises(InvalidRows) as caught:
        by_stream(pa.table({"x": values}), one("float64"))

    assert caught.value.problems[0].column == "x" and str(values.type)[:20] in caught.value.problems[0].got


@by_every_way
def test_numbers_of_one_type_become_one_matrix(read: Read) -> None:
    numbers = np.arange(12.0).reshape(4, 3)
    table = pa.table({f"x{i}": numbers[:, i] for i in (2, 0, 1)})

    found = read(table, NUMBERS)

    assert isinstance(found, Matrix) and found.values.flags.c_contiguous
    assert np.array_equal(found.values, numbers)


def test_nulls_in_a_matrix_are_nan() -> None:
    table = pa.table({f"x{i}": pa.array([1.0, None]) for i in range(3)})

    assert lists(by_stream(table, NUMBERS)) == [[1, None]] * 3


def test_columns_of_fixed_width_are_not_copied() -> None:
    signature = signature_of(Column(name="a", dtype="float64"), Column(name="b", dtype="int64"))
    body = stream(pa.table({"b": np.arange(5), "a": np.arange(5.0)}))

    found = read_stream(body, signature, {}, LIMIT)

    whole = np.frombuffer(body, np.uint8)
    assert isinstance(found, Frame) and all(np.shares_memory(whole, values) for values in found.columns.values())


@by_every_way
@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"x0": [1.0], "x1": [1.0], "x2": [1.0], "größe": [1.0]}), "größe"),
        (pa.table({"x0": [1.0], "größe": [[1.0]]}), "größe"),
        (pa.table({"x0": ["1"], "x1": [1.0], "x2": [1.0]}), "x0"),
        (pa.table({"x0": [True], "x1": [1.0], "x2": [1.0]}), "x0"),
        (pa.table({f"x{i}": pa.array([], pa.float64()) for i in range(3)}), "at least one row"),
        (pa.table({f"x{i}": np.array([np.inf]) for i in range(3)}), "inf"),
    ],
    ids=["unknown column", "unknown nested column", "text for a number", "truth for a number", "no rows", "infinity"],
)
def test_what_does_not_fit_is_said(table: Any, said: str, read: Read) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read(table, NUMBERS)


def test_a_missing_column_is_said() -> None:
    with pytest.raises(InvalidRows, match="age"):
        by_stream(pa.table({"city": ["Graz"]}), SHOP)


def test_a_name_that_comes_twice_is_said() -> None:
    table = pa.Table.from_arrays([pa.array([1.0])] * 2, ["x", "x"])

    with pytest.raises(InvalidRequest, match="'x'"):
        by_stream(table, one())


def test_the_index_of_a_data_frame_is_no_column() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    frame = frame[frame["x"] > 1]

    assert lists(by_stream(pa.Table.from_pandas(frame), one())) == [[2, 3]]
    assert lists(by_parquet(pa.Table.from_pandas(frame), one())) == [[2, 3]]


# -- what strangers send -------------------------------------------------------------------------


def zeros(rows: int, kind: str = "int64") -> Any:
    return pa.table({"x": np.zeros(rows, dtype=kind)})


def long_texts() -> Any:
    """Some hundred rows that are all the same text of 10 kB."""
    return pa.table({"x": pa.DictionaryArray.from_arrays(np.zeros(300, dtype="i4"), ["x" * 10_000]).cast(pa.string())})


def same_view(rows: int) -> Any:
    text = b"x" * 10_000
    view = np.array([len(text), 0x78787878, 0, 0], dtype="<i4")
    buffers = [None, pa.py_buffer(np.tile(view, rows)), pa.py_buffer(text)]
    return pa.table({"x": pa.Array.from_buffers(pa.string_view(), rows, buffers)})


@pytest.mark.parametrize(
    ("body", "read", "kind"),
    [
        pytest.param(stream(zeros(200_000), "zstd"), read_stream, "int64", id="compressed stream"),
        pytest.param(stream(zeros(200_000), "lz4"), read_stream, "int64", id="stream compressed by lz4"),
        pytest.param(stream(pa.table({"x": pa.nulls(2**22)})), read_stream, "float64", id="nulls that take no bytes"),
        pytest.param(stream(same_view(200)), read_stream, "string", id="views of one text"),
        pytest.param(parquet_file(zeros(200_000)), read_parquet, "int64", id="coded numbers"),
        pytest.param(parquet_file(zeros(200_000), use_dictionary=False, compression="zstd"), read_parquet, "int64",
                     id="compressed pages"),
        pytest.param(parquet_file(pa.table({"x": pa.nulls(2**21)})), read_parquet, "float64", id="nulls in Parquet"),
    ],
)  # fmt: skip
def test_what_unpacks_to_more_than_may_be_is_not_unpacked(body: bytes, read: Any, kind: str) -> None:
    assert len(body) < 100_000

    with pytest.raises(RequestTooLarge):
        read(body, one(kind), {}, LIMIT)


def test_rows_of_one_long_text_hold_it_once() -> None:
    found = read_parquet(parquet_file(long_texts()), one("string"), {}, LIMIT)

    assert isinstance(found, Frame) and len({id(text) for text in found.columns["x"]}) == 1


def test_texts_that_grow_from_each_other_are_refused() -> None:
    body = parquet_file(long_texts(), use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"})

    with pytest.raises(UnreadableRequest, match="DELTA_BYTE_ARRAY"):
        read_parquet(body, one("string"), {}, 2**30)


@pytest.mark.parametrize("read", [read_stream, read_parquet])
@pytest.mark.parametrize(
    "body", [b"", b"PAR1", b"PAR1" * 5, b"\xff\xff\xff\xff\x00\x00\x00\x00", b"not a table at all"]
)
def test_bytes_that_are_no_table_are_refused(read: Any, body: bytes) -> None:
    with pytest.raises(RequestError):
        read(body, NUMBERS, {}, LIMIT)


@pytest.mark.parametrize("write", [stream, parquet_file])
def test_a_table_that_is_cut_off_is_refused(write: Any) -> None:
    read = read_stream if write is stream else read_parquet
    body = write(mixed_table())

    for end in range(0, len(body) - 16, 97):
        with pytest.raises(RequestError):
            read(body[:end], MIXED, {}, LIMIT)


def test_changed_bytes_never_end_the_process() -> None:
    command = [sys.executable, "-m", "tests.service.protocols.columnar.bodies", "5", "4"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    tried, refused = map(int, done.stdout.split())
    assert 0 < refused < tried


# -- answers, and what they need -----------------------------------------------------------------

OUTPUTS = (
    Output(name="predict", dtype="string", classes=["no", "größe"]),
    Output(name="predict_proba", dtype="float32", shape=(2,), classes=["no", "größe"]),
    Output(name="at", dtype="datetime"),
    Output(name="odd", dtype="object"),
    Output(name="truth", dtype="bool"),
)
ANSWERS: dict[str, Any] = {
    "predict": np.array(["größe", "no", ""]),
    "predict_proba": np.array([[0.1, 0.9], [np.nan, np.inf], [1, 0]], dtype=">f4"),
    "at": np.array(["2025-01-02", "NaT", "1970-01-01"], dtype="M8[ns]"),
    "odd": np.array([None, 1, b"\x00"], dtype=object),
    "truth": np.array([True, False, True]),
}


@pytest.mark.parametrize("form", ["stream", "parquet"])
def test_an_answer_is_a_table_with_a_column_per_class(form: str) -> None:
    reply = InferReply("shop", 3, signature_of(*SHOP.columns, outputs=OUTPUTS), ANSWERS)

    if form == "stream":
        table = pa.ipc.open_stream(write_stream(reply)).read_all()
    else:
        table = parquet.read_table(io.BytesIO(write_parquet(reply)))

    table.validate(full=True)
    assert table.column_names == ["predict", "predict_proba_no", "predict_proba_größe", "at", "odd", "truth"]
    assert table["predict"].to_pylist() == ["größe", "no", ""]
    probabilities = np.stack([table[name].to_numpy() for name in table.column_names[1:3]], axis=1)
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, ANSWERS["predict_proba"].astype("f4"), equal_nan=True)
    assert np.array_equal(table["at"].to_numpy(), ANSWERS["at"], equal_nan=True)
    assert table["at"].null_count == 1
    assert table["odd"].to_pylist() == [None, "1", '{"b64":"AA=="}']
    assert table["truth"].to_pylist() == [True, False, True]


def test_without_pyarrow_the_caller_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    body = stream(zeros(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(UnsupportedMediaType, match=r"tandem-serving\[arrow\]"):
        read_stream(body, one(), {}, LIMIT)
    with pytest.raises(UnsupportedMediaType, match=r"tandem-serving\[arrow\]"):
        read_parquet(body, one(), {}, LIMIT)
    with pytest.raises(NotAcceptable, match=r"tandem-serving\[arrow\]"):
        write_stream(InferReply("shop", 3, SHOP, {}))


def test_pandas_is_not_imported_for_a_table() -> None:
    body, file = stream(mixed_table()), parquet_file(mixed_table())
    code = f"""
import sys
from service.core.messages import InferReply
from service.core.signature import Signature
from service.protocols.columnar.arrow import *
import numpy as np
signature = Signature.model_validate_json({MIXED.model_dump_json()!r})
read_stream({body!r}, signature, {{}}, 2**20), read_parquet({file!r}, signature, {{}}, 2**20)
reply = InferReply("shop", 3, signature, {{"predict": np.array(["yes"]), "predict_proba": np.array([[0.5, 0.5]])}})
write_stream(reply), write_parquet(reply)
assert "pandas" not in sys.modules
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
