"""The Open Inference Protocol, version 2: every route, every datatype, JSON and raw bytes, and what is refused."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from service.protocols.v2.rest import ROUTES
from tests.conformance.corpus import JSON, MAX_BODY_BYTES, METHODS, PERSON, ROW, Case, case, several

INFER: Final = "/v2/models/numbers/infer"
LENGTH: Final = "Inference-Header-Content-Length"
OCTETS: Final = ("Content-Type", "application/octet-stream")
TWO_ROWS: Final = [ROW, ROW[::-1]]


def tensor(data: Any = None, **members: Any) -> dict[str, Any]:
    """Two rows of numbers, or what `members` make of them."""
    return {"name": "input-0", "datatype": "FP64", "shape": [2, 4], "data": data or TWO_ROWS, **members}


def raw(values: Any, **members: Any) -> tuple[dict[str, Any], bytes]:
    """A tensor whose bytes follow the JSON, and these bytes."""
    content = values if isinstance(values, bytes) else np.asarray(values, dtype="<f8").tobytes()
    entry = tensor(parameters={"binary_data_size": len(content)}, **members)
    del entry["data"]
    return entry, content


def binary(
    name: str,
    status: int,
    inputs: list[tuple[dict[str, Any], bytes]],
    more: dict[str, Any] | None = None,
    *,
    target: str = INFER,
    length: int | str | None = None,
    headers: tuple[tuple[str, str], ...] = (OCTETS,),
) -> Case:
    """A request with bytes behind its JSON; `length` stands in for that of the JSON."""
    head = json.dumps({"inputs": [entry for entry, _ in inputs], **(more or {})}).encode()
    body = head + b"".join(content for _, content in inputs)
    told = (LENGTH, str(len(head) if length is None else length))
    return case(name, status, target, body, headers=(*headers, told))


def every_method() -> Iterator[Case]:
    """Every route with every method."""
    paths = dict.fromkeys(route.path for route in ROUTES)
    methods = {path: {route.method for route in ROUTES if route.path == path} for path in paths}
    for path, answered in methods.items():
        target = path.replace("{name}", "versions").replace("{version}", "3")
        for method in METHODS:
            is_answered = method in answered or (method == "HEAD" and "GET" in answered)
            body = {"inputs": [tensor(data=[1, 2], shape=[1, 2])]} if "POST" in answered else None
            yield case(f"{method} {path}", 200 if is_answered else 405, target, body, method=method)


def paths() -> Iterator[Case]:
    """Metadata of every kind of model, and paths that lead nowhere."""
    for model in (
        "numbers", "forest", "people", "amounts", "two-kinds", "two-amounts", "one-hot", "scaled", "outliers",
        "opinions", "certain", "odd.names_1", "words", "counts", "odd%2Enames_1",
    ):  # fmt: skip
        yield case(f"metadata of {model}", 200, f"/v2/models/{model}")
    for target, status in {
        "/v2/nowhere": 404,
        "/v2/health": 404,
        "/v2/health/live/": 404,
        "/v2/models/": 404,
        "/v2/models/nobody": 404,
        "/v2/models/nobody/ready": 404,
        "/v2/models/m%C3%BCller": 404,
        "/v2/models/%FF/ready": 404,
        "/v2/models/numbers/": 404,
        "/v2/models/numbers/config": 404,
        "/v2/models/versions/versions/9": 404,
        "/v2/models/versions/versions/latest": 404,
        "/v2/models/versions/versions/1/ready": 200,
        "/v2/models/versions/versions/%33": 200,
        "/v2/models/versions/versions/0/ready": 404,
        "/V2": 404,
        "/v2?verbose": 200,
        "//v2": 404,
    }.items():
        yield case(f"path {target}", status, target)
    yield case("infer to nowhere", 404, "/v2/models/nobody/infer", {"inputs": [tensor()]})
    yield case("infer on no version", 404, "/v2/models/numbers/versions/9/infer", {"inputs": [tensor()]})
    yield case("infer on a version", 200, "/v2/models/numbers/versions/1/infer", {"inputs": [tensor()]})
    yield case("generate, which is not offered", 404, "/v2/models/numbers/generate", {"text_input": "a"})


def answers() -> Iterator[Case]:
    """Every kind of model, in JSON and in bytes."""
    named = {"numbers": ("predict", "predict_proba", "predict_log_proba", "decision_function"), "amounts": ("predict",),
             "two-kinds": ("predict_proba_1", "predict", "predict_proba_0"), "two-amounts": ("predict",),
             "scaled": ("transform",), "outliers": ("score_samples", "predict"),
             "certain": ("predict_log_proba",)}  # fmt: skip
    for model, names in named.items():
        target = f"/v2/models/{model}/infer"
        outputs = [{"name": name} for name in names]
        yield case(f"{model}: the default output", 200, target, {"inputs": [tensor()]})
        yield case(f"{model}: outputs by name", 200, target, {"inputs": [tensor()], "outputs": outputs})
        yield binary(f"{model}: bytes for bytes", 200, [raw(TWO_ROWS)],
                     {"outputs": outputs, "parameters": {"binary_data_output": True}}, target=target)  # fmt: skip
    narrow = np.asarray(TWO_ROWS, dtype="<f4").tobytes()
    yield binary("forest: single precision", 200, [raw(narrow, datatype="FP32")], target="/v2/models/forest/infer")
    yield binary("counts: int8", 200, [raw(bytes(range(8)), datatype="INT8")], target="/v2/models/counts/infer")
    columns = [
        tensor(data=values, name=name, datatype="FP32", shape=[2])
        for name, values in zip("dbca", np.transpose(TWO_ROWS).tolist(), strict=True)
    ]
    yield case("forest: a tensor for each column", 200, "/v2/models/forest/infer", {"inputs": columns})
    odd = [tensor(data=[1.0], name=name, shape=[1, 1]) for name in ("größe", " ", 'a "b"\\c', "日本")]
    yield case("columns in unicode", 200, "/v2/models/odd.names_1/infer", {"inputs": odd})
    colours = [
        tensor(data=[["red"], ["puce"]], name="colour", datatype="BYTES", shape=[2, 1]),
        tensor(data=["M", None], name="size", datatype="BYTES", shape=[2]),
    ]
    yield case("one-hot: spread out", 200, "/v2/models/one-hot/infer", {"inputs": colours})


def texts_and_tables() -> Iterator[Case]:
    """Tensors of texts, and of the columns of a table."""
    opinions, people = "/v2/models/opinions/infer", "/v2/models/people/infer"
    words = ["great fun", "größe 日本 🦊 \u0000", ""]
    packed = b"".join(struct.pack("<I", len(word.encode())) + word.encode() for word in words)
    text = tensor(data=words, name="text", datatype="BYTES", shape=[3])
    labels = {"outputs": [{"name": "predict", "parameters": {"binary_data": True}}, {"name": "predict_proba"}]}
    yield case("texts", 200, opinions, {"inputs": [text], "parameters": {"content_type": "str"}})
    yield case(
        "texts in base64",
        200,
        opinions,
        {"inputs": [tensor(data=["Z3JlYXQ="], datatype="BYTES", shape=[1], parameters={"content_type": "base64"})]},
    )
    yield case(
        "texts in base64 that are none",
        400,
        opinions,
        {"inputs": [tensor(data=["?"], datatype="BYTES", shape=[1], parameters={"content_type": "base64"})]},
    )
    yield binary("texts in bytes", 200, [raw(packed, datatype="BYTES", shape=[3])], labels, target=opinions)
    yield binary("texts that are no UTF-8", 400, [raw(b"\1\0\0\0\xff", datatype="BYTES", shape=[1])], target=opinions)
    yield binary("texts that are cut", 400, [raw(packed[:-1], datatype="BYTES", shape=[3])], target=opinions)
    yield case("a body that is one text", 200, opinions, b"great fun", headers=((LENGTH, "0"),))
    kinds = {"age": "FP64", "member": "BOOL", "visits": "INT64"}
    person = [
        tensor(data=[value], name=name, datatype=kinds.get(name, "BYTES"), shape=[1, 1])
        for name, value in PERSON.items()
    ]
    table = {"parameters": {"content_type": "pd"}}
    yield case("a table", 200, people, {"inputs": person, **table})
    yield case("a table by name alone", 200, people, {"inputs": person[::-1]})
    holes = [{**one, "data": [None]} if one["name"] in ("age", "city", "plan") else one for one in person]
    yield case("a table with holes", 200, people, {"inputs": holes, **table})
    yield case("a table without what may be missing", 200, people,
               {"inputs": [one for one in person if one["name"] in ("since", "visits")]})  # fmt: skip
    yield case("a table without what must be there", 400, people, {"inputs": person[:4], **table})
    yield case("a table with a column twice", 400, people, {"inputs": [*person, person[0]]})
    yield case("a table with a column too many", 400, people, {"inputs": [*person, {**person[0], "name": "height"}]})
    longer = {**person[0], "shape": [2], "data": [1, 2]}
    yield case("a table of columns of other lengths", 400, people, {"inputs": [longer, *person[1:]]})
    member = b"\1", b"\2"
    for status, content in zip((200, 400), member, strict=True):
        entry, _ = raw(content, name="member", datatype="BOOL", shape=[1])
        mixed = [(one, b"") for one in person if one["name"] != "member"]
        yield binary(f"a table with the byte {content[0]} for a truth", status, [*mixed, (entry, content)],
                     target=people)  # fmt: skip


def members() -> Iterator[Case]:
    """What a request may say besides its rows."""
    good = {"inputs": [tensor()]}
    for name, more in {
        "an id": {"id": "mine"},
        "an empty id": {"id": ""},
        "an id in unicode": {"id": "größe \u0000 🦊"},
        "unknown members": {"model_name": "other", "more": [{}]},
        "parameters that servers reserve": {
            "parameters": {"sequence_id": 1, "priority": 2, "headers": {"a": "b"}, "triton_odd": 1}
        },
        "a timeout": {"parameters": {"timeout": 60_000_000}},
        "the content type np": {"parameters": {"content_type": "np"}},
        "an output twice": {"outputs": [{"name": "predict"}, {"name": "predict"}]},
        "no outputs": {"outputs": []},
        "nulls": {"id": None, "parameters": None, "outputs": None},
        "classification of no classes": {"outputs": [{"name": "predict", "parameters": {"classification": 0}}]},
    }.items():
        yield case(f"a request with {name}", 200, INFER, {**good, **more})
    for name, more in {
        "an id that is a number": {"id": 1},
        "parameters that are a list": {"parameters": []},
        "a timeout in words": {"parameters": {"timeout": "1s"}},
        "an unknown content type": {"parameters": {"content_type": "pd_json"}},
        "an unknown output": {"outputs": [{"name": "transform"}]},
        "the output of one target": {"outputs": [{"name": "predict_proba_0"}]},
        "an output without a name": {"outputs": [{}]},
        "outputs as names": {"outputs": ["predict"]},
        "a flag that is none": {"parameters": {"binary_data_output": "yes"}},
        "classification": {"outputs": [{"name": "predict", "parameters": {"classification": 2}}]},
        "shared memory": {"outputs": [{"name": "predict", "parameters": {"shared_memory_region": "r"}}]},
    }.items():
        yield case(f"a request with {name}", 400, INFER, {**good, **more})
    yield case("a request that waits for no time", 504, INFER, {**good, "parameters": {"timeout": 1}})
    yield case("a request without a type", 200, INFER, good, headers=())
    yield case("a request of another type", 200, INFER, good, headers=(("Content-Type", "text/plain"),))
    yield several(
        "metadata, inference and health on one connection",
        case("first", 200, "/v2/models/numbers"), case("second", 200, INFER, good), case("third", 400, INFER, {}),
        case("fourth", 200, "/v2/health/ready"),
    )  # fmt: skip


def tensors() -> Iterator[Case]:
    """Datatypes, shapes and elements."""
    flat = [0, 1, 2, 3, 4, 5, 6, 7]
    for datatype in ("FP64", "FP32", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"):
        yield case(f"numbers as {datatype}", 200, INFER, {"inputs": [tensor(data=flat, datatype=datatype)]})
    for name, status, entry in (
        ("flat", 200, tensor(data=flat)),
        ("nested deeper than its shape", 200, tensor(data=[[[[value]] for value in row] for row in TWO_ROWS])),
        ("under the name of a column", 200, tensor(name="x0")),
        ("of an integer that no float is", 400, tensor(data=[2**70 + 1, 1, 2, 3, 4, 5, 6, 7])),
        ("of integers that would round", 400, tensor(data=[2**53 + 1, 1, 2, 3, 4, 5, 6, 7], datatype="INT64")),
        ("with 1e400", 400, tensor(data=[1e300 * 1e10, 1, 2, 3, 4, 5, 6, 7])),
        ("with a float beyond FP32", 400, tensor(data=[1e39, 1, 2, 3, 4, 5, 6, 7], datatype="FP32")),
        ("with NaN", 400, tensor(data=[float("nan"), 1, 2, 3, 4, 5, 6, 7])),
        ("with null", 400, tensor(data=[None, 1, 2, 3, 4, 5, 6, 7])),
        ("with true", 400, tensor(data=[True, 1, 2, 3, 4, 5, 6, 7])),
        ("with a text", 400, tensor(data=["1", 1, 2, 3, 4, 5, 6, 7])),
        ("of truths", 400, tensor(data=[True] * 8, datatype="BOOL")),
        ("of texts", 400, tensor(data=["1"] * 8, datatype="BYTES")),
        ("of INT8 beyond it", 400, tensor(data=[128, 1, 2, 3, 4, 5, 6, 7], datatype="INT8")),
        ("of half precision", 400, tensor(datatype="FP16")),
        ("of BF16", 400, tensor(datatype="BF16")),
        ("of no datatype", 400, tensor(datatype=None)),
        ("of no name", 400, tensor(name=None)),
        ("of another shape than its lists", 400, tensor(data=[[1, 2], [3, 4], [5, 6], [7, 8]])),
        ("of rows of other lengths", 400, tensor(data=[[1, 2, 3, 4], [5, 6, 7]])),
        ("with a shape of other rows", 400, tensor(shape=[3, 4])),
        ("with a variable shape", 400, tensor(shape=[-1, 4])),
        ("with a shape of three dimensions", 400, tensor(shape=[2, 4, 1])),
        ("with an immense shape", 400, tensor(shape=[2**40, 2**40])),
        ("with too few columns", 400, tensor(data=[1, 2], shape=[1, 2])),
        ("of no rows", 400, {**tensor(), "data": [], "shape": [0, 4]}),
        ("without data", 400, {key: value for key, value in tensor().items() if key != "data"}),
    ):
        yield case(f"a tensor {name}", status, INFER, {"inputs": [entry]})
    two = [tensor(name="x0"), tensor(name="x1")]
    for name, body in {
        "nothing": {}, "no inputs": {"inputs": []}, "inputs by name": {"inputs": {"x": 1}}, "a list": [tensor()],
        "a record of ours": {"instances": [ROW]}, "two matrices": {"inputs": two},
    }.items():  # fmt: skip
        yield case(f"a request of {name}", 400, INFER, body)
    for name, body in {"nothing": b"", "half a text": b'{"inputs": [', "other bytes": b"\x00\xff"}.items():
        yield case(f"a body of {name}", 400, INFER, body)


def bytes_behind() -> Iterator[Case]:
    """The binary tensor data extension."""
    good = raw(TWO_ROWS)
    want = {"outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}, {"name": "predict"}]}
    yield binary("bytes, and JSON for one output of two", 200, [good], want)
    yield binary("bytes of a JSON type", 200, [good], headers=(JSON,))
    yield binary("bytes of no type", 200, [good], headers=())
    half = raw(np.asarray(TWO_ROWS, dtype="<f2").tobytes(), datatype="FP16")
    yield binary("bytes of half precision", 200, [half])
    everything = {"parameters": {"binary_data_output": True}}
    yield case("JSON for bytes", 200, INFER, {"inputs": [tensor()], **everything})
    infinite = raw([[np.inf, 1, 2, 3], [1, 2, 3, 4]])
    yield binary("bytes of infinity", 400, [infinite])
    for name, entry, content in (
        ("that are too few", good[0], good[1][:-1]),
        ("that are too many", good[0], good[1] + b"\0"),
        ("of another size than the shape", raw(b"\0" * 8)[0], b"\0" * 8),
        ("beside data", {**good[0], "data": TWO_ROWS}, good[1]),
        ("of a size that is no number", {**good[0], "parameters": {"binary_data_size": "64"}}, good[1]),
        ("of a negative size", {**good[0], "parameters": {"binary_data_size": -64}}, good[1]),
    ):
        yield binary(f"bytes {name}", 400, [(entry, content)])
    for length in ("-1", "1.5", "abc", "1000000", "0x10"):
        yield binary(f"a JSON length of {length}", 400, [good], length=length)
    yield binary("a JSON length within the JSON", 400, [good], length=10)
    head = json.dumps({"inputs": [good[0]]}).encode()
    for cloud in ("sagemaker", "vertex-ai"):
        kind = f"application/vnd.{cloud}-triton.binary+json;json-header-size={len(head)}"
        yield case(f"bytes as {cloud} sends them", 200, INFER, head + good[1], headers=(("Content-Type", kind),))
        both = json.dumps({"inputs": [good[0]], **everything}).encode()
        kind = f"application/vnd.{cloud}-triton.binary+json;json-header-size={len(both)}"
        yield case(f"bytes as {cloud} wants them", 200, INFER, both + good[1], headers=(("Content-Type", kind),))
    nothing_else = ((LENGTH, "0"), OCTETS)
    yield case("a body that is one tensor", 200, INFER, good[1], headers=nothing_else)
    yield case("a body that is no whole row", 400, INFER, good[1][:-8], headers=nothing_else)
    yield case("a body that is no row", 400, INFER, b"", headers=nothing_else)
    yield case("a body that is one tensor of several", 400, "/v2/models/people/infer", good[1], headers=nothing_else)
    yield case("bytes without the length of their JSON", 400, INFER, head + good[1], headers=(OCTETS,))


def codings() -> Iterator[Case]:
    """Compressed bodies, both ways, and the limit."""
    body = json.dumps({"inputs": [tensor()]}).encode()
    for coding, status, content in (
        ("gzip", 200, gzip.compress(body, mtime=0)),
        ("deflate", 200, zlib.compress(body)),
        ("identity", 200, body),
        ("gzip", 400, body),
        ("deflate", 400, gzip.compress(body, mtime=0)[:-4]),
        ("br", 501, body),
        ("gzip, gzip", 501, body),
        ("gzip", 413, gzip.compress(b" " * (MAX_BODY_BYTES + 1), mtime=0)),
    ):
        headers = (JSON, ("Content-Encoding", coding))
        yield case(f"a body in {coding}, answered with {status}", status, INFER, content, headers=headers)
    entry, content = raw(TWO_ROWS)
    head = json.dumps({"inputs": [entry]}).encode()
    packed = gzip.compress(head + content, mtime=0)
    counted = ((LENGTH, str(len(head))), ("Content-Encoding", "gzip"))
    yield case("bytes in gzip, their JSON counted without", 200, INFER, packed, headers=counted)
    rows = [ROW] * 200
    long = {"inputs": [tensor(data=rows, shape=[200, 4])], "outputs": [{"name": "predict_proba"}]}
    for accepted in ("gzip", "deflate", "gzip;q=0", "br", "identity"):
        yield case(
            f"a long answer for who reads {accepted}", 200, INFER, long, headers=(("Accept-Encoding", accepted),)
        )
    yield case("a short answer for who reads gzip", 200, INFER, body, headers=(("Accept-Encoding", "gzip"),))
    large = {"parameters": {"binary_data_output": True}, **long}
    yield case("long bytes for who reads gzip", 200, INFER, large, headers=(("Accept-Encoding", "gzip"),))
    yield case("a body over the limit", 413, INFER, b" " * (MAX_BODY_BYTES + 1))
    yield case("a body in chunks", 200, INFER, chunks=[body[:20], body[20:]])


CASES: Final = tuple(
    replace(one, name=f"v2: {one.name}")
    for part in (every_method, paths, answers, texts_and_tables, members, tensors, bytes_behind, codings)
    for one in part()
)
