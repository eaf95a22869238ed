"""Rows in the forms that are not JSON: every model in each, each as an answer, and what can be wrong with them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.conformance.corpus import JSON, MAX_BODY_BYTES, PERSON, ROW, Case, case
from tests.conformance.models import mixed_table

STREAM: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
CSV: Final = "text/csv"
LINES: Final = "application/x-ndjson"
NPY: Final = "application/x-npy"
FORMS: Final = {"arrow": STREAM, "parquet": PARQUET, "csv": CSV, "lines": LINES, "npy": NPY}

NUMBERS: Final = pd.DataFrame([ROW, ROW[::-1], [5.0, 5.0, 5.0, 5.0]], columns=["x0", "x1", "x2", "x3"])
TABLES: Final = {
    "numbers": NUMBERS,
    "forest": NUMBERS.rename(columns=dict(zip(NUMBERS, "abcd", strict=True))).astype("float32"),
    "people": mixed_table().head(10),
    "amounts": NUMBERS,
    "two-kinds": NUMBERS,
    "two-amounts": NUMBERS,
    "one-hot": pd.DataFrame({"colour": ["red", "puce"], "size": ["M", "L"]}),
    "scaled": NUMBERS,
    "opinions": pd.DataFrame({"text": ["great fun", "größe 日本 🦊"]}),
    "certain": NUMBERS,
    "odd.names_1": NUMBERS.set_axis(["größe", "日本", 'a "b"\\c', " "], axis=1),
    "words": NUMBERS.iloc[:, :3].set_axis(["instances", "columns", "outputs"], axis=1),
    "counts": NUMBERS.astype("int8"),
}
TARGET: Final = "/models/numbers/predict"


def written(table: pd.DataFrame, form: str) -> bytes:
    content = io.BytesIO()
    if form == "arrow":
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        with pa.ipc.new_stream(content, arrow.schema) as writer:
            writer.write_table(arrow)
    elif form == "parquet":
        table.to_parquet(content, index=False)
    elif form == "csv":
        table.to_csv(content, index=False, date_format="%Y-%m-%dT%H:%M:%S")
    elif form == "lines":
        # pandas writes moments as pandas has them, the service reads ISO 8601 without milliseconds or with.
        table.to_json(content, orient="records", lines=True, date_format="iso", date_unit="s", double_precision=15)
    else:
        texts = {name: "U20" for name in table if table[name].dtype.kind not in "biuf"}
        records = np.asarray(table.to_records(index=False, column_dtypes=texts))
        np.lib.format.write_array(content, records, version=(3, 0))  # the one whose names may be any
    return content.getvalue()


def kind(name: str, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", FORMS.get(name, name)), *more)


def every_model() -> Iterator[Case]:
    for form in FORMS:
        for name, table in TABLES.items():
            if form == "npy" and name == "people":
                continue  # a structured array has no missing values
            yield case(f"{form}: {name}", 200, f"/models/{name}/predict", written(table, form), headers=kind(form))
        yield case(f"{form}: a version", 200, "/models/versions/versions/3/predict",
                   written(NUMBERS[["x1", "x0"]], form), headers=kind(form))  # fmt: skip
        yield case(f"{form}: a label", 200, "/models/versions/labels/old/predict",
                   written(NUMBERS[["x0", "x1"]], form), headers=kind(form))  # fmt: skip
        yield case(f"{form}: no model", 404, "/predict", written(NUMBERS, form), headers=kind(form))


def answers() -> Iterator[Case]:
    record, rows = dict(zip(NUMBERS, ROW, strict=True)), {"instances": [ROW, [5.0] * 4]}
    for form, accepted in FORMS.items():
        accept = ("Accept", accepted)
        yield case(f"a record answered in {form}", 200, TARGET, record, headers=(JSON, accept))
        for name, outputs, status in (
            ("numbers", "predict,predict_proba,decision_function", 406 if form == "npy" else 200),
            ("numbers", "predict_proba", 200),
            ("certain", "predict_log_proba", 200),  # with -inf in it
            ("two-amounts", "predict", 200),
            ("two-kinds", "predict_proba", 406 if form == "npy" else 200),
            ("scaled", "transform", 200),
        ):
            yield case(f"{name}: {outputs} in {form}", status, f"/models/{name}/predict?outputs={outputs}", rows,
                       headers=(JSON, accept))  # fmt: skip
        yield case(f"sparse rows in {form}", 200, "/models/one-hot/predict", {"instances": [["red", "M"]]},
                   headers=(JSON, accept))  # fmt: skip
        yield case(f"{form} answered in JSON", 200, TARGET, written(NUMBERS, form),
                   headers=kind(form, ("Accept", "application/json")))  # fmt: skip
        yield case(f"unknown output of {form}", 422, f"{TARGET}?outputs=nothing", written(NUMBERS, form),
                   headers=kind(form))  # fmt: skip
    for accept, status in {
        "*/*": 200, "text/*": 200, "text/html": 406, "application/json;q=0": 406,
        "text/csv;q=0.5, application/json": 200,
        "text/html, */*;q=0.1": 200, "": 200, "image/png, text/csv": 200, "application/json;q=0, */*": 200, "csv": 406,
    }.items():  # fmt: skip
        yield case(f"accepted: {accept!r}", status, TARGET, rows, headers=(JSON, ("Accept", accept)))


def bodies() -> Iterator[Case]:
    good = {form: written(NUMBERS, form) for form in FORMS}
    extra, missing = NUMBERS.assign(größe=1.0), NUMBERS[["x0", "x1"]]
    texts, holes = NUMBERS.astype({"x1": str}), NUMBERS.where(NUMBERS < 1)
    for form, body in good.items():
        cut = 400 if form in ("arrow", "parquet", "npy") else 422
        yield case(f"{form}: empty", 422 if form == "lines" else 400, TARGET, b"", headers=kind(form))
        yield case(f"{form}: cut off", cut if form != "lines" else 400, TARGET, body[:-9], headers=kind(form))
        yield case(f"{form}: JSON instead", 400, TARGET, b'{"x0": 1,\n"x1": 2}',
                   headers=kind(form))  # fmt: skip
        yield case(f"{form}: no rows", 422, TARGET, written(NUMBERS[:0], form), headers=kind(form))
        yield case(f"{form}: a column too many", 422, TARGET, written(extra, form), headers=kind(form))
        yield case(f"{form}: columns too few", 422, TARGET, written(missing, form), headers=kind(form))
        yield case(f"{form}: a hole", 422, TARGET, written(holes, form), headers=kind(form))
        status = 200 if form == "csv" else 422  # where all cells are texts
        yield case(f"{form}: numbers as texts", status, TARGET, written(texts, form), headers=kind(form))
        yield case(f"{form}: coded", 200, TARGET, gzip.compress(body, mtime=0),
                   headers=kind(form, ("Content-Encoding", "gzip")))  # fmt: skip
        yield case(f"{form}: over the limit", 413, TARGET, body * (MAX_BODY_BYTES // len(body) + 1), headers=kind(form))
        chunks = [body[:50], body[50:]]
        yield case(f"{form}: in chunks", 200, TARGET, chunks=chunks, headers=kind(form))
    zeros = pd.DataFrame(np.zeros((10_000, 4)), columns=list(NUMBERS))
    yield case(
        "parquet: too large once it is unpacked", 413, TARGET, written(zeros, "parquet"), headers=kind("parquet")
    )
    for shown, status, body in (
        ("in another order", 200, b"x3,x2,x1,x0\n4,3,2,1\n"),
        ("with a byte order mark", 200, b"\xef\xbb\xbfx0,x1,x2,x3\r\n1,2,3,4\r\n"),
        ("with words for numbers", 422, b"x0,x1,x2,x3\n1,two,3,4\n"),
        ("with infinity", 422, b"x0,x1,x2,x3\n1,inf,3,4\n"),
        ("with a number that rounds", 422, b"x0,x1,x2,x3\n1,9007199254740993,3,4\n"),
        ("with rows of other lengths", 422, b"x0,x1,x2,x3\n1,2,3\n1,2,3,4,5\n"),
        ("with an open quote", 400, b'x0,x1,x2,x3\n1,2,3,"4\n'),
        ("that is no UTF-8", 400, b"x0,x1,x2,x3\n1,2,3,\xff\n"),
    ):
        yield case(f"csv {shown}", status, TARGET, body, headers=kind("csv"))
    for shown, status, body in (
        ("of lists", 200, b"[1,2,3,4]\n[1.5,2,3,4]"),
        ("with blank lines", 200, b"\n[1,2,3,4]\r\n\r\n"),
        ("with a comma", 400, b"[1,2,3,4],\n[1,2,3,4]"),
        ("with two values in a line", 400, b"[1,2,3,4] [1,2,3,4]"),
        ("with a number that rounds", 422, b"[9007199254740993,2,3,4]"),
        ("with 1e400", 422, b"[1e400,2,3,4]"),
        ("of several kinds", 422, b'[1,2,3,4]\n{"x0":1}'),
    ):
        yield case(f"lines {shown}", status, TARGET, body, headers=kind("lines"))


def types() -> Iterator[Case]:
    body = written(NUMBERS, "csv")
    for given, status in {
        "TEXT/CSV": 200, "text/csv; charset=utf-8": 200, "text/csv; charset=latin-1": 415,
        "text/csv; header=present": 200,
        "text/csv; header=absent": 422, "text/tab-separated-values": 415, "application/csv": 415,
    }.items():  # fmt: skip
        yield case(f"columnar type {given}", status, TARGET, body, headers=kind(given))
    for given in ("application/jsonl", "application/jsonlines", "application/x-jsonlines"):
        yield case(f"columnar type {given}", 200, TARGET, written(NUMBERS, "lines"), headers=kind(given))
    yield case("columnar type application/x-parquet", 200, TARGET, written(NUMBERS, "parquet"),
               headers=kind("application/x-parquet"))  # fmt: skip
    yield case("people as one line", 200, "/models/people/predict", b'{"since":"2025-02-28"}\n', headers=kind("lines"))
    row: dict[str, Any] = {**PERSON, "member": "true"}
    csv = ",".join(row) + "\n" + ",".join(map(str, row.values()))
    yield case("people as a row of CSV", 200, "/models/people/predict", csv.encode(), headers=kind("csv"))


CASES: Final = tuple(one for part in (every_model, answers, bodies, types) for one in part())
