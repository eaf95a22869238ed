"""Requests, good, bad and odd, with the status that each deserves.

A case is data: what is sent on one connection, byte for byte, and the statuses that come
back. `test_same_bytes.py` sends each to every server and compares all that came.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

from service.protocols.routes import by_path
from service.settings import DialectName
from tests.conformance.wire import request

# The servers of this corpus are started with this limit.
MAX_BODY_BYTES: Final = 65536
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
JSON: Final = ("Content-Type", "application/json")

ROW: Final = [0.1, -0.2, 0.3, 0.4]
PERSON: Final = {
    "age": 41.5, "city": "Graz", "plan": "pro", "member": True, "since": "2025-02-28", "visits": 12,
}  # fmt: skip
COLOURS: Final = {"colour": "red", "size": "M"}


@dataclass(frozen=True, slots=True)
class Case:
    """`messages` go over one connection, one after another or `at_once`; `statuses` are those of the replies."""

    name: str
    messages: tuple[bytes, ...]
    statuses: tuple[int, ...]
    at_once: bool = False


def case(
    name: str,
    status: int,
    target: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: tuple[tuple[str, str], ...] = (JSON,),
    **options: Any,
) -> Case:
    """One request with an id of its own. A `body` that is not bytes is sent as JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body, ensure_ascii=False).encode()
    method = method or ("GET" if body is None and "chunks" not in options else "POST")
    identified = (*headers, ("X-Request-Id", request_id(name)))
    return Case(name, (request(method, target, body, headers=identified, **options),), (status,))


def several(name: str, *cases: Case, at_once: bool = False) -> Case:
    """Several requests on one connection."""
    messages = tuple(message for one in cases for message in one.messages)
    return Case(name, messages, tuple(status for one in cases for status in one.statuses), at_once)


def request_id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:100]


def every_method() -> Iterator[Case]:
    """Every route with every method: what it takes is answered, what it does not take is 405 with `allow`."""
    for path, routes in by_path().items():
        target = (
            path.replace("{name}", "versions").replace("{version}", "1").replace("{label}", "old")
            .replace("{file}", "start.js")
        )  # fmt: skip
        for method in own_methods(path):
            if "POST" in routes:
                # `POST /predict` names no model, and there are several and no default.
                answered = 415 if routes["POST"].reads_pieces else 404 if path == "/predict" else 200
                status = answered if method == "POST" else 405
                body: Any = {"x0": 0.5, "x1": -0.5}
            else:
                answered = 426 if any(route.upgrades for route in routes.values()) else 200
                status = answered if method in ("GET", "HEAD") else 405
                body = None
            yield case(f"{method} {path}", status, target, body, method=method)


def own_methods(path: str) -> list[str]:
    """Those that no other dialect answers on this path of the native one, and that every server answers alike."""
    if path == "/metrics":
        return [method for method in METHODS if method not in ("GET", "HEAD")]  # figures of each server's own
    own, all_of_them = by_path()[path], by_path(get_args(DialectName))[path]
    return [method for method in METHODS if method in own or method not in all_of_them]


