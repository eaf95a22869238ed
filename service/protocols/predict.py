"""The prediction routes, in Tandem's own dialect: rows in JSON, or in one of the forms of `columnar/formats.py`."""

from __future__ import annotations

from concurrent.futures import Future

from service.core.contracts import Server
from service.core.errors import UnsupportedMediaType, shorten
from service.core.futures import then
from service.core.messages import InferRequest, Target
from service.core.names import parse_version
from service.core.signature import Signature
from service.protocols.columnar.formats import form_of, reply_type, write
from service.protocols.http import JSON, HttpReply, HttpRequest, json_reply
from service.protocols.media import ANY, media_type
from service.protocols.native import Exchange, query_outputs
from service.protocols.route import Route, Scope


def predict(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there. Who waits, and how, is the entry point's business."""
    content_type, accept = http.headers.get("content-type", ""), http.headers.get("accept", "")
    exchange = Exchange(http.body, http.query.get("outputs"))
    if content_type == JSON and accept in ANY:
        read, kind = exchange.read, JSON
    elif (found := form_of(content_type)) is not None:
        form, about = found
        kind = reply_type(accept, about.name)

        def read(signature: Signature) -> InferRequest:
            outputs = query_outputs(http.query.get("outputs"), signature)
            return InferRequest(form.read(http.body, signature, about.parameters, http.max_bytes), outputs)
    else:
        require_json(http)
        read, kind = exchange.read, reply_type(accept, JSON)
    answer = server.infer(target_of(http), read, http.deadline, may_block=http.may_block)
    if kind == JSON:
        return then(answer, lambda reply: json_reply(exchange.write(reply)))
    return then(answer, lambda reply: write(reply, kind))


def target_of(http: HttpRequest) -> Target:
    """The model, version and label that the path names."""
    params = http.path_params
    version = params.get("version")
    # Versions begin at 1: what is no number asks for version 0, and hears which ones there are.
    number = None if version is None else parse_version(version) or 0
    return Target(params.get("name"), number, params.get("label"))


def require_json(http: HttpRequest) -> None:
    """JSON is UTF-8 and says so, or says nothing. A browser's form can therefore never reach a model.

    Raises:
        UnsupportedMediaType: another type, or another charset.
    """
    header = http.headers.get("content-type", "")
    if header == JSON:
        return
    given = media_type(header)
    if given.name != JSON:
        raise UnsupportedMediaType(f"expected Content-Type: {JSON}, got {repr(header[:60]) if header else 'none'}")
    if not given.is_utf8:
        raise UnsupportedMediaType(f"JSON is UTF-8; got charset {shorten(given.parameters['charset'], 30)}")


ROUTES = (
    Route("POST", "/predict", predict, Scope.PREDICT, "Ask the default model"),
    Route("POST", "/models/{name}/predict", predict, Scope.PREDICT, "Ask the version of a model that is served"),
    Route(
        "POST",
        "/models/{name}/versions/{version}/predict",
        predict,
        Scope.PREDICT,
        "Ask one version of a model",
    ),
    Route(
        "POST",
        "/models/{name}/labels/{label}/predict",
        predict,
        Scope.PREDICT,
        "Ask the version that a label points at",
    ),
)
