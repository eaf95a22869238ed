from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from service.core.errors import InvalidRequest, NotAcceptable, UnknownModel
from service.core.messages import InferReply
from service.core.signature import Column, Container
from service.core.table import Frame, Matrix, SparseRows, Values
from service.protocols.platforms.predictions import (
    ATTRIBUTES,
    asked_outputs,
    decode_rows,
    outputs_in,
    predictions_of,
    problem,
    read_rows,
)
from tests.service.protocols.fake_server import SHOP, post, signature_of

ONE = signature_of(Column(name="x", dtype="float64"))
FOUR = signature_of(*(Column(name=f"x{index}", dtype="float64") for index in range(4)))
TEXT = signature_of(Column(name="text", dtype="string"), container=Container.SERIES)


def reply_of(**outputs: Values) -> InferReply:
    return InferReply("shop", 3, SHOP, outputs)


@pytest.mark.parametrize(
    ("outputs", "wanted"),
    [
        pytest.param({"predict": np.array(["a", "b"])}, ["a", "b"], id="labels"),
        pytest.param({"predict": np.array([0.1, np.nan])}, [0.1, None], id="NaN"),
        pytest.param({"predict_proba": np.array([[0.25, 0.75]])}, [[0.25, 0.75]], id="matrix"),
        pytest.param(
            {"predict": np.array([1]), "predict_proba": np.array([[0.5, 0.5]])},
            [{"predict": 1, "predict_proba": [0.5, 0.5]}],
            id="several",
        ),
        pytest.param({"p": [np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])]}, [[[1.0, 0.0], [0.5, 0.5]]], id="targets"),
        pytest.param(
            {"transform": SparseRows(3, np.array([0, 1, 1]), np.array([2]), np.array([7.0]))},
            [[0.0, 0.0, 7.0], [0.0, 0.0, 0.0]],
            id="sparse",
        ),
    ],
)
def test_predictions_are_one_per_row(outputs: dict[str, Values], wanted: Any) -> None:
    predictions = predictions_of(reply_of(**outputs))

    assert orjson.loads(orjson.dumps(predictions, option=orjson.OPT_SERIALIZE_NUMPY)) == wanted


def test_sparse_rows_that_would_fill_the_memory_are_refused() -> None:
    wide = SparseRows(2**40, np.array([0, 0]), np.array([], dtype=int), np.array([], dtype=float))

    with pytest.raises(InvalidRequest, match="too large"):
        predictions_of(reply_of(transform=wide))


@pytest.mark.parametrize(
    ("query", "attributes", "wanted"),
    [
        pytest.param({}, None, None, id="nothing"),
        pytest.param({"outputs": "a,b"}, None, ["a", "b"], id="query"),
        pytest.param({}, "outputs=a,b", ["a", "b"], id="header"),
        pytest.param({"outputs": "a"}, "trace=1; outputs=b", ["b"], id="header before query"),
        pytest.param({}, "c000b4f9-df62-4c85-a0bf-7c525f9104a4", None, id="a header about something else"),
        pytest.param({}, "no-outputs=a", None, id="a word that ends like it"),
    ],
)
def test_outputs_are_asked_for_in_the_query_or_the_header(
    query: dict[str, str], attributes: str | None, wanted: list[str] | None
) -> None:
    headers = {} if attributes is None else {ATTRIBUTES: attributes}

    assert asked_outputs(post({}, query=query, headers=headers)) == wanted


@pytest.mark.parametrize(
    ("parameters", "asked", "wanted"),
    [
        pytest.param(None, None, ("predict",), id="the default"),
        pytest.param({"temperature": 1}, ["predict_proba"], ("predict_proba",), id="asked otherwise"),
        pytest.param({"outputs": ["predict"]}, ["predict_proba"], ("predict",), id="the body comes first"),
    ],
)
def test_parameters_choose_outputs(parameters: Any, asked: list[str] | None, wanted: tuple[str, ...]) -> None:
    assert outputs_in(parameters, "params", asked, SHOP) == wanted


@pytest.mark.parametrize("parameters", [[], "x", 0, {"outputs": "predict"}, {"outputs": ["nothing"]}])
def test_parameters_that_choose_nothing_are_refused(parameters: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"params|outputs"):
        outputs_in(parameters, "params", None, SHOP)


def test_numbers_go_the_short_way_and_give_the_same_rows() -> None:
    rows = [[0.5 * place, 1.5, -2.25, 3.0] for place in range(200)]
    body = orjson.dumps({"instances": rows})

    read = read_rows(body, ["predict_proba"], FOUR, lambda content, exact: pytest.fail("the long way"))

    assert isinstance(read.rows, Matrix) and read.rows.values.tolist() == rows
    assert read.outputs == ("predict_proba",)


def test_nan_may_be_a_word() -> None:
    seen: list[Any] = []

    def build(content: Any, exact: bool) -> Any:
        seen.append(content)

    read_rows(b'{"instances": [[NaN]]}', None, ONE, build)

    assert seen == [{"instances": [[None]]}]


def test_values_alone_are_rows_of_one_column() -> None:
    numbers, texts = decode_rows([1, 2.5], "inputs", ONE), decode_rows(["a", "b"], "inputs", TEXT)

    assert isinstance(numbers, Matrix) and numbers.values.tolist() == [[1.0], [2.5]]
    assert isinstance(texts, Frame) and texts.columns["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize("rows", [None, {}, [], "text", 3])
def test_what_is_no_list_of_rows_is_refused_by_its_name(rows: Any) -> None:
    with pytest.raises(InvalidRequest, match='"inputs": expected a list of at least one row'):
        decode_rows(rows, "inputs", ONE)


@pytest.mark.parametrize(
    ("error", "status"),
    [(InvalidRequest("no"), 400), (UnknownModel(), 404), (NotAcceptable("no"), 406), (KeyError("secret"), 500)],
)
def test_an_error_is_an_object_with_one_key(error: Exception, status: int) -> None:
    reply = problem(error, "req-1")

    assert reply.status == status
    assert list(orjson.loads(reply.body)) == ["error"] and b"secret" not in reply.body
