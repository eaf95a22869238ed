from __future__ import annotations

import json
import re
from typing import Any, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.core.errors import InvalidRequest
from service.core.messages import InferReply, InferRequest
from service.core.signature import Column, Container, Output, Signature
from service.core.table import SparseRows, Values, column_arrays
from service.protocols.contract import cell_type, reply_types, request_types
from service.protocols.http import json_reply
from service.protocols.native import Exchange
from service.protocols.values import Problems, accept_datetime, decode_column
from tests.service.protocols.fake_server import SHOP, signature_of
from tests.service.protocols.tables import OUTPUTS, bodies, cells, columns, signatures

ONE_OF_THEM: Any = Union


def by_contract(signature: Signature, body: bytes) -> Any:
    """The body as the contract reads it, or None where it refuses."""
    adapter: TypeAdapter[Any] = TypeAdapter(ONE_OF_THEM[tuple(request_types("shop", signature))])
    try:
        return adapter.validate_python(json.loads(body))
    except ValidationError:
        return None


def by_decoder(signature: Signature, body: bytes) -> InferRequest | None:
    try:
        return Exchange(body).read(signature)
    except InvalidRequest:
        return None


def values_of(content: Any, signature: Signature) -> list[list[Any]]:
    """What the contract read, by column, each value as the column's dtype has it."""
    fields = [f"column_{index}" for index in range(len(signature.columns))]
    if hasattr(content, "columns"):
        length = max(len(values) for field in fields if (values := getattr(content.columns, field)) is not None)
        by_column = [getattr(content.columns, field) or [None] * length for field in fields]
    else:
        rows = getattr(content, "instances", [content])
        cells = [[getattr(row, field) for field in fields] if isinstance(row, BaseModel) else row for row in rows]
        by_column = list(zip(*(cell if isinstance(cell, list | tuple) else [cell] for cell in cells), strict=True))
    pairs = zip(signature.columns, by_column, strict=True)
    return [[as_decoded(value, column) for value in values] for column, values in pairs]


def as_decoded(value: Any, column: Column) -> Any:
    if value is None:
        return None
    if column.dtype == "datetime":
        return accept_datetime(value, column)[1]
    return value if column.dtype in ("string", "bool") else np.dtype(column.dtype).type(value)


def decoded_values(request: InferRequest) -> list[list[Any]]:
    return [[None if value != value else value for value in array] for array in column_arrays(request.rows)]


@given(data=st.data(), signature=signatures())
def test_contract_accepts_exactly_what_is_decoded_and_to_the_same_values(
    data: st.DataObject, signature: Signature
) -> None:
    body = json.dumps(data.draw(bodies(signature))).encode()

    published, decoded = by_contract(signature, body), by_decoder(signature, body)

    assert (published is None) == (decoded is None)
    if decoded is not None:
        assert values_of(published, signature) == decoded_values(decoded)
        wanted = published.outputs or [signature.default_output]
        assert decoded.outputs == tuple(dict.fromkeys(wanted))


@given(column=columns(), value=cells())
def test_contract_of_a_cell_is_exactly_as_strict_as_the_decoder(column: Column, value: Any) -> None:
    problems = Problems()
    decode_column([value], column, problems, exact=True)

    try:
        TypeAdapter(cell_type(column)).validate_python(value)
    except ValidationError:
        assert problems.count == 1
    else:
        assert problems.count == 0


@pytest.mark.parametrize("name", ["instances", "columns", "outputs"])
def test_model_with_a_column_named_like_a_word_has_no_flat_form(name: str) -> None:
    flat, worded = signature_of(Column(name="x", dtype="bool")), signature_of(Column(name=name, dtype="bool"))

    assert [form.__name__ for form in request_types("m", flat)] == ["m-Record", "m-Instances", "m-Columns"]
    assert [form.__name__ for form in request_types("m", worded)] == ["m-Instances", "m-Columns"]


