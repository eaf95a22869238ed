from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from service.core.table import Frame, Matrix, SparseRows, Table, Values
from service.runtimes.wire import (
    ALIGNMENT,
    Packing,
    WireError,
    pack_answers,
    pack_table,
    unpack_answers,
    unpack_array,
    unpack_table,
)

_PLAIN = st.one_of(
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    npst.boolean_dtypes(),
    npst.datetime64_dtypes(),
    npst.unicode_string_dtypes(min_len=1, max_len=5),
    npst.byte_string_dtypes(min_len=1, max_len=5),
)
_SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
_OBJECTS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=6)
)  # lone surrogates, too


@st.composite
def _arrays(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = _SHAPES) -> NDArray[Any]:
    shape = draw(shapes)
    if draw(st.booleans()):
        array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = draw(st.lists(_OBJECTS, min_size=array.size, max_size=array.size))
        return array
    array = draw(npst.arrays(draw(_PLAIN), shape))
    match draw(st.sampled_from("CFS")):
        case "F":
            return np.asfortranarray(array) if array.ndim else array
        case "S":
            return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
    return array


def _sent(packing: Packing, spec: Any) -> tuple[Any, memoryview]:
    """What the other side gets: JSON and bytes."""
    block = bytearray(b"".join(packing.parts))
    assert len(block) == packing.size
    return orjson.loads(orjson.dumps(spec)), memoryview(block)


def _through(values: Values) -> Values:
    packing = Packing()
    spec, block = _sent(packing, pack_answers(packing, {"it": values}))
    return unpack_answers(spec, block)["it"]


def _table_through(table: Table) -> Table:
    packing = Packing()
    spec, block = _sent(packing, pack_table(packing, table))
    return unpack_table(spec, block)


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.dtype.kind == "O":
        return [(type(v), repr(v)) for v in a.reshape(-1)] == [(type(v), repr(v)) for v in b.reshape(-1)]
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@given(array=_arrays())
def test_decode_undoes_encode_bit_for_bit(array: NDArray[Any]) -> None:
    got = _through(array)

    assert isinstance(got, np.ndarray)
    assert _same(got, array)


@given(columns=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _arrays(st.just((5,))), min_size=1))
def test_frames_keep_columns_and_their_order(columns: dict[str, NDArray[Any]]) -> None:
    got = _table_through(Frame(columns))

    assert isinstance(got, Frame)
    assert list(got.columns) == list(columns)
    assert all(_same(got.columns[name], values) for name, values in columns.items())


def test_matrix_arrives_as_contiguous_writable_numbers() -> None:
    values = np.arange(12.0).reshape(4, 3)

    got = _table_through(Matrix(values))

    assert isinstance(got, Matrix)
    assert np.array_equal(got.values, values)
    assert got.values.flags.c_contiguous and got.values.flags.writeable


def test_columns_in_memory_order_stay_so() -> None:
    got = _through(np.asfortranarray(np.arange(12.0).reshape(4, 3)))

    assert isinstance(got, np.ndarray)
    assert got.flags.f_contiguous and not got.flags.c_contiguous


def test_one_array_per_target_stays_a_list() -> None:
    targets = [np.ones((3, 2)), np.zeros((3, 4), dtype=np.float32)]

    got = _through(targets)

    assert isinstance(got, list)
    assert all(_same(a, b) for a, b in zip(got, targets, strict=True))


def test_sparse_rows_stay_sparse() -> None:
    rows = SparseRows(7, np.array([0, 1, 3], np.int32), np.array([6, 0, 2], np.int32), np.array([1.0, 2.0, 3.0]))

    got = _through(rows)

    assert isinstance(got, SparseRows)
    assert got.width == 7
    parts = ((got.indptr, rows.indptr), (got.indices, rows.indices), (got.data, rows.data))
    assert all(_same(a, b) for a, b in parts)


def test_numpy_scalars_among_objects_arrive_as_pythons_own() -> None:
    objects = np.empty(4, dtype=object)
    objects[:] = [np.str_("a"), np.float64(1.5), np.int64(3), np.bool_(True)]

    got = _through(objects)

    assert isinstance(got, np.ndarray)
    assert [(type(value), value) for value in got] == [(str, "a"), (float, 1.5), (int, 3), (bool, True)]


def test_texts_are_neither_joined_nor_cut_where_surrogates_meet() -> None:
    objects = np.empty(3, dtype=object)
    objects[:] = ["\ud83d", "\ude00", "\U0001f600"]

    got = _through(objects)

    assert isinstance(got, np.ndarray)
    assert got.tolist() == objects.tolist()


def test_every_array_is_aligned() -> None:
    packing = Packing()

    specs = [packing.add(np.zeros(size, np.uint8)) for size in (1, 63, 64, 65, 1)]

    assert all(spec["at"] % ALIGNMENT == 0 for spec in specs)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([object()]), id="any object"),
        pytest.param(np.array([(1, 2.0)], dtype="i4,f8"), id="records"),
        pytest.param(np.array([b"x"], dtype="V1"), id="raw bytes"),
    ],
)
def test_what_cannot_travel_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(WireError):
        Packing().add(array)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)
_DTYPES = st.sampled_from(["<f8", "|O", "O", "<U3", "<U999999999", "f8,f8", "<M8[ns]", "<M8[zz]", "|V8", "<f3", 8])
_NUMBERS = st.one_of(st.integers(-3, 80), st.integers(), _JSON)


@given(
    spec=st.one_of(
        _JSON,
        st.fixed_dictionaries({"dtype": _DTYPES, "shape": st.lists(_NUMBERS, max_size=3), "at": _NUMBERS}),
        st.fixed_dictionaries(
            {"objects": st.lists(_NUMBERS, max_size=2), "ends": _NUMBERS, "text": _NUMBERS, "bytes": _NUMBERS},
            optional={"tags": _NUMBERS},
        ),
    ),
    content=st.binary(max_size=80),
)
def test_garbage_gives_one_kind_of_error_and_nothing_larger_than_what_came(spec: Any, content: bytes) -> None:
    block = memoryview(bytearray(content))

    for read in (unpack_array, unpack_answers, unpack_table):
        try:
            got = read(spec, block)
        except WireError:
            continue
        if isinstance(got, np.ndarray) and got.dtype.kind != "O":
            assert got.nbytes <= len(content)
        elif isinstance(got, np.ndarray):
            assert got.size * 8 <= len(content)


@given(array=_arrays(), cut=st.integers(1, 40))
def test_block_that_was_cut_is_noticed(array: NDArray[Any], cut: int) -> None:
    packing = Packing()
    spec, block = _sent(packing, packing.add(array))
    assume(0 < cut <= len(block))

    with pytest.raises(WireError):
        unpack_array(spec, block[:-cut])


def test_text_beyond_unicode_is_noticed() -> None:
    spec = {"dtype": "<U1", "shape": [1], "at": 0}

    with pytest.raises(WireError):
        unpack_array(spec, memoryview(bytearray(b"\xff" * 4)))