def paths() -> Iterator[Case]:
    """Paths that no route has, and parameters that mean nothing."""
    for target, status in {
        "/": 200,
        "/nowhere": 404,
        "/nowhere/at/all": 404,
        "/models/": 404,
        "/models/numbers/": 404,
        "/models/numbers/predict/extra": 404,
        "//models": 404,
        "/models//numbers": 404,
        "/models//": 404,
        "///models": 404,
        "/%2Fmodels": 404,
        "/./models": 404,
        "/models\\numbers": 404,
        "/models/numbers%3Foutputs": 404,
        "/%6Dodels": 200,
        "/models#fragment": 200,
        "/models?&&&===": 200,
        "http://tandem.test/models": 200,
        "/docs/": 404,
        "/docs/nothing.js": 404,
        "/docs/..%2Fopenapi.json": 404,
        "/docs/%2e%2e": 404,
        "/health/live/": 404,
        "/Health/Live": 404,
        "/health/live?x=1&x=2": 200,
        "/health/live?": 200,
        "/health/live?%FF=%zz": 200,
        "/health/%6Cive": 200,
        "/openapi.json": 200,
        "/openapi.JSON": 404,
        "/openapi%2Ejson": 200,
        "/docs/swagger-ui.css": 200,
        "/docs/swagger-ui-bundle.js": 200,
        "/docs/favicon-32x32.png": 200,
        "/models/nobody": 404,
        "/models/..": 404,
        "/models/.": 404,
        "/models/../models": 404,
        "/models/%2e%2e": 404,
        "/models/%2e%2e%2f%2e%2e%2fetc": 404,
        "/models/n%75mbers": 200,
        "/models/NUMBERS": 404,
        "/models/numbers%20": 404,
        "/models/numbers%2Fpredict": 405,
        "/models/%2Fnumbers": 404,
        "/models/odd.names_1": 200,
        "/models/two-kinds": 200,
        "/models/m%C3%BCller": 404,
        "/models/%E6%97%A5%E6%9C%AC": 404,
        "/models/%F0%9F%A6%8A": 404,
        "/models/%FF%FE": 404,
        "/models/%": 404,
        "/models/%zz": 404,
        "/models/%25": 404,
        "/models/%250": 404,
        "/models/a+b": 404,
        "/models/a;b=c": 404,
        "/models/%3Cscript%3E": 404,
        "/models/" + "n" * 300: 404,
        "/models/" + "n" * 3000: 404,
        "/models/-": 404,
        "/models/%00": 404,
        "/models/%0A": 404,
        "/models/a%0D%0Ab": 404,
        "/models/numbers/versions": 404,
        "/models/numbers/versions/1": 404,
        "/models/numbers/labels/stable": 404,
        "/models/numbers/predict": 405,
    }.items():
        shown = target if len(target) < 60 else f"{target[:20]} of {len(target)} characters"
        yield case(f"path {shown}", status, target)
    for method in ("TRACE", "PROPFIND", "REPORT"):
        yield case(f"{method} where only GET is", 405, "/models", method=method)
        yield case(f"{method} to nowhere", 404, "/nowhere", method=method)
    yield case("OPTIONS of the whole server", 404, "*", method="OPTIONS")
    yield case("HEAD of nowhere", 404, "/nowhere", method="HEAD")


def targets() -> Iterator[Case]:
    """Which model, version and label answers."""
    row = {"x0": 0.5, "x1": -0.5}
    yield case("a version by number", 200, "/models/versions/versions/3/predict", row)
    for version in (
        "0", "-1", "01", "1e3", "999", "abc", "1.0", "+1", "%31%20", "1%0A", "%00", "1000000000", "%D9%A1", "9" * 30,
    ):  # fmt: skip
        yield case(f"version {version}", 404, f"/models/versions/versions/{version}/predict", row)
    yield case("version with an encoded digit", 200, "/models/versions/versions/%32/predict", row)
    yield case("version that is no number of an unknown model", 404, "/models/nobody/versions/abc/predict", row)
    yield case("version of a name in Latin-1", 404, "/models/%FF/versions/abc/predict", row)
    yield case("version of an unknown model", 404, "/models/nobody/versions/1/predict", row)
    for label, status in {"stable": 200, "candidate": 200, "old": 200, "nobody": 404, "2": 404, "%C3%A4": 404}.items():
        yield case(f"label {label}", status, f"/models/versions/labels/{label}/predict", row)
    yield case("a label where none is set", 404, "/models/numbers/labels/stable/predict", {"instances": [ROW]})
    yield case("an unknown model", 404, "/models/nobody/predict", row)
    yield case("an unknown model and a bad body", 404, "/models/nobody/predict", b"{")
    yield case("no model named", 404, "/predict", row)
    yield case("a name of 300 characters", 404, f"/models/{'n' * 300}/predict", row)
    yield case("a name in unicode", 404, "/models/m%C3%BCller/predict", row)
    yield case("a name with a slash in it", 404, "/models/a%2Fb/predict", row)


