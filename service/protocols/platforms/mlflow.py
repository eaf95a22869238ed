"""MLflow's scoring protocol: POST /invocations, as `mlflow models serve` answers it.

    {"dataframe_split": {"columns": ["age", "city"], "data": [[41, "Graz"]]}}    → {"predictions": […]}
    {"dataframe_records": [{"age": 41, "city": "Graz"}]}
    {"instances": [[41, "Graz"]]}, or objects
    {"inputs": {"age": [41], "city": ["Graz"]}}, or a list as in instances
    text/csv with a header

As there, columns go by their names in any order, or by place where a model was fitted without names; those that the
model does not know are dropped, `index`, unknown keys and unknown parameters are ignored, and NaN may be written as
a word. Values are as strict as everywhere in Tandem. `{"params": {"outputs": ["predict_proba"]}}`, or `?outputs=`
beside CSV, chooses what is computed. NaN and infinity leave as null, which MLflow's client reads.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Any, Final

import orjson

from service import __version__
from service.core.contracts import Server
from service.core.errors import (
    InvalidRequest,
    UnreadableRequest,
    UnsupportedMediaType,
    shorten,
)
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.names import parse_version
from service.core.signature import Container, Signature
from service.core.table import Table
from service.protocols.columnar.text import csv_rows, decode_cells
from service.protocols.http import JSON, HttpReply, HttpRequest, json_reply
from service.protocols.media import media_type
from service.protocols.native import (
    as_column,
    choose_outputs,
    decode_columns,
    decode_instances,
    decode_records,
    known_columns,
)
from service.protocols.ping import PING, ping
from service.protocols.platforms.predictions import asked_outputs, decode_rows, outputs_in, predictions_of, read_rows
from service.protocols.route import Dialect, Route, Scope
from service.protocols.status import refusal_of

FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
CSV: Final = "text/csv"
PLAIN: Final = "text/plain; charset=utf-8"

# Names of MLflow's own errors, by the status that Tandem gives an error. All that is wrong with a request is 400.
_CODES: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def problem(error: BaseException, request_id: str) -> HttpReply:
    """`{"error_code": …, "message": …}`; of a media type that is not read, or a deadline, the bare text."""
    refusal = refusal_of(error)
    if refusal.status in (415, 504):
        return HttpReply(refusal.status, str(refusal.error).encode(), PLAIN, refusal.headers)
    content = {"error_code": _CODES.get(refusal.status, "BAD_REQUEST"), "message": str(refusal.error)}
    status = 400 if refusal.status == 422 else refusal.status
    return HttpReply(status, orjson.dumps(content), headers=refusal.headers)


MLFLOW: Final = Dialect("mlflow", problem)


class Scoring:
    """One request to score."""

    def __init__(self, http: HttpRequest) -> None:
        self._body = http.body
        self._content_type = http.headers.get("content-type", "")
        self._asked = asked_outputs(http)

    def read(self, signature: Signature) -> InferRequest:
        """Raises UnreadableRequest, UnsupportedMediaType, InvalidRequest, InvalidRows."""
        if require_media_type(self._content_type) == CSV:
            return InferRequest(decode_csv(csv_rows(self._body), signature), choose_outputs(self._asked, signature))
        return read_rows(
            self._body, self._asked, signature, lambda content, exact: self.build(content, signature, exact)
        )

    def build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        """The request that a parsed body is. Raises InvalidRequest, InvalidRows."""
        name = _format_of(content)
        outputs = outputs_in(content.get("params"), "params", self._asked, signature)
        value = content[name]
        if name == "dataframe_split":
            return InferRequest(_split(value, signature, exact), outputs)
        if name == "inputs" and isinstance(value, dict):
            return InferRequest(_tensors(value, signature, exact), outputs)
        return InferRequest(_rows(value, name, signature, exact), outputs)

    def write(self, reply: InferReply) -> HttpReply:
        return json_reply({"predictions": predictions_of(reply)})


def score(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    scoring = Scoring(http)
    answer = server.infer(target_of(http), scoring.read, http.deadline, may_block=http.may_block)
    return then(answer, scoring.write)


def target_of(http: HttpRequest) -> Target:
    """The default model, or the one that `?model=` names, of the version that `?version=` does."""
    version = http.query.get("version")
    return Target(http.query.get("model"), None if version is None else parse_version(version) or 0)


def version(server: Server, http: HttpRequest) -> HttpReply:
    return HttpReply(200, __version__.encode(), PLAIN)


def require_media_type(content_type: str) -> str:
    """The media type, JSON or CSV.

    Raises:
        UnsupportedMediaType: another one, not UTF-8, or with parameters: so MLflow before 2.0 named its formats.
    """
    kind, parameters = given = media_type(content_type)
    if kind not in (JSON, CSV):
        raise UnsupportedMediaType(f"expected {JSON} or {CSV}; got {shorten(content_type)}")
    if unknown := parameters.keys() - {"charset"}:
        raise UnsupportedMediaType(f"unknown parameter of the content type: {shorten(min(unknown))}")
    if not given.is_utf8:
        raise UnsupportedMediaType(f"the body must be UTF-8; got charset {shorten(parameters['charset'])}")
    return kind


ROUTES: Final = (
    PING,
    Route("GET", "/health", ping, Scope.PUBLIC, "Are the models loaded?", MLFLOW),
    Route("GET", "/version", version, Scope.PREDICT, "The version of this service", MLFLOW),
    Route("POST", "/invocations", score, Scope.PREDICT, "Ask a model, as MLflow does", MLFLOW),
)


# -- rows ----------------------------------------------------------------------------------------


def _format_of(content: Any) -> str:
    """The key under which the rows are. Raises InvalidRequest."""
    if not isinstance(content, dict):
        raise InvalidRequest(f"the body is {shorten(content)}; expected an object with one of {', '.join(FORMATS)}")
    if "signature_name" in content:
        raise InvalidRequest('"signature_name" is not supported; "params": {"outputs": […]} chooses what is computed')
    formats = [name for name in FORMATS if name in content]
    if len(formats) != 1:
        got = " and ".join(formats) or ", ".join(map(shorten, list(content)[:5])) or "none"
        raise InvalidRequest(f"expected exactly one of {', '.join(FORMATS)}; got {got}")
    return formats[0]


def _rows(rows: Any, key: str, signature: Signature, exact: bool) -> Table:
    """A list of rows, each a list, an object or, of one column, a value."""
    if isinstance(rows, list) and rows and set(map(type, rows)) == {dict}:
        return _records(rows, signature, exact)
    return decode_rows(rows, key, signature, exact=exact)


def _records(records: list[dict[str, Any]], signature: Signature, exact: bool) -> Table:
    names = list(dict.fromkeys(chain.from_iterable(records)))
    columns = dict(zip(names, columns_named(names, signature), strict=True))
    if any(name != column for name, column in columns.items()):
        records = [{c: value for name, value in r.items() if (c := columns[name]) is not None} for r in records]
    return decode_records(records, signature, exact=exact)


def _split(content: Any, signature: Signature, exact: bool) -> Table:
    """`{"columns": […], "data": [[…], …]}`; without columns, the rows are in the order of the model's."""
    if not isinstance(content, dict) or "data" not in content or content.keys() - {"columns", "data", "index"}:
        got = shorten(content) if not isinstance(content, dict) else ", ".join(map(shorten, list(content)[:5]))
        raise InvalidRequest(f'"dataframe_split": expected an object of "columns" and "data"; got {got}')
    rows, names = content["data"], content.get("columns")
    if names is None:
        return _rows(rows, "data", signature, exact)
    if not isinstance(names, list):
        raise InvalidRequest(f'"columns": expected a list of names; got {shorten(names)}')
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f'"data": expected a list of at least one row; got {shorten(rows)}')
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            raise InvalidRequest(f'"data", row {place}: expected a list of {len(names)} values; got {shorten(row)}')
    columns = columns_named(names, signature)
    if columns == list(signature.names):
        return decode_instances(rows, signature, exact=exact)
    by_name = {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True) if name}
    return decode_columns(by_name, signature, exact=exact)


