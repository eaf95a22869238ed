from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.errors import InvalidRequest, RequestError, UnreadableRequest
from service.core.messages import InferReply
from service.core.signature import Column, Container, DType, Output, Signature
from service.core.table import Matrix, Values
from service.protocols.http import HttpReply
from service.protocols.v2.body import BINARY, LENGTH_HEADER, V2Body, V2Request
from service.protocols.v2.tables import choose_outputs, rows_of
from service.protocols.v2.tensors import DATATYPES
from tests.service.protocols.fake_server import AGE, CITY, SHOP, signature_of


def matrix_of(dtype: DType, width: int = 2, **column: Any) -> Signature:
    return Signature(
        container=Container.ARRAY,
        columns=tuple(Column(name=f"x{i}", dtype=dtype, **column) for i in range(width)),
        outputs=(Output(name="predict", dtype="float64"), Output(name="transform", dtype="float32", shape=(2,))),
    )


SINGLE = matrix_of("float32")
DOUBLE = matrix_of("float64")
TEXTS = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)


def tensor(data: Any = None, **members: Any) -> dict[str, Any]:
    entry = {"name": "x", "datatype": "FP64", "shape": [1, 2], **members}
    return entry if data is None else {**entry, "data": data}


def binary(size: Any, **members: Any) -> dict[str, Any]:
    return tensor(parameters={"binary_data_size": size}, **members)


def with_bytes(content: Any, *parts: bytes) -> tuple[bytes, dict[str, str]]:
    head = orjson.dumps(content)
    return head + b"".join(parts), {LENGTH_HEADER: str(len(head))}


def read(body: Any, headers: Mapping[str, str] | None = None, signature: Signature = DOUBLE) -> V2Request:
    return V2Body(body if isinstance(body, bytes) else json.dumps(body).encode(), headers or {}).read(signature)


def answered(
    content: Any, outputs: Mapping[str, Values], signature: Signature = DOUBLE, headers: Mapping[str, str] | None = None
) -> HttpReply:
    """The reply of a model with these outputs to a request with this content."""
    body = V2Body(orjson.dumps({"inputs": [tensor([1.0, 2.0])], **content}), headers or {})
    body.read(signature)
    return body.write(InferReply("m", 1, signature, dict(outputs)), "req-1")


def split(reply: HttpReply) -> tuple[Any, bytes]:
    """The JSON of a reply, and the bytes behind it."""
    size = int(reply.headers[LENGTH_HEADER])
    return orjson.loads(reply.body[:size]), reply.body[size:]


# -- requests --------------------------------------------------------------------------------------


def test_tensors_of_json_and_of_bytes_may_be_mixed() -> None:
    inputs = [
        binary(16, name="a"),
        tensor(["Graz", None], name="b", datatype="BYTES", shape=[2]),
        binary(5, name="c", datatype="BYTES", shape=[1]),
        {**binary(0, name="d", shape=[0]), "data": None},
    ]
    body, headers = with_bytes({"inputs": inputs}, struct.pack("<2d", 1.5, -2), b"\1\0\0\0a")

    tensors = read(body, headers).tensors

    assert [(t.name, t.datatype, t.values.tolist()) for t in tensors] == [
        ("a", "FP64", [[1.5, -2.0]]), ("b", "BYTES", ["Graz", None]), ("c", "BYTES", ["a"]), ("d", "FP64", []),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("media_type", "header"),
    [
        (BINARY, True),
        ("application/json", True),
        (None, True),
        ("application/vnd.sagemaker-triton.binary+json;json-header-size={}", False),
        ("application/vnd.vertex-ai-triton.binary+json; json-header-size={}", False),
    ],
)
def test_length_of_the_json_stands_in_the_header_or_in_the_type(media_type: str | None, header: bool) -> None:
    body, headers = with_bytes({"inputs": [binary(16)]}, struct.pack("<2d", 1, 2))
    size = headers[LENGTH_HEADER]
    given_headers = {**(headers if header else {}), **({"content-type": media_type.format(size)} if media_type else {})}

    assert read(body, given_headers).tensors[0].values.tolist() == [[1.0, 2.0]]


def address(body: bytes | np.ndarray[Any, Any]) -> int:
    return int(np.frombuffer(body, dtype=np.uint8).ctypes.data)


