"""TorchServe's inference API, and its management API where nobody may load or unload a model."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from tests.conformance.corpus import COLOURS, JSON, METHODS, PERSON, ROW, Case, case

NUMBERS: Final = "/predictions/numbers"


def answers() -> Iterator[Case]:
    """Every kind of model, and every form of a body."""
    for name in ("numbers", "forest", "amounts", "two-kinds", "two-amounts", "scaled", "outliers", "certain"):
        rows: list[Any] = [ROW, ROW[::-1]]
        if name == "forest":
            rows = [dict(zip("abcd", row, strict=True)) for row in rows]
        yield case(f"{name}: rows", 200, f"/predictions/{name}", rows)
    for name, content in {
        "people": [PERSON, {**PERSON, "age": None, "city": None}],
        "one-hot": [COLOURS, {**COLOURS, "colour": "violet"}],
        "opinions": ["great fun", "bad food"],
        "counts": [[1, 2, 3, 4]],
    }.items():
        yield case(f"{name}: a list", 200, f"/predictions/{name}", content)
    flat = {f"x{index}": value for index, value in enumerate(ROW)}
    forms: dict[str, Any] = {
        "a record": flat,
        "records": [flat, flat],
        "data": {"data": [ROW]},
        "body": {"body": [ROW]},
        "a record as data": {"data": flat},
        "instances": {"instances": [ROW]},
        "instances as data": {"data": {"instances": [ROW]}},
        "columns": {"columns": {key: [value] for key, value in flat.items()}},
        "outputs": {"instances": [ROW], "outputs": ["predict", "predict_proba"]},
        "many rows": {"instances": [ROW] * 200},
    }
    for name, content in forms.items():
        yield case(f"form: {name}", 200, NUMBERS, content)
        yield case(f"form without a type: {name}", 200, NUMBERS, content, headers=())
    for output in ("predict", "predict_proba", "decision_function", "predict,predict_proba"):
        yield case(f"output {output}", 200, f"{NUMBERS}?outputs={output}", [ROW])
    yield case("-inf is null", 200, "/predictions/certain?outputs=predict_log_proba", [ROW])
    yield case("bytes", 200, NUMBERS, [ROW], headers=(("Content-Type", "application/octet-stream"),))
    yield case("gzip", 200, NUMBERS, gzip.compress(b"[[1, 2, 3, 4]]", mtime=0),
               headers=(JSON, ("Content-Encoding", "gzip")))  # fmt: skip
    yield case("CSV", 200, NUMBERS, b"x0,x1,x2,x3\n1,2,3,4\n", headers=(("Content-Type", "text/csv"),))
    yield case("chunks", 200, NUMBERS, chunks=[b"[[1, 2,", b" 3, 4]]"])


def targets() -> Iterator[Case]:
    """Versions: TorchServe's have a fraction."""
    row = [[0.5, -0.5]]
    for version, status in {
        "1": 200, "3": 200, "2.0": 200, "%32": 200, "9": 404, "9.0": 404, "0": 404, "01": 404, "1.5": 404, "1.00": 404,
        "x": 404, "-1": 404, ".0": 404, "%D9%A1": 404, "stable": 404,
    }.items():  # fmt: skip
        yield case(f"version {version}", status, f"/predictions/versions/{version}", row)
    yield case("the stable version", 200, "/predictions/versions", row)
    for name in ("nobody", "m%C3%BCller", "%00", "..", "n" * 300):
        yield case(f"model {name[:20]}", 404, f"/predictions/{name}", row)
        yield case(f"model {name[:20]} with a version", 404, f"/predictions/{name}/1", row)


def refusals() -> Iterator[Case]:
    """Bodies that hold no rows of the model."""
    bodies: dict[str, Any] = {
        "empty": b"",
        "blank": b"  ",
        "no JSON": b"{",
        "an image": b"\xff\xd8\xff\xe0",
        "NaN": b"[[NaN, 1, 2, 3]]",
        "a number": 1,
        "null": b"null",
        "a text": "text",
        "no rows": [],
        "an empty object": {},
        "values without rows": ROW,
        "a short row": [[1, 2, 3]],
        "a long row": [[1, 2, 3, 4, 5]],
        "a text as number": [["1", 2, 3, 4]],
        "a truth as number": [[True, 2, 3, 4]],
        "null as number": [[None, 2, 3, 4]],
        "a number no float holds": b"[[1e400, 2, 3, 4]]",
        "an integer that loses digits": [[2**53 + 1, 2, 3, 4]],
        "rows and records": [ROW, {"x0": 1}],
        "data within data": {"data": {"data": [ROW]}},
        "something beside data": {"data": [ROW], "x": 1},
        "data and body": {"data": [ROW], "body": [ROW]},
        "an unknown column": [{"x9": 1}],
        "an unknown output": {"instances": [ROW], "outputs": ["nothing"]},
        "instances and columns": {"instances": [ROW], "columns": {}},
        "too deep": b"[" * 2000 + b"]" * 2000,
    }
    for name, body in bodies.items():
        yield case(f"body: {name}", 400, NUMBERS, body)
    yield case("an unknown output in the query", 400, f"{NUMBERS}?outputs=nothing", [ROW])
    yield case("a body that is too large", 413, NUMBERS, b"[" + b" " * 70000 + b"]")
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png"):
        yield case(f"type {kind}", 400, NUMBERS, [ROW], headers=(("Content-Type", kind),))
    yield case("another charset", 400, NUMBERS, [ROW], headers=(("Content-Type", "application/json; charset=latin-1"),))
    yield case("an unknown coding", 400, NUMBERS, [ROW], headers=(JSON, ("Content-Encoding", "br")))
    yield case("a coding that is none", 400, NUMBERS, [ROW], headers=(JSON, ("Content-Encoding", "gzip")))
    yield case("a deadline that is none", 400, NUMBERS, [ROW], headers=(JSON, ("X-Request-Timeout-Ms", "soon")))


def methods() -> Iterator[Case]:
    for method in METHODS:
        takes = method in ("GET", "HEAD", "POST", "PUT")
        for path in ("/predictions/versions", "/predictions/versions/1"):
            yield case(f"{method} {path}", 200 if takes else 405, path, [[0.5, -0.5]], method=method)
        yield case(f"{method} /ping", 200 if method in ("GET", "HEAD") else 405, "/ping", method=method)
    for path in (
        "/predictions",
        "/predictions/",
        "/predictions/numbers/",
        "/predictions/a/1/b",
        "/Predictions/numbers",
    ):
        yield case(f"path {path}", 404, path, [ROW])


def management() -> Iterator[Case]:
    """What changes models is not for callers of these servers, whatever they say."""
    yield case("register", 403, "/models?url=numbers.mar", b"", headers=())
    yield case("register what is unknown", 403, "/models?url=nobody.mar", b"")
    yield case("register by a body", 403, "/models", {"model_name": "numbers", "url": "/opt/ml/models/numbers/model"})
    yield case("unregister", 403, "/models/numbers", method="DELETE")
    yield case("scale", 403, "/models/numbers?min_worker=3", method="PUT")
    yield case("scale what is unknown", 403, "/models/nobody?min_worker=x", method="PUT")
    yield case("set-default", 403, "/models/versions/1/set-default", method="PUT")
    for method in METHODS:
        if method != "PUT":
            yield case(f"{method} set-default", 405, "/models/versions/1/set-default", method=method)
    yield case("list the models", 200, "/models?limit=2")
    yield case("describe a model", 200, "/models/amounts")


CASES: Final = tuple(
    replace(one, name=f"torchserve: {one.name}")
    for part in (answers, targets, refusals, methods, management)
    for one in part()
)
