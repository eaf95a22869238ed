from __future__ import annotations

import numpy as np
import pytest

from service.protocols.http import JSON, json_reply, parse_query


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        pytest.param("", {}, id="none"),
        pytest.param("outputs=predict,predict_proba", {"outputs": "predict,predict_proba"}, id="one"),
        pytest.param("a=1&a=2", {"a": "2"}, id="the last of repeated ones"),
        pytest.param("a=&b", {"a": "", "b": ""}, id="blank"),
        pytest.param("a=x%2Cy+z", {"a": "x,y z"}, id="percent and plus"),
        pytest.param("a=%FF", {"a": "\ufffd"}, id="invalid UTF-8"),
        pytest.param("a=1;b=2", {"a": "1;b=2"}, id="a semicolon parts nothing"),
    ],
)
def test_query_is_read_by_one_rule(query: str, parameters: dict[str, str]) -> None:
    assert parse_query(query) == parameters


def test_json_reply_keeps_the_order_of_keys_and_writes_arrays() -> None:
    reply = json_reply({"b": np.array([1.5, np.nan]), "a": np.int64(2**53 + 1)}, 201)

    assert (reply.status, reply.content_type) == (201, JSON)
    assert reply.body == b'{"b":[1.5,null],"a":9007199254740993}'
