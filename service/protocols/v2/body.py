"""Bodies of the Open Inference Protocol over HTTP: JSON, with raw bytes of tensors behind it.

    {"inputs": [{"name", "datatype", "shape", "data"}], "outputs": [{"name"}]}  → {"outputs": [{…, "data"}]}

A tensor whose bytes follow the JSON has `parameters.binary_data_size` in the place of its data; the header
Inference-Header-Content-Length says where the JSON ends (the binary tensor data extension). Raw bytes carry
everything. In JSON, NaN and infinity are null, and texts of which one is no UTF-8 are base64, and say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson

from service.core.errors import InvalidRequest, UnreadableRequest, shorten
from service.core.messages import InferReply
from service.core.signature import Signature
from service.protocols.http import HttpReply
from service.protocols.json_body import read_json
from service.protocols.v2.numbers import read_number_body
from service.protocols.v2.tables import inputs_of, tensors_of
from service.protocols.v2.tensors import (
    DATATYPES,
    Tensor,
    read_list,
    read_raw,
    text_of,
    write_list,
    write_raw,
    write_texts,
)

LENGTH_HEADER: Final = "inference-header-content-length"
BINARY: Final = "application/octet-stream"
# Parameters after which a client would look for its answer elsewhere, or in another form.
_NOT_OFFERED: Final = ("classification", "shared_memory_region")
# Platforms that drop headers they do not know carry the length in the type.
_TYPED_LENGTH: Final = re.compile(
    r"(application/vnd\.(?:sagemaker|vertex-ai)-triton\.binary\+json);\s*json-header-size=(\d{1,12})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class V2Request:
    """What a request asks for. `outputs` are the tensors wanted, and whether their bytes are to be raw; none
    are the model's default one. `timeout_s` is the longest that the caller waits.
    """

    tensors: tuple[Tensor, ...]
    outputs: Mapping[str, bool | None]
    id: str | None = None
    content_type: str | None = None
    is_binary: bool = False
    timeout_s: float | None = None


class V2Body:
    """The body of a request, split where its JSON ends, and the form of the reply."""

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Raises UnreadableRequest where the length of the JSON is none, or beyond the end."""
        content_type = headers.get("content-type", "")
        typed = _TYPED_LENGTH.fullmatch(content_type.strip())
        length = typed[2] if typed else headers.get(LENGTH_HEADER)
        self._media_type = typed[1] if typed else None
        size = len(body)
        if length is not None:
            if not re.fullmatch(r"\s*\d{1,12}\s*", length, re.ASCII) or int(length) > len(body):
                raise UnreadableRequest(
                    f"{LENGTH_HEADER}: expected the bytes of JSON in a body of {len(body)}, got {shorten(length)}"
                )
            size = int(length)
        self._is_raw = length is not None and size == 0
        self._json = body[:size] if size < len(body) else body
        self._binary = memoryview(body)[size:]
        self._request = V2Request((), {})

    def read(self, signature: Signature) -> V2Request:
        """Raises UnreadableRequest, InvalidRequest."""
        if self._is_raw:
            self._request = self._one_tensor(signature)
        elif (numbers := read_number_body(self._json)) is not None:
            self._request = self._build(numbers, exact=False)
        else:
            # The bare NaN is what clients in Python write, although JSON has none.
            self._request = read_json(self._json, self._build, allow_nan=True)
        return self._request

    def _one_tensor(self, signature: Signature) -> V2Request:
        """A body that is nothing but the model's only input."""
        inputs = inputs_of(signature)
        if len(inputs) != 1:
            raise InvalidRequest(f"this model has {len(inputs)} inputs; a body without JSON holds one")
        (about,) = inputs
        if about.datatype == "BYTES":
            content = np.empty((1, 1), dtype=object)
            content[0, 0] = text_of(bytes(self._binary))
            tensor = Tensor(about.name, "BYTES", content)
        else:
            row_bytes = DATATYPES[about.datatype].itemsize * about.shape[1]
            rows, rest = divmod(len(self._binary), row_bytes)
            if rest:
                raise InvalidRequest(
                    f"a row of this model is {about.shape[1]} {about.datatype}, {row_bytes} bytes; "
                    f"{len(self._binary)} bytes are no whole number of rows"
                )
            tensor = read_raw(about.name, about.datatype, (rows, about.shape[1]), self._binary)
        return V2Request((tensor,), {}, is_binary=True)

    def _build(self, content: Any, exact: bool) -> V2Request:
        request = _object(content, "the body")
        inputs = request.get("inputs")
        if not isinstance(inputs, list) or not inputs:
            raise InvalidRequest(f'"inputs": expected a list of at least one tensor; got {shorten(inputs)}')
        parameters = _parameters(request, "the request")
        tensors: list[Tensor] = []
        at = 0
        for entry in inputs:
            tensor, size = self._tensor(_object(entry, "an input"), at, exact)
            tensors.append(tensor)
            at += size
        if at != len(self._binary):
            raise InvalidRequest(f"{len(self._binary)} bytes follow the JSON; the inputs are {at} of them")
        request_id = request.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise InvalidRequest(f'"id": expected a string; got {shorten(request_id)}')
        return V2Request(
            tuple(tensors),
            _outputs(request.get("outputs")),
            id=request_id,
            content_type=text_in(parameters, "content_type"),
            is_binary=_flag(parameters, "binary_data_output") or False,
            timeout_s=timeout_in(parameters),
        )

    def _tensor(self, entry: dict[str, Any], at: int, exact: bool) -> tuple[Tensor, int]:
        """An input, and how many of the bytes behind the JSON it takes, from `at` on."""
        name, shape = entry.get("name"), entry.get("shape")
        datatype: Any = entry.get("datatype")
        if not isinstance(name, str):
            raise InvalidRequest(f'an input\'s "name": expected a string; got {shorten(name)}')
        where = f"input {name[:60]!r}"
        if not isinstance(shape, list):
            raise InvalidRequest(f'{where}: expected "shape" to be a list; got {shorten(shape)}')
        parameters = _parameters(entry, where)
        size = parameters.get("binary_data_size")
        if size is None:
            tensor = read_list(name, datatype, shape, entry.get("data"), exact=exact)
        elif entry.get("data") is not None:
            raise InvalidRequest(f'{where}: has both "data" and "binary_data_size"')
        elif type(size) is not int or not 0 <= size <= len(self._binary) - at:
            raise InvalidRequest(
                f"{where}: binary_data_size is {shorten(size)}; {len(self._binary) - at} bytes are left"
            )
        else:
            tensor = read_raw(name, datatype, shape, self._binary[at : at + size])
        return replace(tensor, content_type=text_in(parameters, "content_type")), size or 0

    def write(self, reply: InferReply, request_id: str) -> HttpReply:
        """The answer in the form that the request, which was read, asked for. `request_id` stands in where it
        has no id.
        """
        request = self._request
        outputs: list[dict[str, Any]] = []
        parts: list[bytes] = []
        for tensor in tensors_of(reply, list(request.outputs)):
            asked = request.outputs.get(tensor.name)
            entry, part = _written(tensor, request.is_binary if asked is None else asked)
            outputs.append(entry)
            if part is not None:
                parts.append(part)
        content: dict[str, Any] = {
            "model_name": reply.model,
            "model_version": str(reply.version),
            "id": request.id or request_id,
        }
        if request.content_type == "pd":
            content["parameters"] = {"content_type": "pd"}
        head = orjson.dumps({**content, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        if not parts:
            return HttpReply(200, head)
        body = b"".join((head, *parts))
        if self._media_type is not None:
            return HttpReply(200, body, f"{self._media_type};json-header-size={len(head)}")
        return HttpReply(200, body, BINARY, {LENGTH_HEADER: str(len(head))})


def _written(tensor: Tensor, is_binary: bool) -> tuple[dict[str, Any], bytes | None]:
    """A tensor as JSON, and its bytes where they follow."""
    datatype, values = tensor.datatype, tensor.values
    if datatype == "FP16" and not is_binary:  # which JSON does not have
        datatype, values = "FP32", values.astype(np.float32)
    entry: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": datatype}
    if is_binary:
        content = write_raw(values, datatype)
        return {**entry, "parameters": {"binary_data_size": len(content)}}, content
    if datatype == "BYTES":
        texts, content_type = write_texts(values)
        return {**entry, "parameters": {"content_type": content_type}, "data": texts}, None
    return {**entry, "data": write_list(values)}, None


def _outputs(wanted: Any) -> dict[str, bool | None]:
    """The tensors asked for, and whether each is to be binary."""
    if wanted is None:
        return {}
    if not isinstance(wanted, list):
        raise InvalidRequest(f'"outputs": expected a list; got {shorten(wanted)}')
    found: dict[str, bool | None] = {}
    for entry in wanted:
        name = _object(entry, "an output").get("name")
        if not isinstance(name, str):
            raise InvalidRequest(f'an output\'s "name": expected a string; got {shorten(name)}')
        parameters = _parameters(entry, f"output {name[:60]!r}")
        found[name] = _flag(parameters, "binary_data")
    return found


def _object(content: Any, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InvalidRequest(f"{what}: expected an object; got {shorten(content)}")
    return content


def _parameters(content: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Those that nobody knows are nobody's business, but who asks for an extension must not believe to have it."""
    parameters = content.get("parameters")
    found = {} if parameters is None else _object(parameters, f"{what}: parameters")
    require_offered(found, what)
    return found


def require_offered(parameters: Mapping[str, Any], what: str) -> None:
    """Raises InvalidRequest where `parameters` ask for an extension that is not there."""
    for name in _NOT_OFFERED:
        if parameters.get(name):
            raise InvalidRequest(f"{what}: the extension of {name!r} is not offered")


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name}: expected true or false; got {shorten(value)}")
    return value


def text_in(parameters: Mapping[str, Any], name: str) -> str | None:
    """Raises InvalidRequest where it is there and no text."""
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name}: expected a string; got {shorten(value)}")
    return value


def timeout_in(parameters: Mapping[str, Any]) -> float | None:
    """The longest that the caller waits, in seconds; it is sent in microseconds, and 0 is as long as it takes."""
    microseconds = parameters.get("timeout")
    if microseconds is None or microseconds == 0:
        return None
    if type(microseconds) is not int or not 0 < microseconds < 2**53:
        raise InvalidRequest(f"timeout: expected whole microseconds; got {shorten(microseconds)}")
    return microseconds / 1e6