def test_contract_publishes_types_bounds_and_categories() -> None:
    signature = signature_of(
        Column(name="age", dtype="uint8"),
        Column(name="price", dtype="float32", nullable=True),
        Column(name="city", dtype="string", categories=["Graz", "Linz"], closed=True),
        Column(name="shop", dtype="string", categories=["A"]),
        Column(name="when", dtype="datetime", timezone="UTC"),
    )

    schema = request_types("m", signature)[0].model_json_schema()

    age, price, city, shop, when = (schema["properties"][name] for name in signature.names)
    assert (age["type"], age["minimum"], age["maximum"]) == ("integer", 0, 255)
    assert [option["type"] for option in price["anyOf"]] == ["number", "null"]
    assert city["enum"] == ["Graz", "Linz"]
    assert shop["x-known-categories"] == ["A"]
    assert (when["type"], when["format"]) == ("string", "date-time")
    assert schema["required"] == ["age", "city", "shop", "when"]
    assert schema["additionalProperties"] is False


PROBA = Output(name="predict_proba", dtype="float64", shape=(2,), classes=["no", "yes"])
TARGETS = Output(name="predict_proba", dtype="float64", shape=(2,), targets=2, classes=[[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("output", "values"),
    [
        pytest.param(OUTPUTS[0], np.array([1.5, np.nan]), id="numbers"),
        pytest.param(OUTPUTS[1], np.array([[1.5, np.inf], [0.0, 1.0]]), id="matrix"),
        pytest.param(PROBA, np.array([[0.25, 0.75], [0.5, 0.5]]), id="probabilities"),
        pytest.param(TARGETS, [np.full((2, 2), 0.5), np.full((2, 2), np.nan)], id="several targets"),
        pytest.param(Output(name="predict", dtype="string"), np.array(["a", "b"]), id="texts"),
        pytest.param(Output(name="predict", dtype="int64"), np.array([1, 2]), id="integers"),
        pytest.param(Output(name="predict", dtype="bool"), np.array([True, False]), id="booleans"),
        pytest.param(Output(name="predict", dtype="object"), np.array(["a", None], dtype=object), id="objects"),
        pytest.param(
            Output(name="transform", dtype="float64", shape=(4,), sparse=True),
            SparseRows(4, np.array([0, 1, 2]), np.array([2, 0]), np.array([np.nan, 2.0])),
            id="sparse",
        ),
    ],
)
@pytest.mark.parametrize("one", [True, False], ids=["one record", "many rows"])
def test_reply_is_what_the_contract_says(output: Output, values: Values, one: bool) -> None:
    signature = signature_of(Column(name="x", dtype="float64"), outputs=(output,))
    exchange = Exchange(b'{"x": 1}' if one else b'{"instances": [[1], [2]]}')
    exchange.read(signature)
    content = exchange.write(InferReply("shop", 3, signature, {output.name: values}))

    single, many = reply_types("shop", signature)

    (single if one else many).model_validate_json(json_reply(content).body, strict=True)


def test_reply_names_classes_only_where_an_output_runs_over_them() -> None:
    without = signature_of(Column(name="x", dtype="bool"), outputs=OUTPUTS)

    assert all("classes" in form.model_fields for form in reply_types("shop", SHOP))
    assert not any("classes" in form.model_fields for form in reply_types("shop", without))


@pytest.mark.parametrize("container", [Container.ARRAY, Container.SERIES])
def test_every_form_of_many_rows_is_told_to_hold_one_at_least(container: Container) -> None:
    signature = signature_of(Column(name="x0", dtype="float64"), container=container)

    forms = [form.model_json_schema()["properties"] for form in request_types("shop", signature)]

    (instances,) = (form["instances"] for form in forms if "instances" in form)
    assert [one["minItems"] for one in instances["anyOf"]] == [1] * len(instances["anyOf"])


def test_series_takes_a_list_of_texts() -> None:
    texts = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)

    assert by_contract(texts, b'{"instances": ["a", "b"]}') is not None
    assert by_contract(signature_of(Column(name="text", dtype="string")), b'{"instances": ["a", "b"]}') is None


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("2020-02-29", True), ("2020-02-29T23:59", True), ("2020-02-29 23:59:59.123456", True),
        ("", False), ("2020-13-01", False), ("2020-1-1", False), ("2020-01-01T24:00", False), ("2020-01-01Z", False),
    ],
)  # fmt: skip
def test_published_pattern_of_a_datetime_without_offset_is_what_is_accepted(text: str, fits: bool) -> None:
    column = Column(name="when", dtype="datetime")

    published = TypeAdapter(cell_type(column)).json_schema()["pattern"]

    assert (re.search(published, text) is not None) is fits
    assert accept_datetime(text, column)[0] is fits