def answers() -> Iterator[Case]:
    """Every model in every form, and every output."""
    flat = {f"x{index}": value for index, value in enumerate(ROW)}
    for name in ("numbers", "amounts", "two-kinds", "two-amounts", "scaled", "outliers", "certain"):
        target = f"/models/{name}/predict"
        yield case(f"{name}: a record", 200, target, flat)
        yield case(f"{name}: instances", 200, target, {"instances": [ROW, ROW[::-1]]})
        yield case(f"{name}: instances as objects", 200, target, {"instances": [flat, flat]})
        yield case(f"{name}: columns", 200, target, {"columns": {key: [value] * 3 for key, value in flat.items()}})
    yield case("forest: float32", 200, "/models/forest/predict", {"a": 0.1, "b": 1e-45, "c": -3.4e38, "d": 16777216})
    yield case("people: a record", 200, "/models/people/predict", PERSON)
    holes = {**PERSON, "age": None, "city": None, "plan": None, "visits": None}
    yield case("people: nulls", 200, "/models/people/predict", {"instances": [PERSON, holes]})
    yield case("people: only what must be there", 200, "/models/people/predict", {"since": "2025-02-28T12:30:00"})
    yield case("one-hot: sparse rows", 200, "/models/one-hot/predict", {"instances": [["red", "M"], ["puce", None]]})
    yield case("one-hot: one sparse row", 200, "/models/one-hot/predict", COLOURS)
    texts = {"instances": ["great fun", "bad", "", "größe 日本 🦊 \u0000"]}
    yield case("opinions: texts", 200, "/models/opinions/predict", texts)
    yield case("opinions: a record", 200, "/models/opinions/predict", {"text": "great"})
    yield case("opinions: texts in lists", 200, "/models/opinions/predict", {"instances": [["great"], ["bad"]]})
    odd = {"größe": 1, "日本": 2, 'a "b"\\c': 3, " ": 4}
    yield case("columns in unicode", 200, "/models/odd.names_1/predict", odd)
    escaped = json.dumps(odd).encode()
    yield case("columns in unicode, escaped", 200, "/models/odd.names_1/predict", escaped)
    yield case("columns called as our words", 200, "/models/words/predict",
               {"instances": [{"instances": 1, "columns": 2, "outputs": 3}]})  # fmt: skip
    yield case("columns called as our words, flat", 422, "/models/words/predict",
               {"instances": 1, "columns": 2, "outputs": 3})  # fmt: skip
    yield case("int8 at its ends", 200, "/models/counts/predict", {"instances": [[127, -128, 0, 1.0]]})
    yield case("labels in the describe of a model", 200, "/models/versions")

    every = {"numbers": "predict,predict_proba,predict_log_proba,decision_function",
             "certain": "predict_log_proba,predict",
             "two-kinds": "predict_proba,predict", "outliers": "score_samples,decision_function,predict"}  # fmt: skip
    for name, outputs in every.items():
        rows = {"instances": [ROW, [5.0, 5.0, 5.0, 5.0]]}
        yield case(f"{name}: outputs in the query", 200, f"/models/{name}/predict?outputs={outputs}", rows)
        yield case(f"{name}: outputs in the body", 200, f"/models/{name}/predict",
                   {**rows, "outputs": outputs.split(",")})  # fmt: skip
        yield case(f"{name}: outputs of one record", 200, f"/models/{name}/predict?outputs={outputs}", flat)


def outputs() -> Iterator[Case]:
    """What can be asked of `outputs`, in the query and in the body."""
    rows = {"instances": [ROW]}
    for query, status in {
        "outputs=predict": 200,
        "outputs=predict&outputs=predict_proba": 200,
        "outputs=nothing&outputs=predict": 200,
        "outputs=predict&outputs=nothing": 422,
        "outputs=predict,predict": 200,
        "outputs=": 422,
        "outputs": 422,
        "outputs=,": 422,
        "outputs=predict,": 422,
        "outputs=predict%2Cpredict_proba": 200,
        "outputs=predict predict".replace(" ", "+"): 422,
        "outputs=%FF": 422,
        "outputs=transform": 422,
        "outputs=__class__": 422,
        "Outputs=nothing": 200,
        "outputs=predict;outputs=nothing": 422,
        "outputs=predict#fragment".replace("#", "%23"): 422,
        "=&&=&outputs=predict": 200,
        "other=1": 200,
        "outputs=" + "p" * 2000: 422,
    }.items():
        yield case(f"query {query[:60]}", status, f"/models/numbers/predict?{query}", rows)
    for wanted, status in {
        '["predict_proba"]': 200,
        '["predict", "predict"]': 200,
        "null": 200,
        "[]": 422,
        '"predict"': 422,
        "[1]": 422,
        '[["predict"]]': 422,
        '[{"a": 1}]': 422,
        "[null]": 422,
        '["fit"]': 422,
        "{}": 422,
        "true": 422,
    }.items():
        body = b'{"instances": [[0.1, -0.2, 0.3, 0.4]], "outputs": %s}' % wanted.encode()
        yield case(f"outputs {wanted}", status, "/models/numbers/predict", body)
    yield case("outputs in the body before those in the query", 200, "/models/numbers/predict?outputs=predict_proba",
               {**rows, "outputs": ["predict"]})  # fmt: skip
    yield case("outputs in the body, and unknown ones in the query", 422, "/models/numbers/predict?outputs=nothing",
               {**rows, "outputs": ["predict"]})  # fmt: skip


