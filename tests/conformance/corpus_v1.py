"""Requests of TensorFlow Serving's REST API and of KServe's version 1: every route, every arrangement, every error."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

from service.protocols.routes import by_path
from tests.conformance.corpus import COLOURS, JSON, MAX_BODY_BYTES, METHODS, PERSON, ROW, Case, case, several

FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")


def every_method() -> Iterator[Case]:
    """Every route with every method. A method that a path does not take makes a malformed request."""
    one = {"instances": [[0.5, -0.5]]}
    bodies: dict[str, Any] = {
        "predict": one,
        "classify": {"examples": []},
        "regress": {"examples": [{"x0": 1, "x1": 2}]},
    }
    for path, routes in by_path(("v1",)).items():
        if not path.startswith("/v1/") and path != "/":
            continue
        target = path.replace("{name}", "versions").replace("{version}", "1").replace("{label}", "old")
        verb = path.partition(":")[2]
        for method in METHODS:
            if "POST" not in routes:
                status, body = (200 if method in ("GET", "HEAD") else 400), None
            else:
                status = {"classify": 400, "explain": 501}.get(verb, 200) if method == "POST" else 400
                body = bodies.get(verb, one)
            yield case(f"v1 {method} {path}", status, target, body, method=method)


def paths() -> Iterator[Case]:
    for target, method, status in (
        ("/v1/", "GET", 400),
        ("/v1/nowhere", "GET", 400),
        ("/v1", "GET", 404),  # no path of this protocol
        ("/V1/models/numbers", "GET", 404),
        ("/v1/Models", "GET", 400),
        ("/v1/models/", "GET", 400),
        ("/v1/models/numbers/", "GET", 400),
        ("/v1/models/numbers/versions", "GET", 400),
        ("/v1/models/numbers/metadata/", "GET", 400),
        ("/v1/models/numbers/Metadata", "GET", 400),
        ("/v1/models/nobody", "GET", 404),
        ("/v1/models/nobody/metadata", "GET", 404),
        ("/v1/models/nobody:predict", "POST", 404),
        ("/v1/models/:predict", "POST", 400),
        ("/v1/models/numbers:embed", "POST", 400),
        ("/v1/models/numbers:", "GET", 404),
        ("/v1/models/numbers:Predict", "POST", 400),
        ("/v1/models/numbers:predict/", "POST", 400),
        ("/v1/models/numbers/predict", "POST", 400),
        ("/v1/models/numbers:predict:predict", "POST", 404),
        ("/v1/models/numbers:predict:classify", "POST", 404),
        ("/v1/models/numbers/versions/1:predict:classify", "POST", 404),
        ("/v1/models/m%C3%BCller:predict", "POST", 404),
        ("/v1/models/%E6%97%A5%E6%9C%AC:predict", "POST", 404),
        ("/v1/models/n%75mbers:predict", "POST", 200),
        ("/v1/models/numbers%3Apredict", "POST", 200),
        ("/v1/models/numbers:predict?x=1", "POST", 200),
        ("/v1/models/odd.names_1", "GET", 200),
        ("/v1/models/two-kinds/metadata", "GET", 200),
        ("/v1/models/people/metadata", "GET", 200),
        ("/v1/models/opinions/metadata", "GET", 200),
        ("/v1/models/forest/metadata", "GET", 200),
        ("/v1/models/numbers/versions/1", "GET", 200),
        ("/v1/models/numbers/versions/1:predict", "POST", 200),
        ("/v1/models/numbers/versions/01:predict", "POST", 404),
        ("/v1/models/numbers/versions/9:predict", "POST", 404),
        ("/v1/models/numbers/versions/x:predict", "POST", 404),
        ("/v1/models/numbers/versions/9", "GET", 404),
        ("/v1/models/numbers/labels/old", "GET", 404),
        ("/v1/models/numbers/labels/old:predict", "POST", 404),
        ("/v1/models/versions/labels/candidate", "GET", 200),
        ("/v1/models//versions/1:predict", "POST", 400),
        ("/v1//models", "GET", 400),
    ):
        yield case(f"v1 {method} path {target}", status, target, None if method == "GET" else {"instances": [ROW]})


def _ask(name: str, status: int, model: str, body: Any, verb: str = "predict", **options: Any) -> Case:
    return case(f"v1 {name}", status, f"/v1/models/{model}:{verb}", body, **options)


def rows() -> Iterator[Case]:
    text = base64.b64encode(b"Graz").decode()
    for name, status, model, body in (
        ("list of rows", 200, "numbers", {"instances": [ROW, ROW]}),
        ("rows by column", 200, "numbers", {"instances": [{"x0": 1, "x1": 2, "x2": 3, "x3": 4.5}]}),
        ("rows by column in lists of one", 200, "numbers", {"instances": [{f"x{i}": [i / 2] for i in range(4)}]}),
        ("rows by tensor", 200, "numbers", {"instances": [{"input-0": ROW}, {"input-0": ROW}]}),
        ("row by any name", 200, "numbers", {"instances": [{"features": ROW}]}),
        ("row by two names", 400, "numbers", {"instances": [{"input-0": ROW, "x": ROW}]}),
        ("tensor", 200, "numbers", {"inputs": [ROW, ROW]}),
        ("tensor by name", 200, "numbers", {"inputs": {"input-0": [ROW, ROW]}}),
        ("tensor by column", 200, "numbers", {"inputs": {f"x{i}": [[0.5], [1]] for i in range(4)}}),
        ("tensor without a column", 400, "numbers", {"inputs": {"x0": [1]}}),
        ("person", 200, "people", {"instances": [PERSON]}),
        ("person in lists of one", 200, "people", {"instances": [{name: [value] for name, value in PERSON.items()}]}),
        ("person without what may be missing", 200, "people", {"instances": [{**PERSON, "age": None, "city": None}]}),
        ("person as a list", 200, "people", {"instances": [list(PERSON.values())]}),
        ("people as a frame", 200, "people", {"instances": [{name: [value] * 2 for name, value in PERSON.items()}]}),
        ("people as a list of objects", 200, "people", {"instances": [[PERSON, PERSON]]}),
        ("people as inputs", 200, "people", {"inputs": [PERSON, PERSON]}),
        ("people as columns", 200, "people", {"inputs": {name: [[value]] for name, value in PERSON.items()}}),
        ("person with base64", 200, "people", {"instances": [{**PERSON, "city": {"b64": text}}]}),
        ("person with bad base64", 400, "people", {"instances": [{**PERSON, "city": {"b64": "?"}}]}),
        ("person with bytes", 400, "people", {"instances": [{**PERSON, "city": {"b64": "/w=="}}]}),
        ("person with another column", 400, "people", {"instances": [{**PERSON, "shoe": 44}]}),
        ("person with a text for a number", 400, "people", {"instances": [{**PERSON, "visits": "12"}]}),
        ("frame of odd lists", 400, "people", {"instances": [{**PERSON, "age": [1, 2], "city": ["x"]}]}),
        ("texts", 200, "opinions", {"instances": ["great fun", {"b64": base64.b64encode(b"awful").decode()}]}),
        ("texts as a tensor", 200, "opinions", {"inputs": ["great fun", "bad food"]}),
        ("colours", 200, "one-hot", {"instances": [COLOURS]}),
        ("two amounts", 200, "two-amounts", {"inputs": [ROW]}),
        ("two kinds", 200, "two-kinds", {"instances": [ROW]}),
        ("scaled", 200, "scaled", {"instances": [ROW]}),
        ("outliers", 200, "outliers", {"instances": [ROW]}),
        ("counts", 200, "counts", {"instances": [[1, 2, 3, 4]]}),
        ("counts that are none", 400, "counts", {"instances": [[1, 2, 3, 4.5]]}),
        ("odd names", 200, "odd.names_1", {"inputs": {"größe": [1], "日本": [2], 'a "b"\\c': [3], " ": [4]}}),
        ("columns called like words", 200, "words", {"instances": [{"instances": 1, "columns": 2, "outputs": 3}]}),
        ("unknown keys", 200, "numbers", {"instances": [ROW], "parameters": {"x": 1}, "id": 7, "outputs": ["nope"]}),
        ("no rows", 400, "numbers", {"instances": []}),
        ("no key", 400, "numbers", {"rows": [ROW]}),
        ("both keys", 400, "numbers", {"instances": [ROW], "inputs": [ROW]}),
        ("short row", 400, "numbers", {"instances": [ROW[:3]]}),
        ("scalar rows", 400, "numbers", {"instances": [1.0, 2.0]}),
        ("mixed rows", 400, "numbers", {"instances": [ROW, {"x0": 1}]}),
        ("null", 400, "numbers", {"instances": [[None, 1, 2, 3]]}),
        ("list for a body", 400, "numbers", [ROW]),
        ("text for a number", 400, "numbers", {"instances": [["1", 2, 3, 4]]}),
        ("truth for a number", 400, "numbers", {"instances": [[True, 2, 3, 4]]}),
        ("many rows", 200, "numbers", {"instances": [ROW] * 200}),
    ):
        yield _ask(name, status, model, body)


def signatures() -> Iterator[Case]:
    for name, status, model in (
        ("", 200, "numbers"),
        ("serving_default", 200, "numbers"),
        ("predict_proba", 200, "numbers"),
        ("predict_log_proba", 200, "certain"),  # minus infinity among them
        ("predict_proba", 200, "two-kinds"),
        ("decision_function", 200, "outliers"),
        ("transform", 200, "scaled"),
        ("predict", 400, "scaled"),
        ("nope", 400, "numbers"),
    ):
        yield _ask(f"signature {name!r} of {model}", status, model, {"signature_name": name, "instances": [ROW]})
    yield _ask("signature in columns", 200, "two-kinds", {"signature_name": "predict_proba", "inputs": [ROW]})
    yield _ask("signature that is no text", 400, "numbers", {"signature_name": 1, "instances": [ROW]})


def examples() -> Iterator[Case]:
    by_name = {f"x{i}": value for i, value in enumerate(ROW)}
    in_lists = {name: [value] for name, value in by_name.items()}
    rest = {name: value for name, value in by_name.items() if name != "x0"}
    one = {"examples": [by_name]}
    for name, status, model, verb, body in (
        ("classify", 200, "numbers", "classify", {"examples": [by_name, by_name]}),
        ("classify lists", 200, "numbers", "classify", {"examples": [in_lists]}),
        ("classify people", 200, "people", "classify", {"examples": [PERSON]}),
        ("classify texts", 200, "opinions", "classify", {"examples": [{"text": "great fun"}]}),
        ("classify in context", 200, "numbers", "classify", {"context": {"x0": 1}, "examples": [rest]}),
        ("classify twice the same", 400, "numbers", "classify", {"context": {"x0": 1}, **one}),
        ("classify by signature", 200, "numbers", "classify", {"signature_name": "predict_proba", **one}),
        ("classify by another signature", 400, "numbers", "classify", {"signature_name": "predict", **one}),
        ("classify a matrix", 200, "numbers", "classify", {"examples": [{"input-0": ROW}]}),
        ("classify nothing", 400, "numbers", "classify", {}),
        ("classify instances", 400, "numbers", "classify", {"instances": [ROW]}),
        ("classify several targets", 400, "two-kinds", "classify", one),
        ("classify amounts", 400, "amounts", "classify", one),
        ("classify by a transformer", 400, "scaled", "classify", one),
        ("regress", 200, "amounts", "regress", {"examples": [by_name, by_name]}),
        ("regress by the default", 200, "amounts", "regress", {"signature_name": "serving_default", **one}),
        ("regress a classifier", 400, "numbers", "regress", one),
        ("regress two amounts", 400, "two-amounts", "regress", one),
        ("regress outliers", 400, "outliers", "regress", one),
        ("explain", 501, "numbers", "explain", {"instances": [ROW]}),
    ):
        yield _ask(name, status, model, body, verb)


def bodies() -> Iterator[Case]:
    content = json.dumps({"instances": [ROW]}).encode()
    for name, status, body in (
        ("NaN", 400, b'{"instances": [[NaN, 1, 2, 3]]}'),
        ("Infinity", 400, b'{"instances": [[1, -Infinity, 2, 3]]}'),
        ("too large a number", 400, b'{"instances": [[1e400, 1, 2, 3]]}'),
        ("large integer", 400, b'{"instances": [[9007199254740993, 1, 2, 3]]}'),
        ("long integer", 400, b'{"instances": [[1' + b"0" * 400 + b", 1, 2, 3]]}"),
        ("empty", 400, b""),
        ("no JSON", 400, b"instances=1"),
        ("cut off", 400, content[:-1]),
        ("more behind it", 400, content + b"x"),
        ("no UTF-8", 400, b'{"instances": ["\xff"]}'),
        ("deep", 400, b'{"instances": ' + b"[" * 2000 + b"]" * 2000 + b"}"),
        ("deep base64", 400, b'{"instances": ' + b"[" * 900 + b'{"b64": "AA=="}' + b"]" * 900 + b"}"),
        ("null", 400, b"null"),
        ("white space around", 200, b" \n" + content + b"\t "),
        ("twice the same key", 200, b'{"instances": [], ' + content[1:]),
    ):
        yield _ask(f"body: {name}", status, "numbers", body)
    yield _ask(
        "missing age as NaN", 200, "people", json.dumps({"instances": [{**PERSON, "age": float("nan")}]}).encode()
    )
    yield _ask("too large", 413, "numbers", b" " * (MAX_BODY_BYTES + 1))
    yield _ask("chunks", 200, "numbers", None, chunks=[content[:5], content[5:]])
    for types in ((FORM,), (), (("Content-Type", "text/plain; charset=latin-1"),), (JSON,)):
        yield _ask(f"content type {types}", 200, "numbers", content, headers=types)
    yield _ask("gzip", 200, "numbers", gzip.compress(content, mtime=0), headers=(("Content-Encoding", "gzip"),))
    yield _ask("deflate", 200, "numbers", zlib.compress(content), headers=(("Content-Encoding", "deflate"),))
    yield _ask("bad gzip", 400, "numbers", content, headers=(("Content-Encoding", "gzip"),))
    yield _ask("unknown coding", 501, "numbers", content, headers=(("Content-Encoding", "br"),))
    yield _ask("no time", 400, "numbers", content, headers=(("X-Request-Timeout-Ms", "0"),))
    long = {"signature_name": "predict_proba", "instances": [ROW] * 100}
    yield _ask("long reply for whom reads gzip", 200, "numbers", long, headers=(("Accept-Encoding", "gzip"),))
    yield several(
        "v1 three on one connection",
        _ask("first", 200, "numbers", {"instances": [ROW]}),
        _ask("second is refused", 400, "numbers", {"instances": [[]]}),
        _ask("third", 200, "amounts", {"inputs": [ROW]}),
    )


CASES: Final = (*every_method(), *paths(), *rows(), *signatures(), *examples(), *bodies())
