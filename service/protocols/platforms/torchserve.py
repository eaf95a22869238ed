"""TorchServe's inference API, for models that take tables.

    [[41, "Graz"], [23, "Linz"]]  or  [{"age": 41, "city": "Graz"}, …]      → [prediction, …]
    {"data": …}  or  {"body": …}, around one of them or around a body of Tandem's own
    a body of Tandem's own: a record, {"instances": …}, {"columns": …}
    CSV and the other forms of `columnar/formats.py`, where Content-Type says so

The reply is a list with one prediction per row, as TorchServe's batch handlers answer, of several `outputs` with one
object per row. NaN and infinity leave as null.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import orjson

from service.core import errors
from service.core.contracts import Server
from service.core.errors import TandemError
from service.core.futures import then
from service.core.messages import InferRequest, Target
from service.core.names import parse_version
from service.core.signature import Signature
from service.protocols.columnar.formats import form_of
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.native import Exchange, query_outputs
from service.protocols.ping import PING
from service.protocols.platforms.predictions import predictions_of
from service.protocols.predict import require_json
from service.protocols.route import Dialect, Route, Scope
from service.protocols.status import refusal_of

# TorchServe's exceptions by our errors, the most specific first, with its status where that is another than ours.
EXCEPTIONS: Final[tuple[tuple[type[TandemError], str, int | None], ...]] = (
    (errors.UnknownModel, "ModelNotFoundException", None),
    (errors.UnknownVersion, "ModelVersionNotFoundException", None),
    (errors.UnknownRoute, "ResourceNotFoundException", None),
    (errors.MethodNotAllowed, "MethodNotAllowedException", None),
    (errors.NotAllowed, "MethodNotAllowedException", None),
    (errors.Unauthenticated, "InvalidKeyException", None),
    (errors.WrongHost, "BadRequestException", None),
    (errors.RateLimited, "ServiceUnavailableException", None),
    (errors.AlreadyLoaded, "ConflictStatusException", None),
    (errors.RequestTooLarge, "BadRequestException", None),
    (errors.RequestError, "BadRequestException", 400),
    (errors.Unavailable, "ServiceUnavailableException", None),
    (errors.DeadlinePassed, "RequestTimeoutException", 408),
)

# What says that a body is bytes and nothing else; `curl -T` says nothing at all.
_BYTES: Final = ("", "application/octet-stream")
# What TorchServe calls the whole body, when it hands it to a handler.
_WRAPPERS: Final = ("data", "body")


def problem(error: BaseException, request_id: str) -> HttpReply:
    """`{"code": …, "type": …, "message": …}`, where the type is the exception that TorchServe would have raised."""
    refusal = refusal_of(error)
    kind, status = next(
        ((kind, status) for known, kind, status in EXCEPTIONS if isinstance(refusal.error, known)),
        ("InternalServerException", None),
    )
    code = status or refusal.status
    content = {"code": code, "type": kind, "message": str(refusal.error)}
    return HttpReply(code, orjson.dumps(content), headers=refusal.headers)


TORCHSERVE: Final = Dialect("torchserve", problem, "/predictions/")


class Prediction(Exchange):
    """One request: rows as TorchServe's clients send them, or as Tandem's own protocol has them."""

    def build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        return super().build(_as_native(content, signature), signature, exact)


def predict(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    answer = server.infer(target_of(http), _reader(http), http.deadline, may_block=http.may_block)
    return then(answer, lambda reply: json_reply(predictions_of(reply)))


def _reader(http: HttpRequest) -> Callable[[Signature], InferRequest]:
    """What reads the body: as JSON, or as the form that its type names."""
    content_type, outputs = http.headers.get("content-type", ""), http.query.get("outputs")
    if (found := form_of(content_type)) is None:
        if content_type not in _BYTES:
            require_json(http)
        return Prediction(http.body, outputs).read
    form, about = found
    return lambda signature: InferRequest(
        form.read(http.body, signature, about.parameters, http.max_bytes), query_outputs(outputs, signature)
    )


def target_of(http: HttpRequest) -> Target:
    return Target(http.path_params["name"], version_of(http))


def version_of(http: HttpRequest) -> int | None:
    """TorchServe's versions have a fraction: 2.0 is version 2. What is no version is 0, which no model has."""
    text = http.path_params.get("version")
    return None if text is None else parse_version(text.removesuffix(".0")) or 0


def _as_native(content: Any, signature: Signature) -> Any:
    """Unwrapped, where the wrapper is no column of the model; rows are instances."""
    if isinstance(content, dict) and len(content) == 1:
        ((key, value),) = content.items()
        if key in _WRAPPERS and key not in signature.names:
            content = value
    return {"instances": content} if isinstance(content, list) else content


ROUTES: Final = (
    PING,
    *(
        Route(method, path, predict, Scope.PREDICT, "Ask a model", TORCHSERVE)
        for path in ("/predictions/{name}", "/predictions/{name}/{version}")
        for method in ("POST", "PUT", "GET")
    ),
)
