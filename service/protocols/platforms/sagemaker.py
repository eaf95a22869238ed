"""What SageMaker asks of a container: POST /invocations, and POST /models/{name}/invoke where it holds several models.

    [[41, "Graz"], …], [{"age": 41}, …]              → [prediction, …]
    {"instances": [{"features": [41, "Graz"]}, …]}   → {"predictions": […]}
    the native forms (`native.py`)                   → {"predictions": […]}
    text/csv, by default without a header; application/jsonlines; application/x-npy

A list of values is one row, as in AWS's own containers, or of a model of one column a value per row. `Accept`
chooses the form of the reply; JSON is the default, whatever the request was. NaN may be written as a word. The
platform passes on no query, so that `outputs=predict_proba` in X-Amzn-SageMaker-Custom-Attributes chooses what is
computed, beside `outputs` in a JSON object.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from service.core.contracts import Server
from service.core.errors import (
    NotAcceptable,
    UnreadableRequest,
    UnsupportedMediaType,
    shorten,
)
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.signature import Signature
from service.core.table import Table
from service.protocols.columnar.npy import read_npy, write_npy
from service.protocols.columnar.text import csv_rows, decode_cells, parse_lines, write_csv, write_lines
from service.protocols.http import JSON, HttpReply, HttpRequest, json_reply
from service.protocols.media import media_type, preferred
from service.protocols.native import Exchange, choose_outputs, decode_instances
from service.protocols.ping import PING
from service.protocols.platforms.predictions import asked_outputs, predictions_of, problem, read_rows
from service.protocols.route import Dialect, Route, Scope

SAGEMAKER: Final = Dialect("sagemaker", problem)

CSV: Final = "text/csv"
NPY: Final = "application/x-npy"
LINES: Final = ("application/jsonlines", "application/x-jsonlines")
TYPES: Final = (JSON, CSV, *LINES, NPY)

# Requests that wait for a model are computed together: some more than cores keep it busy.
CONCURRENT: Final = 8
TARGET_MODEL: Final = "x-amzn-sagemaker-target-model"


class Invocation:
    """One request to a model, and the form of its reply."""

    def __init__(self, http: HttpRequest) -> None:
        self._body, self._max_bytes = http.body, http.max_bytes
        self._media = media_type(http.headers.get("content-type") or JSON)
        self._accept = http.headers.get("accept", "")
        self._asked = asked_outputs(http)
        self._is_list = False

    def read(self, signature: Signature) -> InferRequest:
        """Raises UnreadableRequest, UnsupportedMediaType, NotAcceptable, InvalidRequest, InvalidRows."""
        self._reply_type()
        kind, parameters = self._media
        if not self._media.is_utf8:
            raise UnsupportedMediaType(f"the body must be UTF-8; got charset {shorten(parameters['charset'])}")
        if kind == JSON:
            return read_rows(
                self._body, self._asked, signature, lambda content, exact: self.build(content, signature, exact)
            )
        if kind == CSV:
            rows = decode_csv(csv_rows(self._body), parameters.get("header"), signature)
        elif kind in LINES:
            rows = parse_lines(self._body, lambda lines, exact: _decode_lines(lines, signature, exact))
        elif kind == NPY:
            rows = read_npy(self._body, signature, parameters, self._max_bytes)
        else:
            raise UnsupportedMediaType(f"expected {', '.join(TYPES)}; got {shorten(kind)}")
        self._is_list = True
        return InferRequest(rows, choose_outputs(self._asked, signature))

    def build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        """The request that a parsed body is. Raises NotAcceptable, InvalidRequest, InvalidRows."""
        self._reply_type()
        self._is_list = isinstance(content, list)
        if isinstance(content, list):
            content = {"instances": _rows(content, signature)}
        elif isinstance(content, dict) and isinstance(content.get("instances"), list):
            content = content | {"instances": _rows(content["instances"], signature)}
        outputs = None if self._asked is None else ",".join(self._asked)
        return Exchange(b"", outputs).build(content, signature, exact)

    def write(self, reply: InferReply) -> HttpReply:
        kind = self._reply_type()
        if kind == JSON:
            predictions = predictions_of(reply)
            return json_reply(predictions if self._is_list else {"predictions": predictions})
        write = write_csv_rows if kind == CSV else write_npy if kind == NPY else write_lines
        return HttpReply(200, write(reply), f"{kind}; charset=utf-8" if kind == CSV else kind)

    def wants_json(self) -> bool:
        """Whether Accept is content with JSON, or with nothing that there is."""
        return preferred(self._accept, TYPES) in (JSON, None)

    def _reply_type(self) -> str:
        kind = preferred(self._accept, TYPES)
        if kind is None:
            raise NotAcceptable(f"answers are {', '.join(TYPES)}; Accept is {shorten(self._accept)}")
        return kind


def invoke(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    invocation = Invocation(http)
    answer = server.infer(target_of(http), invocation.read, http.deadline, may_block=http.may_block)
    return then(answer, invocation.write)


def target_of(http: HttpRequest) -> Target:
    """The model of the path, or the archive that the header names, or else the default one."""
    archive = http.headers.get(TARGET_MODEL, "").removeprefix("/").removesuffix(".tar.gz")
    return Target(http.path_params.get("name") or archive or None)


def execution_parameters(server: Server, http: HttpRequest) -> HttpReply:
    """What batch transform asks first: how many requests at once, and how large, where the job does not say."""
    return json_reply(
        {
            "MaxConcurrentTransforms": CONCURRENT,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": max(1, http.max_bytes // 2**20),  # 0 would mean without limit
        }
    )


ROUTES: Final = (
    PING,
    Route("POST", "/invocations", invoke, Scope.PREDICT, "Ask a model, as SageMaker does", SAGEMAKER),
    Route("GET", "/execution-parameters", execution_parameters, Scope.PREDICT, "How to send a batch", SAGEMAKER),
    Route("POST", "/models/{name}/invoke", invoke, Scope.PREDICT, "Ask one of several models", SAGEMAKER),
)


# -- rows ----------------------------------------------------------------------------------------


def has_features(rows: Any, signature: Signature) -> bool:
    """Whether `rows` are `{"features": […]}` each, as AWS's built-in algorithms have them."""
    return (
        isinstance(rows, list)
        and "features" not in signature.names
        and all(isinstance(row, dict) and row.keys() == {"features"} for row in rows)
    )


