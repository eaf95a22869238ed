"""The OpenAPI 3.1 document of the models that are loaded: their columns, types, categories, an example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__
from service.core.contracts import Served
from service.protocols.columnar.formats import FORMS
from service.protocols.contract import reply_types, request_types
from service.protocols.http import PROBLEM
from service.protocols.native import has_record_form
from service.protocols.route import NATIVE, Route
from service.protocols.status import ProblemDetails
from service.protocols.streaming.routes import STREAMS

_REF: Final = "#/components/schemas/{model}"
# Whatever is asked, where the service knows its callers.
_NOT_ADMITTED: Final = {
    "401": "No key came, or none that is known",
    "403": "The key is not for that",
    "421": "The service does not answer for this Host",
    "429": "This caller asks too often",
}
_REFUSALS: Final = {
    **_NOT_ADMITTED,
    "400": "The body is not what its Content-Type says",
    "404": "Unknown model, version or label",
    "406": "Accept names no form that answers have",
    "413": "The body is too large",
    "415": "The body is of a type that is not read",
    "422": "Readable, but wrong for this model: each error names row, column, what was expected and what came",
    "503": "Models are being loaded, or the service is stopping",
    "504": "No answer within the deadline",
}
_FIGURES: Final = {"description": "Text, or OpenMetrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
# Tables and arrays, whose columns are those of the JSON; what they look like, their own formats say.
_COLUMNAR: Final[dict[str, Any]] = {form.media_types[0]: {} for form in FORMS}
_STREAMED: Final[dict[str, Any]] = {kind: {} for kind in STREAMS}
_UPGRADES: Final[dict[str, Any]] = {
    "101": {"description": "A WebSocket begins: each message is a body of /models/{name}/predict with an id beside it"},
    "426": {"description": "The request asks for no WebSocket"},
    "501": {"description": "This web server speaks none"},
}
_ABOUT: Final = (
    "Models fitted with scikit-learn. Ask with one record, or with many rows as instances or columns; "
    "choose what is computed with outputs."
)


def document(served: Sequence[Served], routes: Sequence[Route]) -> dict[str, Any]:
    """The document: every route of the table, and for each model its own predict path with its own schema."""
    types: list[type[BaseModel]] = [ProblemDetails]
    forms: dict[str, tuple[list[type[BaseModel]], list[type[BaseModel]]]] = {}
    for model in served:
        requests, replies = (
            request_types(model.model, model.signature),
            reply_types(model.model, model.signature),
        )
        forms[model.model] = requests, replies
        types += [*requests, *replies]
    references, definitions = models_json_schema([(t, "validation") for t in types], ref_template=_REF)

    def any_of(some: Sequence[type[BaseModel]]) -> dict[str, Any]:
        return {"anyOf": [references[t, "validation"] for t in some]}

    paths: dict[str, Any] = {}
    for model in served:
        requests, replies = forms[model.model]
        operation = _predict(model, any_of(requests), any_of(replies))
        paths[f"/models/{model.model}/predict"] = {"post": operation}
    for route in routes:
        if route.path.startswith("/docs") or (route.path.endswith("/") and route.path != "/"):
            continue
        default = route.path == "/predict" and len(served) == 1
        operation = dict(paths[f"/models/{served[0].model}/predict"]["post"]) if default else _operation(route)
        operation |= {"operationId": _operation_id(route), "summary": route.summary}
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tandem", "version": __version__, "description": _ABOUT},
        "tags": [{"name": name} for name in dict.fromkeys(["models", "service", *_dialects(routes)])],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})},
    }


def _dialects(routes: Sequence[Route]) -> list[str]:
    return [route.dialect.name for route in routes if route.dialect is not NATIVE]


def _predict(model: Served, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    rows = [list(model.example.values())]
    record = {"record": {"summary": "One record", "value": model.example}}
    examples = {
        **(record if has_record_form(model.signature) else {}),
        "instances": {"summary": "Many rows", "value": {"instances": rows}},
        "columns": {"summary": "By column", "value": {"columns": {k: [v] for k, v in model.example.items()}}},
    }
    return {
        "operationId": f"predict_{model.model}",
        "summary": f"Ask {model.model} (version {model.version})",
        "tags": ["models"],
        "parameters": [_outputs_parameter(list(model.signature.output_names))],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": request, "examples": examples}, **_COLUMNAR},
        },
        "responses": {"200": _answer(reply), **_refusals(_REFUSALS)},
    }


def _operation(route: Route) -> dict[str, Any]:
    if route.dialect is not NATIVE:
        return _spoken(route)
    operation: dict[str, Any] = {
        "tags": ["models" if route.path.startswith(("/models", "/predict")) else "service"],
        "parameters": _path_parameters(route),
    }
    if route.reads_pieces:
        operation["parameters"].append(_outputs_parameter(None))
        operation["requestBody"] = {"required": True, "content": _STREAMED}
        answer = {"description": "An answer for each row, in the form of the rows", "content": _STREAMED}
        refusals = _refusals(_REFUSALS)
    elif route.method == "POST":
        operation["parameters"].append(_outputs_parameter(None))
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}, **_COLUMNAR},
        }
        answer, refusals = _answer({"type": "object"}), _refusals(_REFUSALS)
    else:
        answer = _content("The answer", {"type": "object"}) if route.path != "/metrics" else _FIGURES
        codes = [code for code in ("404", "503") if code in _expected_codes(route)]
        refusals = _refusals({code: _REFUSALS[code] for code in [*_NOT_ADMITTED, *codes]})
    operation["responses"] = {"200": answer, **refusals}
    if route.upgrades:  # what follows is nothing that this format could say
        operation["parameters"].append(_outputs_parameter(None))
        operation["responses"] = {**_UPGRADES, **refusals}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _spoken(route: Route) -> dict[str, Any]:
    """An operation of another dialect, whose own specification says what its bodies hold."""
    operation: dict[str, Any] = {"tags": [route.dialect.name], "parameters": _path_parameters(route)}
    if route.operation is not None:
        return {**operation, **route.operation}
    if route.method in ("POST", "PUT"):
        operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": {}}}}
    answers = {"200": "The answer", "default": "Why there is none, as this protocol says it"}
    operation["responses"] = {code: {"description": text} for code, text in answers.items()}
    return operation


def _expected_codes(route: Route) -> set[str]:
    if route.path == "/health/ready":
        return {"503"}
    return {"404", "503"} if "{" in route.path else set()


def _operation_id(route: Route) -> str:
    words = route.path.replace("{", "by_").replace("}", "").replace(".", "_").replace(":", "/").strip("/").split("/")
    return "_".join([route.method.lower(), *words])


def _outputs_parameter(names: list[str] | None) -> dict[str, Any]:
    items: dict[str, Any] = {"type": "string", **({"enum": names} if names else {})}
    return {
        "name": "outputs",
        "in": "query",
        "description": "Outputs to compute, separated by commas. `outputs` in the body comes first.",
        "schema": {"type": "array", "items": items, "minItems": 1},
        "style": "form",
        "explode": False,
    }


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    """A reply to rows: as JSON, or in the form that Accept asks for."""
    answer = _content("The answer", schema)
    answer["content"] |= _COLUMNAR
    return answer


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusals(codes: dict[str, str]) -> dict[str, Any]:
    problem = {PROBLEM: {"schema": {"$ref": _REF.format(model="ProblemDetails")}}}
    return {code: {"description": description, "content": problem} for code, description in codes.items()}