@pytest.mark.parametrize(("blanks", "is_copied"), [(0, False), (1, True)])
def test_numbers_stay_where_they_lie_in_the_body(blanks: int, is_copied: bool) -> None:
    values = np.arange(6, dtype="<f4")
    head = orjson.dumps({"inputs": [binary(values.nbytes, datatype="FP32", shape=[3, 2])]})
    head += b" " * (-len(head) % 4 + blanks)  # JSON may end in blanks, so that what follows is aligned
    body = head + values.tobytes()

    request = read(body, {LENGTH_HEADER: str(len(head))}, SINGLE)
    rows = rows_of(request.tensors, SINGLE)

    assert isinstance(rows, Matrix)
    assert rows.values.tolist() == values.reshape(3, 2).tolist()
    assert request.tensors[0].values.ctypes.data == address(body) + len(head)
    assert (rows.values.ctypes.data == address(body) + len(head)) is not is_copied


def test_body_without_json_is_the_only_input() -> None:
    body = np.arange(4, dtype="<f4").tobytes()

    request = read(body, {LENGTH_HEADER: "0"}, SINGLE)
    rows = rows_of(request.tensors, SINGLE)

    assert isinstance(rows, Matrix)
    assert rows.values.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert rows.values.ctypes.data == address(body)
    assert request.is_binary
    text = read("größe [\0".encode(), {LENGTH_HEADER: "0"}, TEXTS).tensors[0]
    assert text.values.tolist() == [["größe [\0"]]


@pytest.mark.parametrize(
    ("signature", "body", "words"),
    [
        (SHOP, b"\0" * 8, "this model has 2 inputs; a body without JSON holds one"),
        (SINGLE, b"\0" * 9, "a row of this model is 2 FP32, 8 bytes; 9 bytes are no whole number of rows"),
    ],
)
def test_body_without_json_that_is_no_tensor_is_refused(signature: Signature, body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body, {LENGTH_HEADER: "0"}, signature)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("signature", "body", "words"),
    [(SINGLE, b"", "expected rows of 2 values, at least one"), (TEXTS, b"\xff", "expected a string, got b'\\xff'")],
)
def test_body_without_json_that_is_no_row_reaches_no_model(signature: Signature, body: bytes, words: str) -> None:
    request = read(body, {LENGTH_HEADER: "0"}, signature)

    with pytest.raises(InvalidRequest) as caught:
        rows_of(request.tensors, signature)

    assert words in str(caught.value)


@pytest.mark.parametrize("length", ["-1", "1.0", "x", "", "1,1", "999", "9" * 20, "١"])
def test_length_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(UnreadableRequest, match="expected the bytes of JSON in a body of"):
        V2Body(b'{"inputs": []}', {LENGTH_HEADER: length})


def test_request_says_what_it_wants() -> None:
    parameters = {
        "content_type": "pd", "binary_data_output": True, "timeout": 1500, "priority": 1, "headers": {"a": "b"},
        "sequence_id": 7, "triton_odd": 1,
    }  # fmt: skip
    wanted = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False, "odd": 1}}]

    request = read({"inputs": [tensor([1, 2])], "outputs": wanted, "parameters": parameters, "id": "7", "more": {}})

    assert request.outputs == {"a": None, "b": False}
    assert (request.id, request.content_type, request.is_binary, request.timeout_s) == ("7", "pd", True, 0.0015)


def test_nulls_are_as_good_as_nothing() -> None:
    request = read({"inputs": [tensor([1, 2], parameters=None)], "outputs": None, "parameters": None, "id": None})

    assert (request.outputs, request.id, request.content_type, request.timeout_s) == ({}, None, None, None)


