from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Union

import pytest
from pydantic import TypeAdapter

from service.core.contracts import Served
from service.core.signature import Column, Container
from service.protocols.columnar.formats import FORMS
from service.protocols.contract import request_types
from service.protocols.openapi import document
from service.protocols.routes import table
from service.protocols.streaming.routes import STREAMS
from tests.service.protocols.fake_server import AGE, CITY, EXAMPLE, SHOP, signature_of

SERVED = Served("shop", 3, SHOP, EXAMPLE)
TEXTS = Served(
    "texts.v-2",
    1,
    signature_of(Column(name="text", dtype="string"), container=Container.SERIES),
    {"text": "hello"},
)
WORDED = Served("worded", 1, signature_of(AGE, Column(name="outputs", dtype="bool")), {"age": 1, "outputs": True})
ONE, MANY = [SERVED], [SERVED, TEXTS, WORDED]


def operations(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in content["paths"].items():
        for operation in methods.values():
            yield path, operation


def references(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield content["$ref"]
        for value in content.values():
            yield from references(value)
    elif isinstance(content, list):
        for value in content:
            yield from references(value)


served = pytest.mark.parametrize("served", [[], ONE, MANY], ids=["no model", "one model", "many models"])


@served
def test_rows_and_answers_come_in_every_form(served: list[Served]) -> None:
    kinds = {"application/json", *(form.media_types[0] for form in FORMS)}

    for path, operation in operations(document(served, table())):
        if path.endswith("predict"):
            assert set(operation["requestBody"]["content"]) == kinds
            assert set(operation["responses"]["200"]["content"]) == kinds


@served
def test_streams_are_answered_in_their_own_form(served: list[Served]) -> None:
    for path, operation in operations(document(served, table())):
        if path.endswith("predict/stream"):
            assert set(operation["requestBody"]["content"]) == set(STREAMS)
            assert set(operation["responses"]["200"]["content"]) == set(STREAMS)


@served
def test_document_is_openapi_3_1_and_names_every_route(served: list[Served]) -> None:
    content = document(served, table())

    assert content["openapi"] == "3.1.0"
    for route in table():
        if not route.path.startswith("/docs"):
            assert content["paths"][route.path][route.method.lower()]["summary"] == route.summary


@served
def test_every_reference_leads_to_a_schema(served: list[Served]) -> None:
    content = document(served, table())

    found = {reference.removeprefix("#/components/schemas/") for reference in references(content)}

    assert found == set(content["components"]["schemas"])


@served
def test_operations_have_names_of_their_own(served: list[Served]) -> None:
    names = [operation["operationId"] for _, operation in operations(document(served, table()))]

    assert len(names) == len(set(names))


@served
def test_parameters_are_those_of_the_path(served: list[Served]) -> None:
    for path, operation in operations(document(served, table())):
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}

        assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == named


@served
def test_every_operation_says_how_it_answers(served: list[Served]) -> None:
    for _, operation in operations(document(served, table())):
        assert operation["responses"].keys() & {"200", "101"}
        assert ("requestBody" in operation) == ("415" in operation["responses"])


def test_model_has_a_path_with_its_columns_types_and_categories() -> None:
    content = document(MANY, table())

    operation = content["paths"]["/models/shop/predict"]["post"]
    first = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"][0]["$ref"]
    properties = content["components"]["schemas"][first.rpartition("/")[2]]["properties"]
    assert properties["age"]["type"] == "integer"
    assert properties["city"]["anyOf"][0]["x-known-categories"] == CITY.categories
    assert operation["parameters"][0]["schema"]["items"]["enum"] == ["predict", "predict_proba"]


@pytest.mark.parametrize("model", MANY, ids=lambda model: model.model)
def test_every_example_is_a_request_that_the_model_takes(model: Served) -> None:
    operation = document(MANY, table())["paths"][f"/models/{model.model}/predict"]["post"]
    takes: Any = Union[tuple(request_types(model.model, model.signature))]

    examples = operation["requestBody"]["content"]["application/json"]["examples"]

    assert {"instances", "columns"} <= set(examples)
    for example in examples.values():
        TypeAdapter(takes).validate_python(example["value"])


def test_examples_are_the_golden_row_in_every_form() -> None:
    operation = document(ONE, table())["paths"]["/models/shop/predict"]["post"]

    examples = operation["requestBody"]["content"]["application/json"]["examples"]

    assert {name: example["value"] for name, example in examples.items()} == {
        "record": {"age": 41, "city": "Graz"},
        "instances": {"instances": [[41, "Graz"]]},
        "columns": {"columns": {"age": [41], "city": ["Graz"]}},
    }


def test_default_route_is_that_of_the_only_model() -> None:
    one, many = document(ONE, table())["paths"], document(MANY, table())["paths"]

    assert one["/predict"]["post"]["requestBody"] == one["/models/shop/predict"]["post"]["requestBody"]
    assert many["/predict"]["post"]["requestBody"] != many["/models/shop/predict"]["post"]["requestBody"]


def test_replies_show_no_null_where_an_output_is_simply_absent() -> None:
    schemas = document(MANY, table())["components"]["schemas"]

    replies = [schema for name, schema in schemas.items() if name.endswith(("-Prediction", "-Predictions"))]

    assert replies
    assert not any("default" in field for reply in replies for field in reply["properties"].values())
