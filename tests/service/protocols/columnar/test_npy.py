from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.core.errors import (
    InvalidRequest,
    InvalidRows,
    NotAcceptable,
    RequestError,
    UnreadableRequest,
)
from service.core.messages import InferReply
from service.core.signature import Column, Output, Signature
from service.core.table import Frame, Matrix, SparseRows, Table
from service.protocols.columnar.npy import parse_npy, read_npy, write_npy
from tests.service.protocols.columnar.bodies import MIXED, NUMBERS, npy
from tests.service.protocols.fake_server import SHOP, signature_of


def read(body: bytes, signature: Signature = NUMBERS) -> Table:
    return read_npy(body, signature, {}, 2**20)


def written(header: str | bytes, content: bytes = b"", version: int = 1) -> bytes:
    coded = header if isinstance(header, bytes) else header.encode("utf-8" if version == 3 else "latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(coded))
    return b"\x93NUMPY" + bytes([version, 0]) + size + coded + content


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.arange(6, dtype="f4").reshape(2, 3),
        np.arange(6, dtype="f2").reshape(2, 3),
    ],
    ids=["plain", "by column", "big-endian integers", "single precision", "half precision"],
)
def test_a_matrix_is_rows(array: Any) -> None:
    table = read(npy(array))

    assert isinstance(table, Matrix) and np.array_equal(table.values, [[0, 1, 2], [3, 4, 5]])


def test_a_matrix_that_fits_is_not_copied() -> None:
    body = npy(np.arange(6.0).reshape(2, 3))

    table = read(body)

    assert isinstance(table, Matrix) and np.shares_memory(table.values, np.frombuffer(body, np.uint8))


def test_a_vector_is_a_model_of_one_column() -> None:
    table = read(npy(np.array(["a", "größe"])), signature_of(Column(name="word", dtype="string")))

    assert isinstance(table, Frame) and table.columns["word"].tolist() == ["a", "größe"]


def test_fields_are_columns_by_name() -> None:
    fields = [("word", "<U5"), ("truth", "?"), ("at", "<M8[s]"), ("size", ">f4"), ("count", "i1")]

    table = read(npy(np.array([("größe", True, 5, 0.5, 7)], dtype=fields)), MIXED)

    assert isinstance(table, Frame) and list(table.columns) == list(MIXED.names)
    assert [values.tolist()[0] for values in table.columns.values()] == [
        7, "größe", True, np.datetime64(5, "s").item(), 0.5,
    ]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_the_header_is_read(version: int) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3), }\n"

    table = read(written(header, np.arange(3.0).tobytes(), version))

    assert isinstance(table, Matrix) and table.values.tolist() == [[0, 1, 2]]


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3)}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY\x01\x00", id="only its beginning"),
        pytest.param(written(HEADER)[:20], id="cut in the header"),
        pytest.param(written(HEADER, b"x" * 23), id="too short"),
        pytest.param(written(HEADER, b"x" * 25), id="too long"),
        pytest.param(written(HEADER, b"x" * 24, 4), id="version 4"),
        pytest.param(written(" " * 10_001), id="a long header"),
        pytest.param(written("{'descr': '<f8', 'fortran_order': False}", b"x" * 24), id="no shape"),
        pytest.param(written(HEADER.replace("(1, 3)", "(-1, -3)"), b"x" * 24), id="negative sizes"),
        pytest.param(written(HEADER.replace("(1, 3)", "(1, True)"), b"x" * 8), id="a size that is a truth"),
        pytest.param(written(HEADER.replace("(1, 3)", "(2**70,)")), id="a size that is a sum"),
        pytest.param(written(HEADER.replace("(1, 3)", str((10**30,)))), id="a huge size"),
        pytest.param(written(HEADER.replace("(1, 3)", str((0,) * 70))), id="many dimensions"),
        pytest.param(written(HEADER.replace("'<f8'", "'<f9'"), b"x" * 24), id="an unknown type"),
        pytest.param(written(HEADER.replace("'<f8'", "'|O'"), b"x" * 24), id="objects"),
        pytest.param(written(HEADER.replace("'<f8'", "[('a', '|O')]"), b"x" * 24), id="objects in fields"),
        pytest.param(written(HEADER.replace("'<f8'", "'<c16'"), b"x" * 48), id="complex numbers"),
        pytest.param(written(HEADER.replace("'<f8'", "'<m8[s]'"), b"x" * 24), id="durations"),
        pytest.param(written(HEADER.replace("'<f8'", "'<M8'"), b"x" * 24), id="moments without a unit"),
        pytest.param(written(HEADER.replace("'<f8'", "'<U0'")), id="texts of no length"),
        pytest.param(written(HEADER.replace("'<f8'", "'<U1'"), b"\xff" * 12), id="texts beyond Unicode"),
        pytest.param(written(HEADER.replace("'<f8'", "'>U1'"), b"\x00\x00\xd8\x00" * 3), id="half surrogate pairs"),
        pytest.param(written(HEADER.replace("'<f8'", "('<f8', (2,))"), b"x" * 48), id="arrays in arrays"),
        pytest.param(written("__import__('os').getcwd()"), id="a program"),
        pytest.param(written("(" * 5000), id="brackets"),
        pytest.param(written(b"\xff", version=3), id="no UTF-8"),
        pytest.param(b"PK\x03\x04" + b"x" * 50, id="a zip file"),
    ],
)
def test_what_is_no_array_of_values_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        read(body)


