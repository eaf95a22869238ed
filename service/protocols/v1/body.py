"""Bodies of TensorFlow Serving's REST API, which is KServe's version 1, too.

    {"instances": [[1.0, 2.0], …]}  or  [{"age": 41, "city": "Graz"}, …]     → {"predictions": […]}
    {"inputs": [[1.0, 2.0], …]}     or  {"age": [41, 23], "city": […]}       → {"outputs": …}
    {"examples": [{"age": 41, "city": "Graz"}, …]}                           → {"results": […]}

`signature_name` beside them chooses the output (`v1/model.py`); unknown keys are ignored. A value may be
{"b64": "…"}, and NaN and Infinity are words, which JSON does not have. null is a missing value where the column
takes one, as everywhere in Tandem; tensors of TensorFlow have none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, shorten
from service.core.messages import InferReply, InferRequest
from service.core.plain import NonFinite, plain
from service.core.signature import Signature
from service.core.table import Matrix
from service.protocols.json_body import read_json
from service.protocols.number_rows import read_number_rows
from service.protocols.v1.model import choose_output, labels_of
from service.protocols.v1.rows import decode_examples, decode_inputs, decode_instances, has_objects
from service.protocols.v2.tables import tensors_of
from service.protocols.v2.tensors import text_of

# A list of rows of lists holds values; what lies deeper is none, and left to the decoder to refuse.
_DEEPEST: Final = 5


class Predict:
    """One request to predict, and the form of its reply."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._key = "predictions"

    def read(self, signature: Signature) -> InferRequest:
        """Raises UnreadableRequest, InvalidRequest, InvalidRows."""
        if (found := read_number_rows(self._body, signature)) is not None:
            return InferRequest(Matrix(found[0]), (signature.default_output,))
        return _read(self._body, lambda content, exact: self._build(content, signature, exact))

    def _build(self, content: dict[str, Any], signature: Signature, exact: bool) -> InferRequest:
        output = choose_output(content.get("signature_name"), signature)
        if "instances" in content and "inputs" in content:
            raise InvalidRequest('the body has both "instances" and "inputs"; expected one of them')
        if "instances" in content:
            self._key = "predictions"
            return InferRequest(decode_instances(content["instances"], signature, exact=exact), (output,))
        if "inputs" not in content:
            raise InvalidRequest('Missing "inputs" or "instances" key')
        inputs = content["inputs"]
        # To TensorFlow "inputs" are columns, to KServe another word for instances. Rows of objects are KServe's.
        self._key = "predictions" if has_objects(inputs) else "outputs"
        return InferRequest(decode_inputs(inputs, signature, exact=exact), (output,))

    def write(self, reply: InferReply) -> bytes:
        """The only output as it is; of several, objects by name: one per row, or one of columns."""
        outputs = {name: plain(values) for name, values in _arrays(reply).items()}
        lost = any(places for _, places in outputs.values())
        columns = {name: _worded(*output) if lost else output[0] for name, output in outputs.items()}
        content: Any = columns
        if len(columns) == 1:
            (content,) = columns.values()
        elif self._key == "predictions":
            content = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return _written({self._key: content}, has_words=lost)


class Examples:
    """One request to classify or to regress: one answer per example."""

    def __init__(self, body: bytes, choose: Callable[[Any, Signature], str]) -> None:
        """`choose` finds the output, given the name of a signature."""
        self._body = body
        self._choose = choose

    def read(self, signature: Signature) -> InferRequest:
        """Raises UnreadableRequest, InvalidRequest, InvalidRows."""
        return _read(self._body, lambda content, exact: self._build(content, signature, exact))

    def _build(self, content: dict[str, Any], signature: Signature, exact: bool) -> InferRequest:
        output = self._choose(content.get("signature_name"), signature)
        rows = decode_examples(content.get("examples"), content.get("context"), signature, exact=exact)
        return InferRequest(rows, (output,))


def write_classes(reply: InferReply) -> bytes:
    """`{"results": [[[label, score], …], …]}`."""
    (scores,) = reply.outputs.values()
    assert isinstance(scores, np.ndarray)
    labels = labels_of(reply.signature)
    results = [[list(pair) for pair in zip(labels, row, strict=True)] for row in scores.tolist()]
    return _written({"results": results}, has_words=not np.isfinite(scores).all())


def write_numbers(reply: InferReply) -> bytes:
    """`{"results": [number, …]}`."""
    (numbers,) = reply.outputs.values()
    assert isinstance(numbers, np.ndarray)
    return _written({"results": numbers.ravel().tolist()}, has_words=not np.isfinite(numbers).all())


# -- requests ------------------------------------------------------------------------------------


def _read(body: bytes, build: Callable[[dict[str, Any], bool], InferRequest]) -> InferRequest:
    has_base64 = b"b64" in body

    def checked(content: Any, exact: bool) -> InferRequest:
        if not isinstance(content, dict):
            raise InvalidRequest(f"the body is {shorten(content)}; expected an object")
        if has_base64:
            content = {key: _from_base64(value, _DEEPEST) for key, value in content.items()}
        return build(content, exact)

    return read_json(body, checked, allow_nan=True)


def _from_base64(value: Any, depth: int) -> Any:
    """`value` with the text of every `{"b64": …}` in its place; bytes that are not UTF-8 stay bytes."""
    if depth == 0:
        return value
    if isinstance(value, list):
        return [_from_base64(item, depth - 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"b64"}:
        return {key: _from_base64(item, depth - 1) for key, item in value.items()}
    try:
        return text_of(base64.b64decode(value["b64"], validate=True))
    except (TypeError, ValueError):
        raise InvalidRequest(f'"b64": expected base64, got {shorten(value["b64"])}') from None


# -- replies -------------------------------------------------------------------------------------


def _arrays(reply: InferReply) -> dict[str, NDArray[Any]]:
    """The output by its name, or an array per target; sparse rows are spread out, because rows here are lists."""
    ((name, values),) = reply.outputs.items()
    if isinstance(values, np.ndarray):
        return {name: values}
    return {tensor.name: tensor.values for tensor in tensors_of(reply)}


def _worded(value: Any, places: NonFinite) -> Any:
    """`value` as lists, with numbers that JSON lacks where `places` say."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    for (*outer, last), word in places:
        place = value
        for step in outer:
            place = place[step]
        place[last] = float(word)
    return value


def _written(content: Any, *, has_words: bool) -> bytes:
    """`content` as JSON, or as JSON with the words NaN and Infinity in it."""
    if has_words:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
