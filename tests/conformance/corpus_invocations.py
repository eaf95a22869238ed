"""Requests of MLflow's, SageMaker's and Vertex AI's clients, with every dialect switched on."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tests.conformance.corpus import COLOURS, JSON, MAX_BODY_BYTES, METHODS, PERSON, ROW, Case, case, several

INVOCATIONS: Final = "/invocations"
NUMBERS: Final = "/invocations?model=numbers"
PEOPLE: Final = "/invocations?model=people"
INVOKE: Final = "/models/numbers/invoke"
ENDPOINT: Final = "/v1/endpoints/12/deployedModels/34"
CSV: Final = ("Content-Type", "text/csv")
LINES: Final = ("Content-Type", "application/jsonlines")
NPY: Final = ("Content-Type", "application/x-npy")

FLAT: Final = {f"x{index}": value for index, value in enumerate(ROW)}
PERSON_CSV: Final = b"41.5,Graz,pro,true,2025-02-28,12\n"


def split(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {"columns": list(records[0]), "index": [0], "data": [list(record.values()) for record in records]}


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def every_method() -> Iterator[Case]:
    """Every route with every method. `/invocations` names no model, and there are several and no default."""
    for path, method, status, body in (
        ("/ping", "GET", 200, None),
        ("/health", "GET", 200, None),
        ("/version", "GET", 200, None),
        ("/execution-parameters", "GET", 200, None),
        (INVOCATIONS, "POST", 404, [ROW]),
        (INVOKE, "POST", 200, [ROW]),
        (ENDPOINT, "GET", 200, None),
        (f"{ENDPOINT}:predict", "POST", 404, {"instances": [ROW]}),
    ):
        for asked in METHODS:
            taken = asked == method or (asked == "HEAD" and method == "GET")
            yield case(f"platforms {asked} {path}", status if taken else 405, path, body, method=asked)
    for path in ("/ping/", "/health/", "/invocations/", "/version/", "/models/numbers/invoke/", "/v1/endpoints/12"):
        yield case(f"platforms no route {path}", 404 if path != "/v1/endpoints/12" else 400, path)


def mlflow() -> Iterator[Case]:
    forms: dict[str, Any] = {
        "split": {"dataframe_split": split([FLAT, FLAT])},
        "split in another order": {"dataframe_split": split([dict(reversed(FLAT.items()))])},
        "split with more columns": {"dataframe_split": split([{"first": "x", **FLAT, "last": None}])},
        "split with other names": {"dataframe_split": {"columns": [0, 1, 2, 3], "data": [ROW]}},
        "split without columns": {"dataframe_split": {"data": [ROW]}},
        "records": {"dataframe_records": [FLAT, FLAT]},
        "records with more columns": {"dataframe_records": [{**FLAT, "more": 1}]},
        "instances": {"instances": [ROW]},
        "many instances": {"instances": [ROW] * 200},
        "instances as objects": {"instances": [FLAT]},
        "inputs": {"inputs": [ROW, ROW]},
        "inputs by column": {"inputs": {name: [value] * 2 for name, value in FLAT.items()}},
        "inputs of shape [n, 1]": {"inputs": {name: [[value]] for name, value in FLAT.items()}},
        "inputs of one row": {"inputs": FLAT},
        "inputs in one tensor": {"inputs": {"input": [ROW]}},
        "unknown keys": {"inputs": [ROW], "more": 1},
        "parameters": {"inputs": [ROW], "params": {"outputs": ["predict_proba"], "temperature": 0.5}},
        "several outputs": {"inputs": [ROW], "params": {"outputs": ["predict", "predict_proba"]}},
    }
    for name, body in forms.items():
        yield case(f"mlflow: {name}", 200, NUMBERS, body)
    yield case("mlflow: CSV", 200, NUMBERS, b"x0,x1,x2,x3\n1,2,3,4\n-1e-3,2.5,3,4\n", headers=(CSV,))
    yield case("mlflow: CSV with more columns", 200, NUMBERS, b",x3,x2,x1,x0\r\n0,4,3,2,1\r\n", headers=(CSV,))
    yield case(
        "mlflow: CSV and outputs", 200, f"{NUMBERS}&outputs=predict_proba", b"x0,x1,x2,x3\n1,2,3,4", headers=(CSV,)
    )
    yield case("mlflow: gzip", 200, NUMBERS, gzip.compress(json.dumps({"inputs": [ROW]}).encode(), mtime=0),
               headers=(JSON, ("Content-Encoding", "gzip")))  # fmt: skip
    yield case("mlflow: NaN", 200, PEOPLE, json.dumps({"dataframe_records": [PERSON]}).replace("41.5", "NaN").encode())
    yield case("mlflow: missing", 200, PEOPLE, {"dataframe_split": split([{**PERSON, "age": None, "city": None}])})
    yield case("mlflow: mixed CSV", 200, PEOPLE, b"age,city,plan,member,since,visits\n" + PERSON_CSV, headers=(CSV,))
    yield case("mlflow: sparse", 200, "/invocations?model=one-hot", {"dataframe_records": [COLOURS]})
    yield case("mlflow: texts", 200, "/invocations?model=opinions", {"inputs": ["great fun", "bad food"]})
    yield case("mlflow: CSV of texts", 200, "/invocations?model=opinions", b'text\n"great, fun"\n', headers=(CSV,))
    for name in ("amounts", "two-amounts", "two-kinds", "scaled", "outliers", "certain"):
        yield case(f"mlflow: {name}", 200, f"/invocations?model={name}", {"inputs": [ROW]})
    yield case("mlflow: -inf is null", 200, "/invocations?model=certain",
               {"inputs": [ROW], "params": {"outputs": ["predict_log_proba"]}})  # fmt: skip
    yield case("mlflow: version", 200, "/invocations?model=versions&version=1", {"inputs": [[1.5, 2.5]]})
    for target in ("model=nothing", "model=versions&version=9", "model=versions&version=x", "model="):
        yield case(f"mlflow: no such {target}", 404, f"/invocations?{target}", {"inputs": [ROW]})


def mlflow_refusals() -> Iterator[Case]:
    bodies: dict[str, Any] = {
        "no JSON": b"{",
        "no format": {},
        "two formats": {"inputs": [ROW], "instances": [ROW]},
        "signature_name": {"inputs": [ROW], "signature_name": "x"},
        "no rows": {"inputs": []},
        "too few values": {"inputs": [ROW[:3]]},
        "text for a number": {"inputs": [["1.5", *ROW[1:]]]},
        "Infinity": b'{"inputs": [[1, 2, 3, Infinity]]}',
        "no such output": {"inputs": [ROW], "params": {"outputs": ["score"]}},
        "no object of parameters": {"inputs": [ROW], "params": [1]},
        "a split without data": {"dataframe_split": {"columns": ["x0"]}},
        "a split with a short row": {"dataframe_split": {"columns": ["x0", "x1"], "data": [[1]]}},
        "a column twice": {"dataframe_split": {"columns": ["x0", "x0"], "data": [[1, 2]]}},
        "no column of the model": {"dataframe_records": [{"a": 1}]},
        "a prompt": {"messages": [{"role": "user", "content": "hello"}]},
    }
    for name, body in bodies.items():
        yield case(f"mlflow: {name}", 400, NUMBERS, body)
    yield case("mlflow: a missing column", 400, PEOPLE, {"dataframe_records": [{"age": 1}]})
    yield case("mlflow: CSV with a short row", 400, NUMBERS, b"x0,x1,x2,x3\n1,2,3\n", headers=(CSV,))
    yield case("mlflow: too large", 413, NUMBERS, b" " * (MAX_BODY_BYTES + 1))
    for given in ("application/json; format=pandas-split", "application/json; charset=latin-1", "text/html"):
        yield case(
            f"mlflow: content type {given!r}", 415, NUMBERS, {"inputs": [ROW]}, headers=(("Content-Type", given),)
        )
    yield case("mlflow: coding", 415, NUMBERS, {"inputs": [ROW]}, headers=(JSON, ("Content-Encoding", "br")))


def sagemaker() -> Iterator[Case]:
    forms: dict[str, Any] = {
        "list of lists": [ROW, ROW],
        "list of values": ROW,
        "list of objects": [FLAT],
        "record": FLAT,
        "columns": {"columns": {name: [value] for name, value in FLAT.items()}},
        "features": {"instances": [{"features": ROW}, {"features": ROW}]},
        "outputs": {"instances": [ROW], "outputs": ["predict", "predict_proba"]},
    }
    for name, body in forms.items():
        yield case(f"sagemaker: {name}", 200, NUMBERS, body)
        yield case(f"sagemaker: {name}, one of several models", 200, INVOKE, body)
    as_csv = ",".join(map(repr, ROW)).encode()
    bodies = {
        CSV: as_csv + b"\n" + as_csv,
        LINES: json.dumps(ROW).encode() + b"\n" + json.dumps({"features": ROW}).encode() + b"\n",
        NPY: npy(np.array([ROW, ROW])),
    }
    accepts = (
        "application/json",
        "text/csv",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/x-npy",
        "*/*",
    )
    for kind, content in bodies.items():
        for accept in accepts:
            headers = (kind, ("Accept", accept), ("X-Amzn-SageMaker-Custom-Attributes", "outputs=predict_proba"))
            body = content if kind != LINES else b"\n".join([json.dumps(ROW).encode()] * 2)
            yield case(f"sagemaker: {kind[1]} to {accept}", 200, INVOKE, body, headers=headers)
    yield case("sagemaker: features in lines", 200, INVOKE, json.dumps({"features": ROW}).encode(), headers=(LINES,))
    yield case(
        "sagemaker: CSV of mixed columns", 200, PEOPLE, PERSON_CSV + b",,free,false,2024-01-01,0\n", headers=(CSV,)
    )
    for headers in ((), (("Content-Type", ""),)):
        yield case(f"sagemaker: {len(headers)} empty content types", 200, INVOKE, [ROW], headers=headers)
        yield case(f"sagemaker: {len(headers)} empty content types at /invocations", 200, NUMBERS, ROW, headers=headers)
    yield case("sagemaker: header=present", 200, INVOKE, b"x3,x2,x1,x0\n4,3,2,1\n",
               headers=(("Content-Type", "text/csv; header=present"),))  # fmt: skip
    yield case("sagemaker: the header names the model", 200, INVOCATIONS, [ROW],
               headers=(JSON, ("X-Amzn-SageMaker-Target-Model", "numbers.tar.gz")))  # fmt: skip
    yield case("sagemaker: no such model in the header", 404, INVOCATIONS, [ROW],
               headers=(JSON, ("X-Amzn-SageMaker-Target-Model", "nothing.tar.gz")))  # fmt: skip
    yield case("sagemaker: texts", 200, "/models/opinions/invoke", ["great fun", "bad food"])
    yield case("sagemaker: several texts to CSV", 200, "/models/opinions/invoke", b"great fun\nbad food\n",
               headers=(CSV, ("Accept", "text/csv")))  # fmt: skip
    for name in ("amounts", "two-amounts", "two-kinds", "scaled", "outliers", "certain"):
        for accept in ("application/json", "text/csv"):
            yield case(f"sagemaker: {name} to {accept}", 200, f"/models/{name}/invoke", [ROW],
                       headers=(JSON, ("Accept", accept)))  # fmt: skip
    yield several("sagemaker: ping and ask", case("sagemaker: first a ping", 200, "/ping"),
                  case("sagemaker: then a request", 200, INVOKE, [ROW]))  # fmt: skip


def sagemaker_refusals() -> Iterator[Case]:
    yield case("sagemaker: no such model", 404, "/models/nothing/invoke", [ROW])
    for name, kind, body, status in (
        ("no JSON", JSON, b"[", 400),
        ("no rows", JSON, [], 400),
        ("too few values", JSON, ROW[:3], 400),
        ("an unknown column", JSON, {**FLAT, "more": 1}, 400),
        ("text for a number", JSON, [["a", *ROW[1:]]], 400),
        ("CSV with a short row", CSV, b"1,2,3,4\n1,2,3\n", 400),
        ("CSV of texts", CSV, b"a,b,c,d\n", 400),
        ("no CSV", CSV, b"", 400),
        ("a line that is no JSON", LINES, b"[1,2,3,4]\n[1,", 400),
        ("npy of another width", NPY, npy(np.zeros((2, 3))), 400),
        ("npy of objects", NPY, npy(np.array([{}, None])), 400),
        ("no npy", NPY, b"\x93NUMPY", 400),
        ("npz", ("Content-Type", "application/x-npz"), b"PK", 415),
        ("a form", ("Content-Type", "application/x-www-form-urlencoded"), b"a=1", 415),
        ("latin-1", ("Content-Type", "text/csv; charset=latin-1"), b"1,2,3,4", 415),
    ):
        yield case(f"sagemaker: {name}", status, INVOKE, body, headers=(kind,))
        if status == 400:
            yield case(f"sagemaker: {name}, at /invocations", status, NUMBERS, body, headers=(kind,))
    yield case("sagemaker: Accept", 406, INVOKE, [ROW], headers=(JSON, ("Accept", "text/html")))
    yield case("sagemaker: several outputs to npy", 406, INVOKE, {**FLAT, "outputs": ["predict", "predict_proba"]},
               headers=(JSON, ("Accept", "application/x-npy")))  # fmt: skip


def vertex() -> Iterator[Case]:
    """The default model answers, and there is none: how a request is read is asked of a model of its own."""
    for name, body in (("instances", {"instances": [ROW]}), ("no JSON", b"{"), ("no instances", {})):
        yield case(f"vertex: {name}", 404, f"{ENDPOINT}:predict", body)
    yield case("vertex: content type", 415, f"{ENDPOINT}:predict", b"1,2", headers=(CSV,))
    yield case("vertex: other names", 200, "/v1/endpoints/a%20b/deployedModels/1:2")
    yield case("vertex: too large", 413, f"{ENDPOINT}:predict", b" " * (MAX_BODY_BYTES + 1))


CASES: Final = (*every_method(), *mlflow(), *mlflow_refusals(), *sagemaker(), *sagemaker_refusals(), *vertex())