def test_an_object_array_is_not_unpickled() -> None:
    content = io.BytesIO()
    np.save(content, np.array([[1, 2, None]], dtype=object), allow_pickle=True)

    with pytest.raises(UnreadableRequest, match="objects"):
        read(content.getvalue())


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.zeros((2, 4)), InvalidRequest),
        (np.zeros((0, 3)), InvalidRequest),
        (np.zeros(()), InvalidRequest),
        (np.zeros((1, 3), dtype=[("x0", "f8")]), InvalidRequest),
        (np.zeros(1, dtype=[("x0", "f8"), ("x1", "f8", (2,)), ("x2", "f8")]), RequestError),
        (np.zeros(1, dtype=[("x0", "f8"), ("nested", [("x", "f8")])]), RequestError),
        (np.zeros((1, 3), dtype=bool), InvalidRows),
        (np.full((1, 3), np.inf), InvalidRows),
    ],
)
def test_an_array_that_does_not_fit_is_invalid(array: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(npy(array))


@given(array=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_side=0, max_dims=3)))
def test_whatever_numpy_saves_is_read_back_or_refused(array: Any) -> None:
    try:
        found = parse_npy(npy(array))
    except UnreadableRequest:
        assert array.dtype.kind in "cmUSM" or not array.dtype.itemsize or not array.size
        return

    assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()


@given(header=st.text(alphabet="{}()[]'descrfortan_oshp:<>|fiUuMmO8410, TrueFals-+", max_size=80))
def test_any_header_is_an_answer_or_a_refusal(header: str) -> None:
    with contextlib.suppress(RequestError):
        read(written(header, b"x" * 24))


# -- answers -------------------------------------------------------------------------------------


def reply(*outputs: tuple[str, Any]) -> InferReply:
    signature = signature_of(*SHOP.columns, outputs=tuple(Output(name=name, dtype="float64") for name, _ in outputs))
    return InferReply("shop", 3, signature, dict(outputs))


@pytest.mark.parametrize(
    "values",
    [np.array([1.5, np.nan]), np.array([[1, 2]], dtype="f4"), np.array(["no", "yes"]), np.array([True])],
    ids=lambda values: str(values.dtype),
)
def test_the_only_output_is_written_as_it_is(values: Any) -> None:
    found = np.load(io.BytesIO(write_npy(reply(("predict", values)))))

    assert found.dtype == values.dtype and found.tobytes() == values.tobytes()


def test_labels_in_an_array_of_objects_are_texts() -> None:
    labels = np.array(["no", "größe"], dtype=object)

    assert np.load(io.BytesIO(write_npy(reply(("predict", labels))))).tolist() == ["no", "größe"]


def test_sparse_rows_are_spread_out() -> None:
    rows = SparseRows(3, np.array([0, 1, 2]), np.array([2, 0]), np.array([5.0, 6.0]))

    assert np.load(io.BytesIO(write_npy(reply(("transform", rows))))).tolist() == [[0, 0, 5], [6, 0, 0]]


@pytest.mark.parametrize(
    "outputs",
    [
        [("predict", np.zeros(1)), ("predict_proba", np.zeros((1, 2)))],
        [("predict_proba", [np.zeros((1, 2)), np.zeros((1, 3))])],
        [("predict", np.array(["a", 1], dtype=object))],
    ],
    ids=["several outputs", "several targets", "labels of several kinds"],
)
def test_what_npy_cannot_hold_is_not_acceptable(outputs: Any) -> None:
    with pytest.raises(NotAcceptable):
        write_npy(reply(*outputs))
