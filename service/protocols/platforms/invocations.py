"""POST /invocations where both MLflow's and SageMaker's clients are welcome: whose request it is shows in its body.

A JSON object with one of MLflow's keys is MLflow's, and so is CSV under a header that names the columns. All else
is SageMaker's. Both answer `{"instances": …}` alike, but for an Accept of other forms than JSON, which MLflow lacks.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Final

from service.core.contracts import Server
from service.core.futures import then
from service.core.messages import InferReply, InferRequest, Target
from service.core.signature import Signature
from service.protocols.http import JSON, HttpReply, HttpRequest
from service.protocols.media import media_type
from service.protocols.platforms import mlflow, sagemaker
from service.protocols.platforms.predictions import asked_outputs, read_rows
from service.protocols.route import Route, Scope


class Either:
    """One request of either dialect."""

    def __init__(self, http: HttpRequest) -> None:
        self._http = http
        self._mlflow = mlflow.Scoring(http)
        self._sagemaker = sagemaker.Invocation(http)
        self._wants_json = self._sagemaker.wants_json()
        self._chosen: mlflow.Scoring | sagemaker.Invocation = self._mlflow if self._wants_json else self._sagemaker

    def read(self, signature: Signature) -> InferRequest:
        """Raises whatever the dialect does that the request is of."""
        content_type, body = self._http.headers.get("content-type") or JSON, self._http.body
        kind, parameters = media_type(content_type)
        if kind == JSON:
            mlflow.require_media_type(content_type)
            asked = asked_outputs(self._http)
            return read_rows(body, asked, signature, lambda content, exact: self._build(content, signature, exact))
        if kind == mlflow.CSV and parameters.keys() <= {"charset"} and mlflow.has_header(body, signature):
            return self._as_mlflow().read(signature)
        return self._as_sagemaker().read(signature)

    def _build(self, content: Any, signature: Signature, exact: bool) -> InferRequest:
        if (
            isinstance(content, dict)
            and not content.keys().isdisjoint(mlflow.FORMATS)
            and "outputs" not in content  # a word of the native forms, which MLflow would ignore
            and not sagemaker.has_features(content.get("instances"), signature)
            and (self._wants_json or "instances" not in content)
        ):
            return self._as_mlflow().build(content, signature, exact)
        return self._as_sagemaker().build(content, signature, exact)

    def _as_mlflow(self) -> mlflow.Scoring:
        self._chosen = self._mlflow
        return self._mlflow

    def _as_sagemaker(self) -> sagemaker.Invocation:
        self._http.problem = sagemaker.SAGEMAKER.problem
        self._chosen = self._sagemaker
        return self._sagemaker

    def write(self, reply: InferReply) -> HttpReply:
        return self._chosen.write(reply)


def invoke(server: Server, http: HttpRequest) -> Future[HttpReply]:
    """Decode, compute, and encode when the answer is there."""
    either = Either(http)
    answer = server.infer(target_of(http), either.read, http.deadline, may_block=http.may_block)
    return then(answer, either.write)


def target_of(http: HttpRequest) -> Target:
    """The model of MLflow's query, or else of SageMaker's header."""
    return mlflow.target_of(http) if "model" in http.query else sagemaker.target_of(http)


ROUTES: Final = (
    Route("POST", "/invocations", invoke, Scope.PREDICT, "Ask a model, as MLflow and SageMaker do", mlflow.MLFLOW),
)
