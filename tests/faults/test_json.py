"""Section J: JSON syntax and numbers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conformance.servers import SERVERS, Running
from tests.faults.cases import Came, fault
from tests.faults.fronts import GOOD, KNOWN, PATIENCE_S, Front, is_problem

# As rows of the model `numbers`; %s stands for the first value.
CELL: Final = b'{"instances": [[%s, -0.25, 1.0, 2.0]]}'


def with_cell(text: bytes) -> bytes:
    return CELL % text


@fault("J01", sent="NaN, Infinity, -Infinity as numbers", expected="400")
@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"-NaN", b"1e400, NaN"])
def test_words_for_numbers(front: Front, came: Came, word: bytes) -> None:
    reply = front.post(with_cell(word))

    came(reply.status)
    is_problem(reply, 400)


@fault("J02", sent="1e400, -1e400", expected="422, and the problem names row and column")
@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" + b"0" * 309, b"123456789e999999999999"])
def test_number_out_of_range(front: Front, came: Came, number: bytes) -> None:
    reply = front.post(with_cell(number))

    came(reply.status)
    (problem,) = is_problem(reply, 422)["errors"]
    assert (problem["row"], problem["column"]) == (0, "x0")


@fault("J03", sent="1e-400", expected="200, read as 0.0")
def test_number_that_is_too_small(front: Front, came: Came) -> None:
    small, zero = (front.post(with_cell(text), path=_SCALED) for text in (b"1e-400", b"0.0"))

    came(small.status)
    assert small.status == 200
    assert small.body == zero.body


_SCALED: Final = "/models/scaled/predict?outputs=transform"


@fault(
    "J04", sent="a key twice: of the body, of a row, spelt with an escape, in a long body", expected="the last counts"
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"instances": [[9]], "instances": [[0.5, -0.25, 1, 2]]}', id="of the body"),
        pytest.param(b'{"instances": "x", "\\u0069nstances": [[0.5, -0.25, 1, 2]]}', id="with an escape"),
        pytest.param(b'{"instances": [{"x0": [], "x0": 0.5, "x1": -0.25, "x2": 1, "x3": 2}]}', id="of a row"),
        pytest.param(b'{"x0": 7e7, "x0": 0.5, "x1": -0.25, "x2": 1, "x3": 2, "x\\u0033": 2}', id="of a record"),
        pytest.param(b'{"instances": 5, "instances": [[0.5, -0.25, 1, 2]]' + b" " * 2000 + b"}", id="of a long body"),
        pytest.param(b'{"x0": 1e400, "x0": 0.5, "x1": -0.25, "x2": 1, "x3": 2}', id="read with every digit"),
    ],
)
def test_key_that_comes_twice(front: Front, came: Came, body: bytes) -> None:
    reply = front.post(body)

    came(reply.status)
    content = json.loads(reply.body)
    assert content.get("predictions", [content.get("prediction")]) == KNOWN, content


@fault("J04", sent="a key twice in a long body, where the last is no list of rows", expected="422: the last counts")
def test_last_of_a_key_that_comes_twice_is_wrong(front: Front, came: Came) -> None:
    reply = front.post(b'{"instances": [[0.5, -0.25, 1, 2]], "instances": 5' + b" " * 2000 + b"}")

    came(reply.status)
    is_problem(reply, 422)


@fault("J05", sent="33, 1 000 and 500 000 levels of lists, of objects, of both; in a cell, in an unknown field",
       expected="400, the same process")  # fmt: skip
@pytest.mark.parametrize("levels", [33, 1000, 500_000])
@pytest.mark.parametrize(
    ("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")], ids=["lists", "objects", "both"]
)
def test_deep_bodies(front: Front, came: Came, levels: int, opens: bytes, closes: bytes) -> None:
    deep = opens * levels + b"1" + closes * levels
    pid = front.pid()

    for body in (deep, with_cell(deep), b'{"instances": [[1, 2, 3, 4]], "unknown": %s}' % deep, opens * levels):
        reply = front.post(body)
        came(reply.status)
        is_problem(reply, 400)

    assert front.pid() == pid


@fault("J05", sent="32 levels", expected="422: readable, but no row")
def test_body_as_deep_as_it_may_be(front: Front, came: Came) -> None:
    reply = front.post(b"[" * 32 + b"]" * 32)

    came(reply.status)
    is_problem(reply, 422)


@fault("J05", sent="33 levels in a field that V1, V2 and MLflow do not look at", expected="400")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/models/numbers:predict", b'{"instances": [[1, 2, 3, 4]], "unknown": %s}', id="V1"),
        pytest.param("/invocations?model=numbers", b'{"inputs": [[1, 2, 3, 4]], "unknown": %s}', id="MLflow"),
        pytest.param(
            "/v2/models/numbers/infer",
            b'{"parameters": {"unknown": %s}, "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", '
            b'"data": [1, 2, 3, 4]}]}',
            id="V2",
        ),
    ],
)
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
@pytest.mark.parametrize("pad", [0, 2000], ids=["short", "long"])
def test_deep_field_of_another_dialect(
    front: Front, came: Came, path: str, body: bytes, opens: bytes, closes: bytes, pad: int
) -> None:
    flat = front.post(body % b"1" + b" " * pad, path=path)
    deep = front.post(body % (opens * 33 + b"1" + closes * 33) + b" " * pad, path=path)

    came(flat.status, deep.status)
    assert (flat.status, deep.status) == (200, 400), deep.body


@fault("J06", sent="an integer of 1 000, 1 001, 5 000 and 1 000 000 digits", expected="422, then 400")
@pytest.mark.parametrize(("digits", "status"), [(1000, 422), (1001, 400), (5000, 400), (1_000_000, 400)])
@pytest.mark.parametrize("sign", [b"", b"-"], ids=["", "minus"])
def test_integer_of_many_digits(front: Front, came: Came, sign: bytes, digits: int, status: int) -> None:
    reply = front.post(with_cell(sign + b"9" * digits))

    came(reply.status)
    is_problem(reply, status)


@fault("J07", sent="integers beyond 64 bits and beyond 2^53", expected="422 where the column cannot hold them exactly")
@pytest.mark.parametrize(
    ("model", "number", "status"),
    [
        pytest.param("people", b"9223372036854775808", 422, id="2^63 for int64"),
        pytest.param("people", b"-9223372036854775809", 422, id="-2^63 - 1 for int64"),
        pytest.param("people", b"18446744073709551616", 422, id="2^64 for int64"),
        pytest.param("people", b"9223372036854775807", 422, id="2^63 - 1 for int64 that may be missing"),
        pytest.param("people", b"9007199254740991", 200, id="2^53 - 1 for int64 that may be missing"),
        pytest.param("numbers", b"9007199254740993", 422, id="2^53 + 1 for float64"),
        pytest.param("numbers", b"18446744073709551617", 422, id="2^64 + 1 for float64"),
        pytest.param("numbers", b"9007199254740992", 200, id="2^53 for float64"),
        pytest.param("numbers", b"18446744073709551616", 200, id="2^64 for float64"),
    ],
)
def test_large_integer(front: Front, came: Came, model: str, number: bytes, status: int) -> None:
    person = b'{"since": "2024-01-01", "plan": "pro", "member": true, "age": 40, "city": "Graz", "visits": %s}'
    reply = front.post(person % number if model == "people" else with_cell(number), path=f"/models/{model}/predict")

    came(reply.status)
    assert reply.status == status, reply.body


@fault("J08", sent="trailing commas, comments, single quotes, leading zeros, +1, .5, 1., 0x10", expected="400")
@pytest.mark.parametrize(
    "text",
    [b"1,", b"1,,2", b"1 /* one */", b"1 // one\n", b"'1'", b"01", b"-01", b"+1", b".5", b"1.", b"0x10", b"1e",
     b"1_000", b"--1", b"True", b"None", b'"\\x41"', b'"a\nb"', b"\xc2\xa01", b"1e+"],
)  # fmt: skip
def test_almost_json(front: Front, came: Came, text: bytes) -> None:
    reply = front.post(with_cell(text))

    came(reply.status)
    is_problem(reply, 400)


@fault("J09", sent="two documents, trailing text, NUL behind and before the document", expected="400")
@pytest.mark.parametrize("behind", [b"{}", b" null", b"x", b"\0", b",", b"]", b"\n{}", b"\x1a", b" " * 2000 + b"x"])
def test_more_than_one_document(front: Front, came: Came, behind: bytes) -> None:
    for body in (with_cell(b"0.5") + behind, behind + with_cell(b"0.5")):
        reply = front.post(body)
        came(reply.status)
        is_problem(reply, 400)


@fault("J10", sent="an unknown field beside instances, and in a record", expected="422 naming the field")
@pytest.mark.parametrize(
    "body", [{**GOOD, "instanses": 1}, {"instanses": [[1, 2, 3, 4]]}, {"instances": [{"instanses": 1}]}]
)
def test_unknown_field(front: Front, came: Came, body: Any) -> None:
    reply = front.post(json.dumps(body).encode())

    came(reply.status)
    assert "instanses" in is_problem(reply, 422)["detail"]


@fault("J11", sent="the right field with the wrong kind of value", expected="422 naming the place")
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"instances": {}}, '"instances"'),
        ({"instances": "x"}, '"instances"'),
        ({"instances": [1]}, "row 0"),
        ({"instances": [[1, 2, 3, 4], {}]}, "row 0"),
        ({"instances": [[1, 2, 3, {}]]}, "row 0, column 'x3'"),
        ({"instances": [[1, 2, [], 4]]}, "row 0, column 'x2'"),
        ({"columns": []}, '"columns"'),
        ({"columns": {"x0": 1, "x1": 1, "x2": 1, "x3": 1}}, "column 'x0'"),
        ({**GOOD, "outputs": {}}, '"outputs"'),
        ({**GOOD, "outputs": "predict"}, '"outputs"'),
    ],
)
def test_wrong_kind_of_value(front: Front, came: Came, body: Any, place: str) -> None:
    reply = front.post(json.dumps(body).encode())

    came(reply.status)
    assert place in is_problem(reply, 422)["detail"]


@fault("J12", sent="100 000 different keys in one row", expected="422 in linear time")
@pytest.mark.parametrize("wrap", ["%s", '{"columns": %s}'], ids=["record", "columns"])
def test_many_keys(front: Front, came: Came, wrap: str) -> None:
    body = (wrap % json.dumps({f"{at:x}": at for at in range(100_000)})).encode()

    started = time.monotonic()
    reply = front.post(body)

    came(reply.status)
    is_problem(reply, 422)
    # Each compared with each would be 10^10 comparisons: minutes.
    assert time.monotonic() - started < PATIENCE_S


@fault("J13", sent="escaped names, -0, 1.0, 1E+2", expected="the answer to the plain spelling")
def test_other_spellings(front: Front, came: Came) -> None:
    plain = front.post(b'{"x0": 0, "x1": 1, "x2": 100, "x3": 2}', path=_SCALED)
    odd = front.post(b'{"\\u00780": -0.0, "x\\u0031": 1.0, "x2": 1E+2, "x3": 20e-1}', path=_SCALED)

    came(odd.status)
    assert odd.status == 200
    assert odd.body == plain.body


@fault("J14", sent="a text of 9 MB where a number is due", expected="422 in less than 1 KiB")
@pytest.mark.parametrize("letter", ["a", "é", "\\", "1"])
def test_long_text_for_a_number(front: Front, came: Came, letter: str) -> None:
    reply = front.post(with_cell(json.dumps(letter * (9_000_000 // len(json.dumps(letter)[1:-1]))).encode()))

    came(reply.status, len(reply.body))
    is_problem(reply, 422)
    assert len(reply.body) < 1024


@fault("J15", sent="__proto__, __class__, constructor and the empty name as keys", expected="422: unknown keys")
@pytest.mark.parametrize("key", ["__proto__", "__class__", "constructor", "", "__init__", "0", "x0 ", "$ref"])
def test_names_with_a_meaning_elsewhere(front: Front, came: Came, key: str) -> None:
    for body in ({**GOOD, key: {}}, {key: 1}, {"instances": [{key: 1}]}, {"columns": {key: [1]}}):
        reply = front.post(json.dumps(body).encode())
        came(reply.status)
        is_problem(reply, 422)


@fault("J16", sent="10 000 wrong cells, and wrong names of 10 KB", expected="422, at most 20 told, below 8 KiB")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"instances": [["secret" * 10] * 4] * 2500}, id="cells"),
        pytest.param({"instances": [{f"{at}secret" * 1000: 1 for at in range(50)}]}, id="names"),
        pytest.param({f"{at}" * 5000: 1 for at in range(100)}, id="fields"),
        pytest.param({"instances": [["🦊" * 1000] * 4] * 100}, id="letters of four bytes"),
        pytest.param({"instances": [["\x00" * 1000] * 4] * 100}, id="letters that are escaped"),
        pytest.param({**GOOD, "outputs": ["x" * 100_000]}, id="an output"),
    ],
)
def test_many_errors(front: Front, came: Came, body: Any) -> None:
    reply = front.post(json.dumps(body).encode())

    came(reply.status, len(reply.body))
    problem = is_problem(reply, 422)  # which looks at the size, too
    assert len(problem.get("errors", [])) <= 20


# -- the public corpus ---------------------------------------------------------------------------

_FILE: Final = Path(__file__).parent / "corpora" / "json_test_suite.json"
SUITE: Final[Mapping[str, bytes]] = {
    name: base64.b64decode(body) for name, body in json.loads(_FILE.read_text())["cases"].items()
} | {
    "n_structure_100000_opening_arrays": b"[" * 100_000,
    "n_structure_open_array_object": b'[{"":' * 50_000 + b"\n",
}

# What parsers may do as they like. None is a request that the model takes, so those that are read are 422.
READ: Final = frozenset(
    {
        "i_number_double_huge_neg_exp",  # 0.0
        "i_number_huge_exp",  # out of range, and so are the next
        "i_number_neg_int_huge_exp",
        "i_number_pos_double_huge_exp",
        "i_number_real_neg_overflow",
        "i_number_real_pos_overflow",
        "i_number_real_underflow",
        "i_number_too_big_neg_int",
        "i_number_too_big_pos_int",
        "i_number_very_big_negative_int",
    }
)


@fault("J17", sent="the 95 bodies of JSONTestSuite that must be accepted", expected="422: read, and no request")
def test_what_every_parser_must_accept(front: Front, came: Came) -> None:
    accepted = {name: body for name, body in SUITE.items() if name.startswith("y_")}

    statuses = {name: front.post(body).status for name, body in accepted.items()}

    came(f"{sum(status == 422 for status in statuses.values())} of {len(statuses)} are 422")
    assert len(statuses) == 95
    assert statuses == dict.fromkeys(accepted, 422)


@fault("J17", sent="the 188 bodies of JSONTestSuite that must be refused", expected="400")
def test_what_every_parser_must_refuse(front: Front, came: Came) -> None:
    refused = {name: body for name, body in SUITE.items() if name.startswith("n_")}

    statuses = {name: front.post(body).status for name, body in refused.items()}

    came(f"{sum(status == 400 for status in statuses.values())} of {len(statuses)} are 400")
    assert len(statuses) == 188
    assert statuses == dict.fromkeys(refused, 400)


@fault(
    "J17", sent="the 35 bodies of JSONTestSuite that parsers may accept", expected="10 are read (422), 25 are not (400)"
)
def test_what_parsers_may_accept(front: Front, came: Came) -> None:
    free = {name: body for name, body in SUITE.items() if name.startswith("i_")}

    statuses = {name: front.post(body).status for name, body in free.items()}

    came(f"{sum(status == 422 for status in statuses.values())} are 422")
    assert len(statuses) == 35
    assert statuses == {name: 422 if name in READ else 400 for name in free}


@fault("J18", sent="every body of JSONTestSuite, as itself and in a cell, to each front",
       expected="the same status, type and detail")  # fmt: skip
@pytest.mark.front("service")
def test_same_bytes_to_each_front(fronts: Mapping[str, Running], came: Came) -> None:
    told: dict[str, list[Any]] = {}
    for name in SERVERS:
        front = Front(name, fronts[name])
        told[name] = []
        since = front.running.log.stat().st_size
        for body in (*SUITE.values(), *(with_cell(body) for body in SUITE.values())):
            content = json.loads(front.post(body).body)
            content.pop("request_id", None)
            told[name].append(content)
        front.is_well(since)

    came(f"{len(told['uvicorn'])} bodies")
    assert told == dict.fromkeys(SERVERS, told["uvicorn"])