@pytest.mark.parametrize("word", ["NaN", "null"])
def test_nan_is_null_or_the_word_that_json_lacks(word: str) -> None:
    body = json.dumps({"inputs": [tensor([1.0, 2.0])]}).replace("2.0", word).encode()

    assert np.isnan(read(body).tensors[0].values).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "the body: expected an object"),
        ({}, '"inputs": expected a list of at least one tensor; got null'),
        ({"inputs": []}, "at least one tensor; got a list of 0"),
        ({"inputs": {}}, "at least one tensor"),
        ({"inputs": [1]}, "an input: expected an object"),
        ({"inputs": [tensor([1, 2], name=None)]}, 'an input\'s "name": expected a string'),
        ({"inputs": [tensor([1, 2], shape=None)]}, 'expected "shape" to be a list'),
        ({"inputs": [tensor([1, 2], datatype=None)]}, "unknown datatype null"),
        ({"inputs": [tensor([1, 2], datatype=["FP64"])]}, "unknown datatype a list of 1"),
        ({"inputs": [tensor([1, 2], datatype="BF16")]}, "unknown datatype 'BF16'"),
        ({"inputs": [tensor([1, 2], datatype="FP16")]}, "FP16 has no JSON form"),
        ({"inputs": [tensor([1])]}, "shape [1, 2] holds 2 elements; got 1"),
        ({"inputs": [tensor([1, float("inf")])]}, "element 1: expected a number"),
        ({"inputs": [tensor()]}, 'expected "data" to be a list; got null'),
        ({"inputs": [tensor([1, 2], parameters=[])]}, "parameters: expected an object"),
        ({"inputs": [tensor([1, 2], parameters={"content_type": 1})]}, "content_type: expected a string"),
        ({"inputs": [binary(8)]}, "binary_data_size is 8; 0 bytes are left"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}, "extension of 'shared_memory_region'"),
        ({"inputs": [tensor([1, 2])], "id": 7}, '"id": expected a string'),
        ({"inputs": [tensor([1, 2])], "parameters": 1}, "the request: parameters: expected an object"),
        ({"inputs": [tensor([1, 2])], "parameters": {"timeout": "1"}}, "timeout: expected whole microseconds"),
        ({"inputs": [tensor([1, 2])], "parameters": {"timeout": -1}}, "timeout: expected whole microseconds"),
        ({"inputs": [tensor([1, 2])], "parameters": {"timeout": True}}, "timeout: expected whole microseconds"),
        ({"inputs": [tensor([1, 2])], "parameters": {"binary_data_output": 1}}, "binary_data_output: expected true"),
        ({"inputs": [tensor([1, 2])], "outputs": {}}, '"outputs": expected a list'),
        ({"inputs": [tensor([1, 2])], "outputs": ["predict"]}, "an output: expected an object"),
        ({"inputs": [tensor([1, 2])], "outputs": [{"name": 1}]}, 'an output\'s "name": expected a string'),
        (
            {"inputs": [tensor([1, 2])], "outputs": [{"name": "p", "parameters": {"binary_data": "yes"}}]},
            "binary_data: expected true or false",
        ),
        (
            {"inputs": [tensor([1, 2])], "outputs": [{"name": "p", "parameters": {"classification": 3}}]},
            "output 'p': the extension of 'classification' is not offered",
        ),
        (
            {"inputs": [tensor([1, 2])], "outputs": [{"name": "p", "parameters": {"shared_memory_region": "r"}}]},
            "output 'p': the extension of 'shared_memory_region' is not offered",
        ),
    ],
)
def test_what_is_wrong_is_named(content: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(content)

    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("entry", "follows", "words"),
    [
        (binary(16), b"\0" * 15, "binary_data_size is 16; 15 bytes are left"),
        (binary(16), b"\0" * 17, "17 bytes follow the JSON; the inputs are 16 of them"),
        (binary(8), b"\0" * 8, "needs 16 bytes; got 8"),
        (binary(16, data=[1, 2]), b"\0" * 16, 'has both "data" and "binary_data_size"'),
        (binary(0, data=[]), b"", 'has both "data" and "binary_data_size"'),
        (binary("16"), b"\0" * 16, "binary_data_size is '16'"),
        (binary(-1), b"", "binary_data_size is -1"),
        (binary(True), b"\0", "binary_data_size is true"),
        (binary(2, datatype="BOOL"), b"\1\2", "expected each byte of BOOL to be 0 or 1"),
        (tensor([1, 2]), b"\0", "1 bytes follow the JSON; the inputs are 0 of them"),
    ],
)
def test_bytes_that_do_not_add_up_are_refused(entry: Any, follows: bytes, words: str) -> None:
    body, headers = with_bytes({"inputs": [entry]}, follows)

    with pytest.raises(InvalidRequest) as caught:
        read(body, headers)

    assert words in str(caught.value)


# -- replies ---------------------------------------------------------------------------------------


def test_reply_without_bytes_is_plain_json() -> None:
    reply = answered({"id": "7"}, {"predict": np.array([0.1, np.nan, np.inf])})

    assert (reply.content_type, reply.headers) == ("application/json", {})
    assert orjson.loads(reply.body) == {
        "model_name": "m", "model_version": "1", "id": "7",
        "outputs": [{"name": "predict", "shape": [3], "datatype": "FP64", "data": [0.1, None, None]}],
    }  # fmt: skip


