"""The prediction routes in every form that is not JSON."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.core.errors import (
    InvalidRequest,
    NotAcceptable,
    RequestTooLarge,
    UnsupportedMediaType,
)
from service.protocols.columnar.formats import BY_TYPE
from service.protocols.predict import predict
from tests.service.protocols.columnar.bodies import CSV, LINES, NPY, PARQUET, STREAM, npy, parquet_file, stream
from tests.service.protocols.fake_server import FakeServer, post

JSON = "application/json"
TABLE = pa.table({"city": ["Graz", None], "age": [41, 23]})
BODIES: dict[str, Any] = {
    STREAM: stream(TABLE),
    PARQUET: parquet_file(TABLE),
    CSV: b"city,age\nGraz,41\n,23\n",
    LINES: b'{"city":"Graz","age":41}\n{"age":23}\n',
    NPY: npy(np.array([("Graz", 41), ("Linz", 23)], dtype=[("city", "U4"), ("age", "i4")])),
    JSON: {"columns": {"age": [41, 23], "city": ["Graz", None]}},
}
LABELS = np.array(["yes", "no"])


def server() -> FakeServer:
    return FakeServer(outputs={"predict": LABELS, "predict_proba": np.array([[0.25, 0.75], [1.0, 0.0]])})


def ask(kind: str, accept: str | None = None, asked: FakeServer | None = None, body: Any = None, **more: Any) -> Any:
    headers = {"content-type": kind} | ({} if accept is None else {"accept": accept})
    given = BODIES[kind.partition(";")[0].strip().lower()] if body is None else body
    return predict(asked or server(), post(given, headers=headers, **more)).result(timeout=0)


def labels(kind: str, body: bytes) -> list[Any]:
    match kind:
        case "application/json":
            return orjson.loads(body)["predictions"]  # type: ignore[no-any-return]
        case "text/csv":
            return body.decode().splitlines()[1:]
        case "application/x-npy":
            return np.load(io.BytesIO(body)).tolist()  # type: ignore[no-any-return]
        case "application/vnd.apache.arrow.stream":
            return pa.ipc.open_stream(body).read_all()["predict"].to_pylist()  # type: ignore[no-any-return]
        case "application/vnd.apache.parquet":
            return parquet.read_table(io.BytesIO(body))["predict"].to_pylist()  # type: ignore[no-any-return]
        case _:
            return [orjson.loads(line)["prediction"] for line in body.splitlines()]


@pytest.mark.parametrize("accept", [None, "*/*", *BODIES])
@pytest.mark.parametrize("kind", BODIES)
def test_every_form_is_answered_in_every_form(kind: str, accept: str | None) -> None:
    asked = server()
    wanted = kind if accept in (None, "*/*") else accept

    reply = ask(kind, accept, asked)

    assert reply.content_type.partition(";")[0] == wanted
    assert labels(str(wanted), reply.body) == ["yes", "no"]
    columns = asked.requests[0].rows.columns
    assert columns["age"].tolist() == [41, 23] and columns["city"][0] == "Graz"


@pytest.mark.parametrize("accept", [kind for kind in BODIES if kind != JSON])
def test_headers_say_which_model_answered(accept: str) -> None:
    assert ask(JSON, accept).headers == {"x-model-name": "shop", "x-model-version": "3"}


def test_an_answer_in_json_is_that_to_rows_in_json() -> None:
    assert {ask(kind, JSON).body for kind in BODIES} == {ask(JSON).body}


@pytest.mark.parametrize("alias", [name for form in BY_TYPE.values() for name in form.media_types])
def test_a_form_is_known_by_each_of_its_names(alias: str) -> None:
    body = BODIES[BY_TYPE[alias].media_types[0]]

    assert ask(alias, body=body).content_type.partition(";")[0] == alias


def test_outputs_are_named_in_the_query() -> None:
    reply = ask(CSV, query={"outputs": "predict_proba,predict"})

    assert reply.body == b"predict_proba_no,predict_proba_yes,predict\n0.25,0.75,yes\n1.0,0.0,no\n"
    with pytest.raises(InvalidRequest, match="nothing"):
        ask(CSV, query={"outputs": "nothing"})


def test_the_type_of_a_body_may_say_more() -> None:
    assert ask("text/csv; header=absent; charset=UTF-8", body=b"41,Graz\n23,\n").body == b"predict\nyes\nno\n"
    with pytest.raises(UnsupportedMediaType, match="latin-1"):
        ask("text/csv; charset=latin-1")


def test_what_nobody_can_write_is_not_acceptable() -> None:
    asked = server()

    with pytest.raises(NotAcceptable, match=r"text/csv.*text/html"):
        ask(CSV, "text/html, image/*", asked)
    assert asked.requests == []


def test_rows_may_take_as_much_as_a_body_may() -> None:
    http = post(parquet_file(pa.table({"age": np.zeros(10_000, "i8")})), headers={"content-type": PARQUET})
    http.max_bytes = 20_000

    with pytest.raises(RequestTooLarge, match="20000"):
        predict(server(), http)
