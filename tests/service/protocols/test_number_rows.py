from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import TandemError
from service.core.messages import InferRequest
from service.core.signature import Column, Container, DType, Output, Signature
from service.core.table import Matrix
from service.protocols import native, number_rows
from service.protocols.native import Exchange
from service.protocols.number_rows import LEAST_BYTES, read_number_rows

pytest.importorskip("simdjson", reason="no wheel of pysimdjson for this platform: the long way is the only one")


def _signature(dtype: DType = "float64", *, width: int = 2, **column: Any) -> Signature:
    return Signature(
        container=Container.ARRAY,
        columns=tuple(Column(name=f"x{i}", dtype=dtype, **column) for i in range(width)),
        outputs=(Output(name="predict", dtype="float64"), Output(name="predict_proba", dtype="float64", shape=(2,))),
    )


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_rows, "LEAST_BYTES", 0)


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.integers(-3, 3)
_CELLS = _NUMBERS | st.none() | st.booleans() | st.text(max_size=2) | st.lists(_NUMBERS, max_size=2)
_ROWS = st.lists(st.lists(_NUMBERS, min_size=2, max_size=2), min_size=1, max_size=4)
_ODD_ROWS = st.lists(st.lists(_CELLS, max_size=3) | _CELLS, max_size=3)
_OUTPUTS = st.sampled_from([["predict"], ["predict_proba", "predict"], ["nothing"], [], "predict", None, ["["]])


@given(
    rows=_ROWS | _ODD_ROWS,
    outputs=st.none() | _OUTPUTS,
    extra=st.sampled_from([{}, {"columns": 1}, {"note": 1}]),
    dtype=st.sampled_from(["float64", "float32", "float16"]),
    nullable=st.booleans(),
    max_abs=st.sampled_from([None, 100.0]),
)
def test_short_way_reads_what_the_long_way_reads(
    rows: list[Any], outputs: Any, extra: dict[str, Any], dtype: DType, nullable: bool, max_abs: float | None
) -> None:
    content = {"instances": rows, **({} if outputs is None else {"outputs": outputs}), **extra}
    body = _dumps(content)
    signature = _signature(dtype, nullable=nullable, max_abs=max_abs)

    short, long = _outcome(body, signature), _long_outcome(body, signature)

    assert short == long


def _dumps(content: Any) -> bytes:
    import json

    return json.dumps(content).encode()


def _outcome(body: bytes, signature: Signature) -> Any:
    try:
        request: InferRequest = Exchange(body).read(signature)
    except TandemError as error:
        return type(error), str(error)
    assert isinstance(request.rows, Matrix)
    return request.outputs, request.rows.values.dtype, request.rows.values.shape, request.rows.values.tobytes()


def _long_outcome(body: bytes, signature: Signature) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(native, "read_number_rows", lambda *_: None)
        return _outcome(body, signature)


def test_plain_numbers_take_it() -> None:
    found = read_number_rows(b'{"instances": [[1, 2.5], [-3e2, 0.1]], "outputs": ["predict"]}', _signature())

    assert found is not None
    assert np.array_equal(found[0], [[1.0, 2.5], [-300.0, 0.1]])
    assert found[1] == ["predict"]


def test_rows_are_the_callers_to_write_into() -> None:
    found = read_number_rows(b'{"instances": [[1, 2]]}', _signature())

    assert found is not None
    assert found[0].flags.writeable
    assert found[0].flags.c_contiguous


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"instances": [[1, 2], [3, [4]]]}', id="nested"),
        pytest.param(b'{"instances": [[1, 2, 3], [4]]}', id="ragged with the right count"),
        pytest.param(b'{"instances": [[1, null]]}', id="missing"),
        pytest.param(b'{"instances": [[1, true]]}', id="true"),
        pytest.param(b'{"instances": [[1, 9007199254740993]]}', id="integer that loses a digit"),
        pytest.param(b'{"instances": [[1, 1e400]]}', id="out of range"),
        pytest.param(b'{"instances": [[1, 2]], "instances": [[3, 4]]}', id="a key twice"),
        pytest.param(b'{"instances": [[1, 2]], "instances": 5}', id="a key twice, the last time without rows"),
        pytest.param(b'{"instances": [[1, 2]], "outputs": {}}', id="an object"),
        pytest.param(b'{"instances": []}', id="no row"),
        pytest.param(b'\xef\xbb\xbf{"instances": [[1, 2]]}', id="byte order mark"),
        pytest.param(b'{"instances": [[1, 2]]} {}', id="more behind it"),
        pytest.param(b'{"columns": {"x0": [1], "x1": [2]}}', id="another form"),
        pytest.param(b"[[1, 2]]", id="no object"),
        pytest.param(b'{"instances": [[1, {}]]}', id="an object for a number"),
        pytest.param(b'{"instances": {}}', id="an object for rows"),
        pytest.param(b'{"instances": "[[1, 2]]"}', id="a text for rows"),
        pytest.param(b'{"instances": [[1, 2]]', id="cut off"),
        pytest.param(b'{"inst": [[1, 2]]}', id="another key"),
    ],
)
def test_whatever_is_unusual_is_left_to_the_long_way(body: bytes) -> None:
    assert read_number_rows(body, _signature()) is None


def test_small_bodies_take_it_that_begin_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_rows, "LEAST_BYTES", LEAST_BYTES)

    assert read_number_rows(b'{"instances": [[1, 2]]}', _signature()) is not None
    assert read_number_rows(b'{"outputs": ["predict"], "instances": [[1, 2]]}', _signature()) is None
    large = orjson.dumps({"outputs": ["predict"], "instances": [[0.5, 2.0]] * 200})
    assert read_number_rows(large, _signature()) is not None


def test_without_the_library_the_long_way_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_rows, "simdjson", None)

    assert read_number_rows(b'{"instances": [[1, 2]]}', _signature()) is None