def test_outputs_of_json_and_of_bytes_may_be_mixed() -> None:
    values = {"predict": np.array([-np.inf]), "transform": np.array([[0.1, 0.2]], dtype="f4")}
    wanted = [{"name": "transform"}, {"name": "predict", "parameters": {"binary_data": True}}]

    reply = answered({"outputs": wanted}, values)

    assert reply.content_type == BINARY
    content, follows = split(reply)
    assert content["outputs"] == [
        {"name": "transform", "shape": [1, 2], "datatype": "FP32",
         "data": [float(np.float32(0.1)), float(np.float32(0.2))]},
        {"name": "predict", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}},
    ]  # fmt: skip
    assert follows == struct.pack("<d", -np.inf)


def test_all_outputs_are_bytes_but_for_those_that_are_not_to_be() -> None:
    values = {"predict": np.array([1.5]), "transform": np.array([[1, 2]], dtype="f4")}
    wanted = [{"name": "predict"}, {"name": "transform", "parameters": {"binary_data": False}}]

    content, follows = split(answered({"parameters": {"binary_data_output": True}, "outputs": wanted}, values))

    assert follows == struct.pack("<d", 1.5)
    assert [("data" in output) for output in content["outputs"]] == [False, True]


def test_cloud_is_answered_in_its_own_type() -> None:
    kind = "application/vnd.vertex-ai-triton.binary+json"
    head = orjson.dumps({"inputs": [tensor([1.0, 2.0])], "parameters": {"binary_data_output": True}})
    body = V2Body(head, {"content-type": f"{kind};json-header-size={len(head)}"})
    body.read(DOUBLE)

    reply = body.write(InferReply("m", 1, DOUBLE, {"predict": np.array([1.5])}), "req-1")

    size = int(reply.content_type.removeprefix(f"{kind};json-header-size="))
    assert reply.body[size:] == struct.pack("<d", 1.5)
    assert reply.headers == {}


def test_half_precision_is_single_in_json_and_itself_in_bytes() -> None:
    signature = Signature(
        container=Container.ARRAY, columns=DOUBLE.columns, outputs=(Output(name="predict", dtype="float16"),)
    )
    values = {"predict": np.array([0.1], dtype=np.float16)}

    in_json = orjson.loads(answered({}, values, signature).body)["outputs"][0]
    in_bytes, follows = split(answered({"parameters": {"binary_data_output": True}}, values, signature))

    assert (in_json["datatype"], in_json["data"]) == ("FP32", [float(np.float16(0.1))])
    assert (in_bytes["outputs"][0]["datatype"], follows) == ("FP16", values["predict"].tobytes())


@pytest.mark.parametrize(
    ("labels", "kind", "data"),
    [
        (np.array(["größe", ""]), "str", ["größe", ""]),
        (np.array([b"tea", b"ale"]), "str", ["tea", "ale"]),
        (np.array([b"caf\xe9", b"tea"]), "base64", [base64.b64encode(b"caf\xe9").decode(), "dGVh"]),
    ],
)
def test_texts_say_whether_they_are_coded(labels: Any, kind: str, data: list[str]) -> None:
    signature = signature_of(AGE)

    (output,) = orjson.loads(
        answered({"inputs": [tensor([1, 2])]}, {"predict": labels}, signature).body
    )["outputs"]  # fmt: skip
    content, follows = split(answered({"parameters": {"binary_data_output": True}}, {"predict": labels}, signature))

    assert (output["datatype"], output["parameters"], output["data"]) == ("BYTES", {"content_type": kind}, data)
    assert content["outputs"][0]["parameters"] == {"binary_data_size": len(follows)}
    raw = [label if isinstance(label, bytes) else label.encode() for label in labels.tolist()]
    assert follows == b"".join(struct.pack("<I", len(label)) + label for label in raw)


def test_table_is_answered_as_a_table() -> None:
    reply = answered({"parameters": {"content_type": "pd"}}, {"predict": np.array([1.5])})

    assert orjson.loads(reply.body)["parameters"] == {"content_type": "pd"}


# -- anything --------------------------------------------------------------------------------------