def _tensors(inputs: dict[str, Any], signature: Signature, exact: bool) -> Table:
    """A list of values, or of lists of one, per column; or one row, a value each; or all rows under one name."""
    if len(inputs) == 1 and not inputs.keys() & set(signature.names):
        (rows,) = inputs.values()
        return _rows(rows, "inputs", signature, exact)
    if not any(isinstance(values, list) for values in inputs.values()):
        return _records([inputs], signature, exact)
    columns = columns_named(list(inputs), signature)
    by_name = {
        name: as_column(values) for name, values in zip(columns, inputs.values(), strict=True) if name is not None
    }
    return decode_columns(by_name, signature, exact=exact)


def decode_csv(lines: list[list[str]], signature: Signature) -> Table:
    """The cells of each line, the first of them the header."""
    if not lines:
        raise UnreadableRequest("the body is empty; CSV with a header was expected")
    header, *rows = lines
    columns = columns_named(header, signature)
    if None not in columns or any(len(row) != len(header) for row in rows):
        return decode_cells([column or name for name, column in zip(header, columns, strict=True)], rows, signature)
    kept = [place for place, column in enumerate(columns) if column is not None]
    names = [column for column in columns if column is not None]
    return decode_cells(names, [[row[place] for place in kept] for row in rows], signature)


def has_header(body: bytes, signature: Signature) -> bool:
    """Whether the first line of CSV names the columns, at least those that must be there."""
    try:
        first = next(csv.reader(io.StringIO(body.decode("utf-8-sig", errors="replace"), newline="")), [])
    except csv.Error:
        return False
    required = {column.name for column in signature.columns if not column.nullable}
    return required <= set(first) and not set(first).isdisjoint(signature.names)


def columns_named(names: Sequence[Any], signature: Signature) -> list[str | None]:
    """The column that each name means, None for those to drop.

    Where a model was fitted without names, other names than its own mean the columns in their order.

    Raises:
        InvalidRequest: a column is named twice, or none is.
    """
    known = frozenset(signature.names)
    found = [name if name in known else None for name in map(str, names)]
    columns = [name for name in found if name is not None]
    if not columns and signature.container is not Container.FRAME and len(names) == len(known):
        return list(signature.names)
    if not columns:
        got = ", ".join(shorten(name) for name in names[:5]) or "none"
        raise InvalidRequest(f"no name is {known_columns(signature)}; got {got}")
    if len(set(columns)) < len(columns):
        raise InvalidRequest(f"column {next(name for name in columns if columns.count(name) > 1)!r} is there twice")
    return found