def bodies() -> Iterator[Case]:
    """Bodies as bytes: coding, size and JSON itself."""
    target = "/models/numbers/predict"
    good = json.dumps({"instances": [ROW]}).encode()
    for name, body, status in (
        ("empty", b"", 400),
        ("blank", b" \r\n\t ", 400),
        ("cut", good[:-3], 400),
        ("twice", good + good, 400),
        ("with a byte order mark", b"\xef\xbb\xbf" + good, 400),
        ("in UTF-16", good.decode().encode("utf-16"), 400),
        ("with a bad UTF-8 byte", b'{"x\xff": 1}', 400),
        ("with an overlong UTF-8 sequence", b'{"x\xc0\xaf": 1}', 400),
        ("with half a surrogate pair", b'{"\\ud800": 1}', 400),
        ("with half a surrogate pair and a huge number", b'{"\\ud800": 1e400}', 400),
        ("with a NUL", b"\x00" + good, 400),
        ("with a trailing comma", b'{"instances": [[1, 2, 3, 4],]}', 400),
        ("with a comment", b'{"instances": [[1, 2, 3, 4]] /* rows */}', 400),
        ("with single quotes", b"{'instances': [[1, 2, 3, 4]]}", 400),
        ("with NaN", b'{"instances": [[NaN, 2, 3, 4]]}', 400),
        ("with Infinity", b'{"instances": [[-Infinity, 2, 3, 4]]}', 400),
        ("with NaN and a huge number", b'{"instances": [[NaN, 1e999, 3, 4]]}', 400),
        ("with a leading zero", b'{"instances": [[01, 2, 3, 4]]}', 400),
        ("with a leading plus", b'{"instances": [[+1, 2, 3, 4]]}', 400),
        ("with a number of hexadecimal digits", b'{"instances": [[0x1, 2, 3, 4]]}', 400),
        ("with blanks around", b"\r\n\t " + good + b"\r\n", 200),
        ("of a list", b"[[1, 2, 3, 4]]", 422),
        ("of a number", b"1", 422),
        ("of a string", b'"x"', 422),
        ("of null", b"null", 422),
        ("of true", b"true", 422),
        ("of an empty object", b"{}", 422),
        ("of an empty list", b"[]", 422),
        ("with the key twice", b'{"instances": [[9]], "instances": [[1, 2, 3, 4]]}', 200),
        ("nested 32 lists deep", b"[" * 32 + b"]" * 32, 422),
        ("nested 33 lists deep", b"[" * 33 + b"]" * 33, 400),
        ("nested 30000 lists deep", b"[" * 30000 + b"]" * 30000, 400),
        ("nested deep behind a huge number", b'{"x0": 1e999, "x1": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400),
        ("with a cell nested deep", b'{"instances": [[' + b"[" * 500 + b"]" * 500 + b", 2, 3, 4]]}", 400),
        ("with an integer of 1001 digits", b'{"instances": [[' + b"9" * 1001 + b", 2, 3, 4]]}", 400),
        ("with an integer of 1000 digits", b'{"instances": [[' + b"9" * 1000 + b", 2, 3, 4]]}", 422),
        ("with an integer of 400 digits", b'{"instances": [[' + b"9" * 400 + b", 2, 3, 4]]}", 422),
        ("with an integer of 64 bits", b'{"instances": [[18446744073709551616, 2, 3, 4]]}', 200),
        ("with an integer that rounds", b'{"instances": [[9007199254740993, 2, 3, 4]]}', 422),
        ("with 1e400", b'{"instances": [[1e400, 2, 3, 4]]}', 422),
        ("with 1e308", b'{"instances": [[1e308, 2, 3, 4]]}', 200),
        ("with 5e-324", b'{"instances": [[5e-324, 1e-400, -0.0, 4]]}', 200),
        ("with many digits", b'{"instances": [[0.1000000000000000055511151231257827, 2, 3, 4]]}', 200),
    ):
        yield case(f"a body {name}", status, target, body)
    filled = good[:-1] + b', "outputs": ["predict"' + b" " * MAX_BODY_BYTES
    at_limit = filled[: MAX_BODY_BYTES - 2] + b"]}"
    yield case("a body at the limit", 200, target, at_limit)
    yield case("a body over the limit", 413, target, at_limit + b" ")
    yield case("a body far over the limit", 413, target, at_limit * 4)
    yield case("a body over the limit to nowhere", 404, "/nowhere", at_limit + b" ")
    yield case("a body over the limit with a wrong method", 405, target, at_limit + b" ", method="PUT")
    yield case("a body in one chunk", 200, target, chunks=[good])
    yield case("a body of chunks of one byte", 200, target, chunks=[good[i : i + 1] for i in range(len(good))])
    yield case("an empty body in chunks", 400, target, chunks=[], method="POST")
    yield case("a body in chunks at the limit", 200, target, chunks=[at_limit[:30000], at_limit[30000:]])
    yield case("a body in chunks over the limit", 413, target, chunks=[at_limit[:30000], at_limit[30000:], b" "])
    coded = b"%x;extension=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(good), good)
    chunked = ("Transfer-Encoding", "chunked")
    yield Case("a chunk with an extension and a trailer", (request("POST", target, headers=(
        JSON, chunked, ("X-Request-Id", "chunk-with-extension"))) + coded,), (200,))  # fmt: skip
    yield case("a POST without a body", 400, target, method="POST")
    yield case("a GET with a body", 200, "/models", {"instances": [ROW]}, method="GET")
    yield case("a GET with a body over the limit", 413, "/models", b" " * (MAX_BODY_BYTES + 1), method="GET")


def headers() -> Iterator[Case]:
    """Content types and codings, request ids, and headers that come twice."""
    target = "/models/numbers/predict"
    good = {"instances": [ROW]}
    for kind, status in {
        "application/json": 200,
        "APPLICATION/JSON": 200,
        "application/json; charset=utf-8": 200,
        "application/json;charset=UTF-8": 200,
        'application/json; charset="utf-8"': 200,
        "application/json; charset=utf8": 200,
        "application/json; charset=latin-1": 415,
        "application/json; charset=utf-16": 415,
        "application/json; charset=": 200,
        "application/json;": 200,
        "application/json ; odd=1": 200,
        "application/jsonx": 415,
        "application/vnd.api+json": 415,
        "text/json": 415,
        "text/plain": 415,
        "application/x-www-form-urlencoded": 415,
        "multipart/form-data; boundary=x": 415,
        "": 415,
        ";": 415,
        "json": 415,
        "text/plain; " + "x" * 200: 415,
    }.items():
        yield case(f"content type {kind[:60]!r}", status, target, good, headers=(("Content-Type", kind),))
    yield case("no content type", 415, target, good, headers=())
    for coding, status in {"identity": 200, "": 200, "IDENTITY": 200, "gzip": 400, "br": 415, "gzip, br": 415}.items():
        yield case(f"content coding {coding!r}", status, target, good, headers=(JSON, ("Content-Encoding", coding)))
    packed = gzip.compress(json.dumps(good).encode(), mtime=0)
    yield case("a body that is coded", 200, target, packed, headers=(JSON, ("Content-Encoding", "gzip")))
    yield case("a body that is coded, unsaid", 400, target, packed)
    deflated = zlib.compress(json.dumps(good).encode())
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES + 1), mtime=0)
    for what, status, coding, body in (
        ("and cut off", 400, "gzip", packed[:-1]), ("and deflated", 200, "deflate", deflated),
        ("and too large once it is not", 413, "gzip", bomb),
    ):  # fmt: skip
        yield case(f"a body that is coded {what}", status, target, body, headers=(JSON, ("Content-Encoding", coding)))
    yield case("only another type accepted", 406, target, good, headers=(JSON, ("Accept", "text/html")))
    yield case("a cross-origin request", 200, target, good, headers=(JSON, ("Origin", "https://elsewhere.test")))
    yield case("a preflight", 405, target, method="OPTIONS", headers=(
        ("Origin", "https://elsewhere.test"), ("Access-Control-Request-Method", "POST")))  # fmt: skip
    yield case("a range", 200, "/docs/start.js", headers=(("Range", "bytes=0-3"),))
    yield case("a condition", 200, "/docs/start.js", headers=(("If-None-Match", "*"),))
    yield case("method override", 405, "/health/live", {}, method="POST", headers=(("X-HTTP-Method-Override", "GET"),))
    yield case("a name in a forwarded header", 200, "/models", headers=(("X-Forwarded-Prefix", "/x"),))
    yield case("a header twice", 200, target, good, headers=(JSON, ("X-Odd", "a"), ("X-Odd", "b")))
    twice = (JSON, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip"))
    yield case("two content codings", 415, target, good, headers=twice)
    yield case("a content type between tabs", 200, target, good, headers=(("Content-Type", "\tapplication/json\t"),))
    yield case("a content type spelt with an underscore", 415, target, good,
               headers=(("Content_Type", "application/json"),))  # fmt: skip
    yield case("a cookie", 200, "/models", headers=(("Cookie", "a=b; c"),))
    yield case("ninety headers", 200, "/models", headers=tuple((f"X-Odd-{i}", "a") for i in range(90)))
    proxy = (("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1"))
    yield case("an address behind a proxy", 200, "/models", headers=proxy)
    upgrade = (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk"))
    yield case("an upgrade to HTTP/2", 200, "/models", headers=upgrade)
    websocket = (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                 ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))  # fmt: skip
    yield case("an upgrade to WebSocket", 200, "/models", headers=websocket)
    yield case("a script name", 200, "/models", headers=(("SCRIPT_NAME", "/elsewhere"),))
    yield case("a header of 4000 characters", 200, target, good, headers=(JSON, ("X-Odd", "a" * 4000)))
    yield case("header names in odd case", 200, target, good, headers=(("cOnTeNt-TyPe", "application/json"),))


def cells() -> Iterator[Case]:
    """Rows that do not fit: each kind of column with what it does not take."""
    numbers = "/models/numbers/predict"
    for name, body in {
        "a row too short": {"instances": [[1, 2, 3]]},
        "a row too long": {"instances": [[1, 2, 3, 4, 5]]},
        "rows of other lengths": {"instances": [ROW, [1], []]},
        "no rows": {"instances": []},
        "rows that are no list": {"instances": 1},
        "rows of numbers": {"instances": [1, 2, 3, 4]},
        "rows as lists and objects": {"instances": [ROW, {"x0": 1}]},
        "rows of null": {"instances": [None]},
        "instances and columns": {"instances": [ROW], "columns": {}},
        "a field beside instances": {"instances": [ROW], "parameters": {}},
        "no columns": {"columns": {}},
        "columns that are a list": {"columns": [1]},
        "columns without values": {"columns": {f"x{i}": [] for i in range(4)}},
        "columns of other lengths": {"columns": {"x0": [1], "x1": [1, 2], "x2": [1], "x3": [1]}},
        "a column missing": {"columns": {"x0": [1], "x1": [1], "x2": [1]}},
        "a column too many": {"columns": {f"x{i}": [1] for i in range(5)}},
        "a column that is no list": {"columns": {"x0": 1, "x1": [1], "x2": [1], "x3": [1]}},
        "a key missing": {"x0": 1, "x1": 1, "x2": 1},
        "a key too many": {"x0": 1, "x1": 1, "x2": 1, "x3": 1, "größe": 1},
        "only outputs": {"outputs": ["predict"]},
        "a very long key": {"x" * 5000: 1},
    }.items():
        yield case(name, 422, numbers, body)
    for shown, value in {
        "true": True, "a string": "1.5", "null": None, "a list": [1], "an object": {"a": 1},
        "a long string": "9" * 3000,
    }.items():  # fmt: skip
        yield case(f"a number that is {shown}", 422, numbers, {"instances": [[value, 1, 1, 1]]})
    yield case("many wrong cells", 422, numbers, {"instances": [["x", None, True, 1]] * 50})
    yield case("float32: too large", 422, "/models/forest/predict", {"a": 1e39, "b": 1, "c": 1, "d": 1})
    yield case(
        "float32: an integer that rounds", 422, "/models/forest/predict", {"a": 16777217, "b": 1, "c": 1, "d": 1}
    )
    for value in (128, -129, 1.5, "1", True, None, 1e300, 10**30):
        yield case(f"int8: {value!r}", 422, "/models/counts/predict", {"instances": [[value, 0, 0, 0]]})
    wrong: dict[str, tuple[Any, ...]] = {
        "age": ("41", True, [], {}),
        "city": (1, True, ["Graz"]),
        "plan": ("gold", "", 1),
        "member": ("true", 1, 0.0),
        "since": (
            "yesterday", "2025-02-30", "2025-02-28T25:00", "2025-02-28T12:00:00Z", "28.02.2025", 1700000000, None, "",
            "２０２５-02-28", "2025-02-28 12:00:00.123456789",
        ),
        "visits": (1.5, "1", True, 2**63, 2**53 + 1),
    }  # fmt: skip
    for column, values in wrong.items():
        for value in values:
            yield case(f"people: {column} {value!r}", 422, "/models/people/predict", {**PERSON, column: value})
    unknown = {**PERSON, "city": "Nowhere", "since": "2025-02-28 12:00:00.123456", "visits": 3.0}
    yield case("people: what may be unknown", 200, "/models/people/predict", unknown)
    yield case("people: a date long ago", 200, "/models/people/predict", {**PERSON, "since": "1700-01-01"})
    yield case("people: no date", 422, "/models/people/predict", {"age": 1})
    yield case("one-hot: a number for text", 422, "/models/one-hot/predict", {"colour": 1, "size": "M"})
    yield case("opinions: null", 422, "/models/opinions/predict", {"instances": [None]})
    yield case("opinions: a number", 422, "/models/opinions/predict", {"text": 1})
    yield case("opinions: two texts in a row", 422, "/models/opinions/predict", {"instances": [["a", "b"]]})


def connections() -> Iterator[Case]:
    """HTTP/1.0, connections kept and closed, and requests sent before the answer came."""
    target = "/models/numbers/predict"
    good = {"instances": [ROW]}
    close = ("Connection", "close")
    yield case("HTTP/1.0", 200, "/models", version="1.0")
    yield case("HTTP/1.0 with a body", 200, target, good, version="1.0")
    yield case("HTTP/1.0 kept alive", 200, "/models", version="1.0", headers=(("Connection", "keep-alive"),))
    yield case("Connection: close", 200, target, good, headers=(JSON, close))
    yield case("Expect: 100-continue", 200, target, good, headers=(JSON, ("Expect", "100-continue")))
    first, second = case("one", 200, target, good), case("two", 200, "/models/numbers")
    bad, missing = case("three", 422, target, {"instances": [[1]]}), case("four", 404, "/nowhere")
    head = case("five", 200, "/models", method="HEAD")
    wrong = case("six", 405, "/models", good, method="DELETE")
    chunked = case("seven", 200, target, chunks=[json.dumps(good).encode()])
    everything = (first, second, head, bad, missing, wrong, chunked, case("eight", 200, "/health/live"))
    yield several("eight requests on one connection", *everything)
    yield several("eight requests at once", *everything, at_once=True)
    yield several("four requests at once", second, head, missing, case("nine", 200, "/models"), at_once=True)


CASES: Final = tuple(
    one
    for part in (every_method, paths, targets, answers, outputs, bodies, headers, cells, connections)
    for one in part()
)


def _raw(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: localhost", *headers]).encode("latin-1") + b"\r\n\r\n" + body


_POST: Final = "POST /models/numbers/predict HTTP/1.1"
_TYPE: Final = "Content-Type: application/json"
_BODY: Final = b'{"instances": [[0.1, -0.2, 0.3, 0.4]]}'
_LENGTH: Final = f"Content-Length: {len(_BODY)}"
_CHUNK: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY)

# What web servers answer differently, each before our code sees the request: the bytes, and who does what.
LEFT_TO_THE_SERVER: Final[dict[str, tuple[bytes, str]]] = {
    "a made-up method": (
        _raw("FROB /models HTTP/1.1"), "httptools knows a list of methods and refuses others; WSGI servers pass them on"
    ),
    "a method in lower case": (
        _raw("get /models HTTP/1.1"), "granian passes it on; uvicorn and gunicorn refuse it"
    ),
    "CONNECT where only GET is": (_raw("CONNECT /models HTTP/1.1"), "uvicorn refuses it; the others pass it on"),
    "CONNECT to another host": (_raw("CONNECT elsewhere:1 HTTP/1.1"), "uvicorn refuses it; the others pass it on"),
    "a path without a slash": (_raw("GET models HTTP/1.1"), "granian passes it on; the others refuse it"),
    "a path with a bare 8-bit byte": (_raw("GET /models/m\xfcller HTTP/1.1"), "all refuse it, each in its own words"),
    "a query with a bare 8-bit byte": (_raw("GET /models?\xfc HTTP/1.1"), "all refuse it, each in its own words"),
    "a path with a blank": (_raw("GET /models/a b HTTP/1.1"), "all refuse it, each in its own words"),
    "a path of 9000 characters": (
        _raw("GET /models/" + "n" * 9000 + " HTTP/1.1"), "all refuse it, each in its own words"
    ),
    "a length that is no number": (
        _raw(_POST, _TYPE, "Content-Length: abc", body=_BODY), "all refuse it, each in its own words"
    ),
    "a negative length": (_raw(_POST, _TYPE, "Content-Length: -1", body=_BODY), "all refuse it, each in its own words"),
    "a length with a sign": (
        _raw(_POST, _TYPE, f"Content-Length: +{len(_BODY)}", body=_BODY), "all refuse it, each in its own words"
    ),
    "the same length twice": (
        _raw(_POST, _TYPE, _LENGTH, _LENGTH, body=_BODY), "RFC 9110, 8.6 allows both; granian takes it, others do not"
    ),
    "a length and chunks": (
        _raw(_POST, _TYPE, _LENGTH, "Transfer-Encoding: chunked", body=_CHUNK),
        "RFC 9112, 6.3 allows both; granian reads the chunks, the others refuse it",
    ),
    "a malformed chunk": (
        _raw(_POST, _TYPE, "Transfer-Encoding: chunked", body=b"zz\r\n\r\n"),
        "uvicorn refuses it; granian ends the body there; gunicorn tells us, and we refuse it",
    ),
    "two content types": (
        _raw(_POST, _TYPE, _TYPE, _LENGTH, body=_BODY),
        "uvicorn hands over both, granian the first; gunicorn refuses it",
    ),
    "a content type in Latin-1": (
        _raw(_POST, "Content-Type: gr\xf6\xdfe/json", _LENGTH, body=_BODY),
        "granian drops header values beyond ASCII; the others hand them over, and we refuse them",
    ),
    "a header in Latin-1": (
        _raw(_POST, _TYPE, "X-Odd: gr\xf6\xdfe", _LENGTH, body=_BODY),
        "granian drops header values beyond ASCII; the others hand them over, and we refuse them",
    ),
    "two hosts": (
        _raw("GET /models HTTP/1.1", "Host: elsewhere.test"),
        "gunicorn refuses it; the others hand over both, and we refuse them",
    ),
    "HTTP/2 in words": (_raw("GET /models HTTP/2.0"), "all refuse it, each in its own words"),
    "HTTP/0.9": (b"GET /models\r\n\r\n", "all refuse it, each in its own words"),
    "no HTTP at all": (b"\x16\x03\x01\x00\x01\r\n\r\n", "all refuse it, each in its own words"),
    "a header of 100000 bytes": (
        _raw("GET /models HTTP/1.1", "X-Odd: " + "a" * 100_000), "all refuse it, each in its own words"
    ),
    "200 headers": (
        _raw("GET /models HTTP/1.1", *[f"X-Odd-{i}: a" for i in range(200)]), "all refuse it, each in its own words"
    ),
    "a folded header": (_raw("GET /models HTTP/1.1", "X-Odd: a", "  b"), "all refuse it, each in its own words"),
    "a header with a NUL": (_raw("GET /models HTTP/1.1", "X-Odd: a\x00b"), "all refuse it, each in its own words"),
    "a header with a blank before the colon": (
        _raw("GET /models HTTP/1.1", "X-Odd : a"), "all refuse it, each in its own words"
    ),
    "a header without a name": (_raw("GET /models HTTP/1.1", ": a"), "all refuse it, each in its own words"),
    "an unknown expectation": (_raw(_POST, _TYPE, _LENGTH, "Expect: magic", body=_BODY), "gunicorn refuses it"),
    "bare line feeds": (_raw("GET /models HTTP/1.1").replace(b"\r\n", b"\n"), "granian takes it; the others refuse it"),
}  # fmt: skip