SIGNATURES = [SINGLE, DOUBLE, matrix_of("int8"), matrix_of("bool", 1), SHOP, TEXTS, signature_of(CITY)]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        LENGTH_HEADER: st.integers(-1, 60).map(str) | st.text(max_size=4),
        "content-type": st.sampled_from(
            [BINARY, "application/vnd.sagemaker-triton.binary+json;json-header-size=9", "text/plain"]
        )
        | st.text(max_size=9),
    },
)


def ask(body: bytes, headers: Mapping[str, str], signature: Signature) -> None:
    """The whole way of a request, whose model answers zeros: a reply, or a clean refusal."""
    try:
        exchange = V2Body(body, headers)
        request = exchange.read(signature)
        outputs = choose_outputs(list(request.outputs), signature)
        table = rows_of(request.tensors, signature, request.content_type)
    except RequestError:
        return
    values: dict[str, Values] = {
        name: np.zeros((table.n_rows, *signature.output(name).shape), dtype="f8") for name in outputs
    }
    reply = exchange.write(InferReply("m", 1, signature, values), "req-1")
    assert orjson.loads(reply.body[: int(reply.headers.get(LENGTH_HEADER, len(reply.body)))])["outputs"]


@given(st.binary(max_size=60), HEADERS, st.sampled_from(SIGNATURES))
def test_any_bytes_are_answered_or_refused(body: bytes, headers: dict[str, str], signature: Signature) -> None:
    ask(body, headers, signature)


NAMES = st.sampled_from(["x", "x0", "age", "city", "text", "input-0", "", "predict", "transform", "predict_proba"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=5
)
PARAMETERS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": st.integers(-1, 40) | JSON,
        "content_type": st.sampled_from(["pd", "np", "str", "base64", "datetime", "pickle"]) | JSON,
        "binary_data": st.booleans() | JSON,
        "binary_data_output": st.booleans() | JSON,
        "timeout": st.integers(0, 2**60) | JSON,
        "classification": JSON,
        "shared_memory_region": JSON,
    },
)
ELEMENTS = st.lists(
    st.floats(-9, 9) | st.integers(-9, 9) | st.sampled_from(["Graz", "", "2020-01-01", "eA=="]) | LEAVES, max_size=4
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | JSON,
        "datatype": st.sampled_from([*DATATYPES, "BF16"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | st.lists(st.integers(), max_size=34) | JSON,
        "data": ELEMENTS | st.lists(ELEMENTS, max_size=3) | JSON,
        "parameters": PARAMETERS,
    },
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={
        "outputs": st.lists(st.fixed_dictionaries({"name": NAMES | JSON}, optional={"parameters": PARAMETERS}))
        | JSON,
        "parameters": PARAMETERS,
        "id": st.text(max_size=3) | JSON,
    },
)  # fmt: skip


@settings(max_examples=500)
@given(BODIES, st.binary(max_size=40), st.booleans(), st.sampled_from(SIGNATURES))
def test_any_members_are_answered_or_refused(
    content: dict[str, Any], follows: bytes, is_split: bool, signature: Signature
) -> None:
    head = json.dumps(content).encode()

    ask(head + follows if is_split else head, {LENGTH_HEADER: str(len(head))} if is_split else {}, signature)


@given(st.data(), st.sampled_from([SINGLE, DOUBLE, TEXTS]), st.integers(1, 4))
def test_good_requests_are_answered_whatever_form_they_have(
    data: st.DataObject, signature: Signature, rows: int
) -> None:
    is_text = signature is TEXTS
    datatype = "BYTES" if is_text else "FP32" if signature is SINGLE else "FP64"
    width = len(signature.columns)
    cells: Any = st.text(st.characters(codec="utf-8"), max_size=3) if is_text else st.floats(-9, 9, width=32)
    flat = data.draw(st.lists(cells, min_size=rows * width, max_size=rows * width))
    entry = {"name": "x", "datatype": datatype, "shape": [rows, width]}

    in_json = read({"inputs": [{**entry, "data": flat}]}, signature=signature)
    raw = (
        b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in flat)
        if is_text else np.array(flat, dtype=DATATYPES[datatype]).tobytes()
    )  # fmt: skip
    body, headers = with_bytes({"inputs": [{**entry, "parameters": {"binary_data_size": len(raw)}}]}, raw)
    in_bytes = read(body, headers, signature)

    tables = [rows_of(request.tensors, signature) for request in (in_json, in_bytes)]
    first, second = (t.values if isinstance(t, Matrix) else t.columns["text"] for t in tables)
    assert first.dtype == second.dtype
    assert first.tolist() == second.tolist()
