"""The prediction routes, in Tandem's own dialect."""

from __future__ import annotations

from concurrent.futures import Future

from service.core.contracts import Server
from service.core.errors import UnsupportedMediaType
from service.core.futures import then
from service.core.messages import Target
from service.core.names import parse_version
from service.protocols.http import HttpReply, HttpRequest, json_reply
from service.protocols.native import Exchange
from service.protocols.route import Route, Scope


def predict(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there. Who waits, and how, is the entry point's business."""
    require_json(http)
    exchange = Exchange(http.body, http.query.get("outputs"))
    answer = server.infer(target_of(http), exchange.read, http.deadline, may_block=http.may_block)
    return then(answer, lambda reply: json_reply(exchange.write(reply)))


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
    given = http.headers.get("content-type", "")
    if given == "application/json":
        return
    kind, _, parameters = given.partition(";")
    if kind.strip().lower() != "application/json":
        raise UnsupportedMediaType(
            f"expected Content-Type: application/json, got {given[:60]!r}" if given else
            "expected Content-Type: application/json, got none"
        )  # fmt: skip
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise UnsupportedMediaType(f"JSON is UTF-8; got charset {charset[:30]!r}")


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
