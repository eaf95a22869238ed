"""What the dialects of hosting platforms have in common: rows in, and one prediction per row out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from service.core.errors import InvalidRequest, shorten
from service.core.messages import InferReply, InferRequest
from service.core.plain import plain
from service.core.signature import Signature
from service.core.table import Matrix, SparseRows, Table, Values
from service.protocols.http import HttpReply, HttpRequest
from service.protocols.json_body import read_json
from service.protocols.native import choose_outputs, decode_instances
from service.protocols.number_rows import read_number_rows
from service.protocols.status import refusal_of
from service.protocols.v2.tables import dense

ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"
_OUTPUTS: Final = re.compile(r"(?:^|[;\s])outputs=([\w,]+)", re.ASCII)


def problem(error: BaseException, request_id: str) -> HttpReply:
    """`{"error": …}`, for platforms that pass on whatever they get. What is wrong with the rows is 400."""
    refusal = refusal_of(error)
    status = 400 if refusal.status == 422 else refusal.status
    return HttpReply(status, orjson.dumps({"error": str(refusal.error)}), headers=refusal.headers)


def asked_outputs(http: HttpRequest) -> list[str] | None:
    """What `?outputs=` names, or `outputs=` in SageMaker's header of custom attributes: it passes on no query."""
    in_attributes = _OUTPUTS.search(http.headers.get(ATTRIBUTES, ""))
    asked = in_attributes[1] if in_attributes else http.query.get("outputs")
    return None if asked is None else asked.split(",")


def outputs_in(parameters: Any, key: str, asked: list[str] | None, signature: Signature) -> tuple[str, ...]:
    """What `{"outputs": […]}` under `key` of a body chooses, else what was asked for otherwise, or the default output.

    Other parameters mean nothing to a model.

    Raises:
        InvalidRequest: no object, or an output that this model does not offer.
    """
    if not isinstance(parameters, dict | None):
        raise InvalidRequest(f'"{key}": expected an object; got {shorten(parameters)}')
    wanted = None if parameters is None else parameters.get("outputs")
    return choose_outputs(asked if wanted is None else wanted, signature)


def read_rows(
    body: bytes, asked: list[str] | None, signature: Signature, build: Callable[[Any, bool], InferRequest]
) -> InferRequest:
    """`build` of a JSON body (`read_json`), in which NaN may be a word. `{"instances": …}` of numbers goes a short way.

    Raises:
        UnreadableRequest: not JSON. What `build` raises passes through.
    """
    found = read_number_rows(body, signature)
    if found is not None and found[1] is None:
        return InferRequest(Matrix(found[0]), choose_outputs(asked, signature))
    return read_json(body, build, allow_nan=True)


def decode_rows(rows: Any, key: str, signature: Signature, *, exact: bool = False) -> Table:
    """Rows as lists or as objects; of one column, the values alone will do. `key` is where they stood.

    Raises:
        InvalidRequest: no list of rows.
        InvalidRows: values that the columns do not take.
    """
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f'"{key}": expected a list of at least one row; got {shorten(rows)}')
    if len(signature.columns) == 1 and not {dict, list} & set(map(type, rows)):
        rows = [[value] for value in rows]
    return decode_instances(rows, signature, exact=exact)


def predictions_of(reply: InferReply) -> Any:
    """One value per row, as something orjson writes; of several outputs, one object per row.

    NaN and infinity become null.

    Raises:
        InvalidRequest: sparse rows that are too large to be spread out.
    """
    columns = {name: _by_row(values) for name, values in reply.outputs.items()}
    if len(columns) == 1:
        (only,) = columns.values()
        return only
    listed = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*listed, strict=True)]


def _by_row(values: Values) -> Any:
    return plain(dense(values) if isinstance(values, SparseRows) else values)[0]