def _decode_lines(lines: list[Any], signature: Signature, exact: bool) -> Table:
    return decode_instances(_unwrapped(lines, signature), signature, exact=exact)


def _unwrapped(rows: list[Any], signature: Signature) -> list[Any]:
    return [row["features"] for row in rows] if has_features(rows, signature) else rows


def _rows(rows: list[Any], signature: Signature) -> list[Any]:
    """Rows as the native protocol has them: a list of lists, or of objects."""
    rows = _unwrapped(rows, signature)
    if not rows or {dict, list} & set(map(type, rows)):
        return rows
    return [[value] for value in rows] if len(signature.columns) == 1 else [rows]


def decode_csv(lines: list[list[str]], header: str | None, signature: Signature) -> Table:
    """Rows in the order of the columns; under a header, where the first line is just their names.

    `header` is the parameter of the media type (RFC 4180): "present", in any order then, or "absent".
    """
    if not lines:
        raise UnreadableRequest("the body is empty; CSV was expected")
    if header == "present":
        return decode_cells(lines[0], lines[1:], signature)
    is_named = header != "absent" and lines[0] == list(signature.names)
    return decode_cells(signature.names, lines[is_named:], signature)


def write_csv_rows(reply: InferReply) -> bytes:
    """CSV without a header."""
    return write_csv(reply, header=False)
