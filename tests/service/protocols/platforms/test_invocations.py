from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidRequest, RequestError, UnsupportedMediaType
from service.core.messages import Target
from service.core.signature import Column, Signature
from service.protocols.http import HttpReply
from service.protocols.platforms import mlflow, sagemaker
from service.protocols.platforms.invocations import ROUTES, Either, invoke, target_of
from service.protocols.platforms.predictions import ATTRIBUTES
from service.protocols.platforms.sagemaker import TARGET_MODEL
from service.protocols.routes import by_path
from tests.service.protocols.fake_server import SHOP, FakeServer, post, signature_of
from tests.service.protocols.tables import bodies, signatures

JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
MLFLOWS: list[tuple[Any, dict[str, str]]] = [
    ({"dataframe_split": {"columns": ["age", "extra"], "data": [[1, 2]]}}, JSON),
    ({"dataframe_records": [{"age": 1, "extra": 2}]}, JSON),
    ({"inputs": {"age": [1]}}, JSON),
    ({"instances": [[1, "a"]]}, JSON),
    (b"age,extra\n1,2\n", CSV),
    (b"city,age\nGraz,1\n", {"content-type": "text/csv; charset=utf-8"}),
]
SAGEMAKERS: list[tuple[Any, dict[str, str]]] = [
    ([[1, "a"]], JSON),
    ([1, "a"], JSON),
    ({"age": 1}, JSON),
    ({"columns": {"age": [1]}}, JSON),
    ({"instances": [{"features": [1, "a"]}]}, JSON),
    ({"instances": [[1, "a"]], "outputs": ["predict"]}, JSON),
    (b"1,Graz\n", CSV),
    (b"age,city\n1,Graz\n", {"content-type": "text/csv; header=present"}),
    (b'{"age": 1}\n', {"content-type": "application/jsonlines"}),
]


@pytest.mark.parametrize(("body", "headers"), MLFLOWS)
def test_requests_of_mlflow_are_read_as_such(body: Any, headers: dict[str, str]) -> None:
    http = post(body, headers=headers)

    reply = invoke(FakeServer(), http).result()

    assert reply.body == b'{"predictions":["yes"]}'
    assert http.problem is None  # that of the route


@pytest.mark.parametrize(("body", "headers"), SAGEMAKERS)
def test_requests_of_sagemaker_are_read_as_such(body: Any, headers: dict[str, str]) -> None:
    http = post(body, headers={**headers, "accept": "text/csv"})

    reply = invoke(FakeServer(), http).result()

    assert reply.body == b"yes\n"
    assert http.problem is sagemaker.SAGEMAKER.problem


def test_errors_are_those_of_the_dialect_that_the_request_is_of() -> None:
    at_first = ROUTES[0].dialect.problem
    http = post([["x", "a"]])

    with pytest.raises(InvalidRequest) as raised:
        Either(http).read(SHOP)

    assert at_first is mlflow.MLFLOW.problem
    assert http.problem is not None
    reply: HttpReply = http.problem(raised.value, "req-1")
    assert list(orjson.loads(reply.body)) == ["error"]


def test_parameters_of_json_are_refused_as_by_mlflow() -> None:
    with pytest.raises(UnsupportedMediaType, match="'format'"):
        Either(post([[1, "a"]], headers={"content-type": "application/json; format=pandas-split"})).read(SHOP)


def test_the_header_of_sagemaker_chooses_outputs_whoever_asks() -> None:
    server = FakeServer()

    reply = invoke(server, post({"instances": [[1, "a"]]}, headers={**JSON, ATTRIBUTES: "outputs=predict_proba"}))

    assert reply.result().body == b'{"predictions":[[0.25,0.75]]}'


def test_many_rows_of_numbers_are_answered_as_few_are() -> None:
    signature = signature_of(*(Column(name=f"x{index}", dtype="float64") for index in range(4)))
    many = post({"instances": [[0.5] * 4] * 100}, headers=JSON)

    assert invoke(FakeServer(signature), many).result().body == b'{"predictions":["yes"]}'


@pytest.mark.parametrize("rows", [2, 100])
def test_accept_of_another_form_is_for_sagemakers_words_alone(rows: int) -> None:
    signature = signature_of(*(Column(name=f"x{index}", dtype="float64") for index in range(4)))
    instances = [[0.5] * 4] * rows
    headers = {**JSON, "accept": "text/csv"}

    shared = invoke(FakeServer(signature), post({"instances": instances}, headers=headers)).result()
    only_mlflows = invoke(FakeServer(signature), post({"inputs": instances}, headers=headers)).result()

    assert shared.body == b"yes\n"
    assert only_mlflows.body == b'{"predictions":["yes"]}'


@pytest.mark.parametrize(
    ("query", "headers", "wanted"),
    [
        ({}, {}, Target()),
        ({"model": "a", "version": "2"}, {TARGET_MODEL: "b"}, Target("a", 2)),
        ({}, {TARGET_MODEL: "b.tar.gz"}, Target("b")),
    ],
)
def test_the_model_is_that_of_the_query_or_of_the_header(
    query: dict[str, str], headers: dict[str, str], wanted: Target
) -> None:
    assert target_of(post({}, query=query, headers=headers)) == wanted


@pytest.mark.parametrize(
    ("dialects", "handler"),
    [
        (("mlflow",), mlflow.score),
        (("sagemaker",), sagemaker.invoke),
        (("sagemaker", "v2", "mlflow"), invoke),
    ],
)
def test_a_dialect_that_is_alone_decides_alone(dialects: tuple[str, ...], handler: Any) -> None:
    assert by_path(dialects)["/invocations"]["POST"].handler is handler


@given(
    body=st.binary(max_size=200) | st.sampled_from([b"[1]", b"{}"]),
    kind=st.sampled_from(["application/json", "text/csv", "application/x-npy", "application/jsonlines", "x/y", ""]),
    signature=signatures(),
)
def test_any_bytes_are_rows_or_a_clean_refusal(body: bytes, kind: str, signature: Signature) -> None:
    with contextlib.suppress(RequestError):
        assert Either(post(body, headers={"content-type": kind})).read(signature).rows.n_rows


@given(data=st.data(), signature=signatures())
def test_any_native_body_is_rows_or_a_clean_refusal(data: st.DataObject, signature: Signature) -> None:
    content = data.draw(bodies(signature))

    with contextlib.suppress(RequestError):
        assert Either(post(b""))._build(content, signature, True).rows.n_rows
