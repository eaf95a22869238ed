"""Section T: values and shapes of tables."""

from __future__ import annotations

import io
import json
import time
import unicodedata
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.cases import Came, fault
from tests.faults.fronts import PATIENCE_S, PREDICT, Front, is_problem

ROW: Final = [0.5, -0.25, 1.0, 2.0]
PERSON: Final = {"age": 41.5, "city": "Graz", "plan": "pro", "member": True, "since": "2025-02-28", "visits": 12}
ODD: Final = {"größe": 1, "日本": 2, 'a "b"\\c': 3, " ": 4}
NPY: Final = ("Content-Type", "application/x-npy")
V2: Final = "/v2/models/numbers/infer"


def ask(front: Front, model: str, body: Any) -> Any:
    return front.post(json.dumps(body).encode(), path=f"/models/{model}/predict")


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


@fault("T01", sent="rows of 3 and of 5 values for 4 columns", expected="422 with both counts")
@pytest.mark.parametrize("row", [[1, 2, 3], [1, 2, 3, 4, 5]])
def test_wrong_number_of_columns(front: Front, came: Came, row: list[int]) -> None:
    reply = ask(front, "numbers", {"instances": [row]})

    came(reply.status)
    assert is_problem(reply, 422)["detail"] == f"row 0: expected 4 values, got {len(row)}"


@fault("T02", sent="a row of 10 000 values, and a record of 10 000 columns, for 4", expected="422 in linear time")
@pytest.mark.parametrize("row", [[1.0] * 10_000, {f"x{at}": 1.0 for at in range(10_000)}], ids=["list", "record"])
def test_wide_row(front: Front, came: Came, row: Any) -> None:
    started = time.monotonic()
    reply = ask(front, "numbers", {"instances": [row]})

    came(reply.status)
    is_problem(reply, 422)
    assert time.monotonic() - started < PATIENCE_S


@fault("T03", sent="rows of different lengths, few and many", expected="422 naming the first bad row")
@pytest.mark.parametrize("rows", [3, 1000])
def test_ragged_rows(front: Front, came: Came, rows: int) -> None:
    reply = ask(front, "numbers", {"instances": [ROW] * rows + [[1, 2]] + [ROW] * 3 + [[1]]})

    came(reply.status)
    assert f"row {rows}:" in is_problem(reply, 422)["detail"]


@fault("T04", sent="no rows, rows of no columns", expected="422")
@pytest.mark.parametrize(
    "body",
    [{"instances": []}, {"instances": [[]]}, {"instances": [[], []]}, {"instances": [{}]}, {"columns": {}},
     {"columns": {"x0": [], "x1": [], "x2": [], "x3": []}}, {}],
)  # fmt: skip
def test_nothing_to_answer(front: Front, came: Came, body: Any) -> None:
    reply = ask(front, "numbers", body)

    came(reply.status)
    is_problem(reply, 422)


@fault("T04", sent="npy of no rows, and of rows of no columns", expected="422")
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (0,)])
def test_no_rows_in_binary(front: Front, came: Came, shape: tuple[int, ...]) -> None:
    reply = front.post(npy(np.zeros(shape)), NPY)

    came(reply.status)
    is_problem(reply, 422)


@fault("T05", sent="1 000 000 rows, and one more", expected="200, then 413 (the limit is a setting)")
@pytest.mark.parametrize(("rows", "status"), [(1_000_000, 200), (1_000_001, 413)])
def test_rows_at_the_limit(front: Front, came: Came, rows: int, status: int) -> None:
    reply = front.post(npy(np.zeros((rows, 4), dtype="int8")), NPY, ("Accept", NPY[1]))

    came(reply.status)
    assert reply.status == status, reply.body[:500]
    if status == 413:
        assert "1000001 rows; one request may have 1000000" in is_problem(reply)["detail"]


@fault("T06", sent="true and false where a number is due", expected="422")
@pytest.mark.parametrize("body", [{"instances": [[True, 1, 2, 3]]}, {"instances": [ROW] * 100 + [[False] * 4]},
                                  {"columns": {f"x{at}": [True] for at in range(4)}}])  # fmt: skip
def test_truth_for_a_number(front: Front, came: Came, body: Any) -> None:
    reply = ask(front, "numbers", body)

    came(reply.status)
    is_problem(reply, 422)


@fault("T06", sent="npy and V2 tensors of booleans for numbers", expected="422, and 400 as V2 has it")
def test_truth_for_a_number_in_binary(front: Front, came: Came) -> None:
    columnar = front.post(npy(np.ones((1, 4), dtype=bool)), NPY)
    tensor = {"name": "x", "shape": [1, 4], "datatype": "BOOL", "data": [True] * 4}
    v2 = front.post(json.dumps({"inputs": [tensor]}).encode(), path=V2)

    came(columnar.status, v2.status)
    is_problem(columnar, 422)
    assert v2.status == 400


@fault("T07", sent="numbers in quotes, in any script", expected="422")
@pytest.mark.parametrize(
    "text", ["1.5", "1", "", " 1", "１．５", "٣", "1_000", " nan ", "NaN", "inf", "0x10", "1e3", "½"]
)
def test_text_for_a_number(front: Front, came: Came, text: str) -> None:
    for model, body in (
        ("numbers", {"instances": [[text, 1, 2, 3]]}),
        ("counts", {"instances": [[text, 1, 2, 3]]}),
        ("people", {**PERSON, "age": text}),
        ("people", {**PERSON, "visits": text}),
    ):
        reply = ask(front, model, body)
        came(reply.status)
        is_problem(reply, 422)


@fault("T08", sent="null where nothing may be missing, and where it may", expected="422; 200, as missing")
def test_null(front: Front, came: Came) -> None:
    refused = [ask(front, "numbers", {"instances": [[None, 1, 2, 3]]}), ask(front, "people", {**PERSON, "since": None})]
    missing = ask(front, "people", {**PERSON, "age": None})
    absent = ask(front, "people", {name: value for name, value in PERSON.items() if name != "age"})

    came(*(reply.status for reply in (*refused, missing, absent)))
    for reply in refused:
        is_problem(reply, 422)
    assert missing.status == 200
    assert missing.body == absent.body


@fault("T09", sent="a column missing, one too many, of another Unicode form, with a space behind it", expected="422")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"größe": None}, id="missing"),
        pytest.param({"other": 1}, id="one too many"),
        pytest.param({"größe": None, unicodedata.normalize("NFD", "größe"): 1}, id="another Unicode form"),
        pytest.param({"größe": None, "größe ": 1}, id="a space behind it"),
        pytest.param({" ": None, "\u00a0": 1}, id="another space"),
        pytest.param({"größe": None, "GRÖSSE": 1}, id="capital letters"),
    ],
)
@pytest.mark.parametrize("form", ["record", "instances", "columns"])
def test_names_of_columns(front: Front, came: Came, form: str, change: dict[str, Any]) -> None:
    record = {name: value for name, value in {**ODD, **change}.items() if value is not None}
    bodies = {
        "record": record,
        "instances": {"instances": [record]},
        "columns": {"columns": {name: [value] for name, value in record.items()}},
    }

    reply = ask(front, "odd.names_1", bodies[form])

    came(reply.status)
    is_problem(reply, 422)


@fault("T09", sent="columns in another order; a column twice", expected="matched by name; the last counts, in CSV 422")
def test_order_of_columns(front: Front, came: Came) -> None:
    right = ask(front, "odd.names_1", ODD)
    turned = ask(front, "odd.names_1", dict(reversed(ODD.items())))
    columns = ask(front, "odd.names_1", {"columns": {name: [value] for name, value in reversed(ODD.items())}})
    twice = front.post(json.dumps(ODD).replace("{", '{" ": 9, ').encode(), path="/models/odd.names_1/predict")
    csv = front.post(b"x0,x1,x2,x3,x0\n1,2,3,4,5\n", ("Content-Type", "text/csv"))

    came(turned.status, columns.status, twice.status, csv.status)
    assert right.status == 200
    assert right.body == turned.body == twice.body
    assert json.loads(columns.body)["predictions"] == [json.loads(right.body)["prediction"]]
    is_problem(csv, 422)


@fault("T10", sent="a category that the encoder never saw", expected="its own rule: zeros, or 422 where it refuses any")
def test_unseen_category(front: Front, came: Came) -> None:
    ignored = ask(front, "one-hot", {"colour": "puce", "size": "M"})
    closed = ask(front, "people", {**PERSON, "plan": "gold"})

    came(ignored.status, closed.status)
    assert ignored.status == 200
    assert "'gold'" in is_problem(closed, 422)["detail"]


@fault("T11", sent="1e39, -1e39, 3.5e38 to a model of float32", expected="422 with the limit")
@pytest.mark.parametrize("number", [1e39, -1e39, 3.5e38, 1e308])
def test_beyond_single_precision(front: Front, came: Came, number: float) -> None:
    for body in ({"instances": [[number, 0, 0, 0]]}, {"instances": [[0.1] * 4] * 100 + [[0, number, 0, 0]]}):
        reply = ask(front, "forest", body)
        came(reply.status)
        assert "3.40282347e+38" in is_problem(reply, 422)["detail"]


@fault("T12", sent="1.5, 1e2 and 300 for int8, integers for floats", expected="422 where something would be lost")
@pytest.mark.parametrize(
    ("model", "value", "status"),
    [("counts", 1.5, 422), ("counts", 300, 422), ("counts", -129, 422), ("counts", 1e2, 200), ("counts", -128, 200),
     ("counts", 1e-9, 422), ("numbers", 3, 200), ("numbers", -(2**53), 200)],
)  # fmt: skip
def test_integers_and_floats(front: Front, came: Came, model: str, value: Any, status: int) -> None:
    reply = ask(front, model, {"instances": [[value, 1, 2, 3]]})

    came(reply.status)
    assert reply.status == status, reply.body


@fault("T13", sent="dates that are none, of the year 10000, with a zone that is not due", expected="422 at once")
@pytest.mark.parametrize(
    "text",
    ["2024-02-30", "2024-13-01", "10000-01-01", "+010000-01-01", "0000-00-00", "infinity", "now", "today", "1e9", "",
     "2024-01-01T25:00", "2024-01-01T00:00:00Z", "2024-01-01T00:00+24:00", "2024-W01-1", "01/02/2024", "NaT",
     "2024-01-01T00:00:00." + "1" * 100_000, "٢٠٢٤-٠١-٠١", "2024-01-01 " * 1000],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_dates(front: Front, came: Came, text: str) -> None:
    for value in (text, 20240101, 1e400, True, ["2024-01-01"]):
        body = json.dumps({**PERSON, "since": value}).replace("Infinity", "1e400").encode()
        reply = front.post(body, path="/models/people/predict")
        came(reply.status)
        is_problem(reply, 422)


@fault("T14", sent="three dimensions in JSON and in npy, in a tensor of V2", expected="422, and 400 as V2 has it")
def test_three_dimensions(front: Front, came: Came) -> None:
    lists = ask(front, "numbers", {"instances": [[[value] for value in ROW]]})
    array = front.post(npy(np.zeros((1, 4, 1))), NPY)
    tensor = {"name": "x", "shape": [1, 4, 1], "datatype": "FP64", "data": ROW}
    v2 = front.post(json.dumps({"inputs": [tensor]}).encode(), path=V2)

    came(lists.status, array.status, v2.status)
    is_problem(lists, 422)
    is_problem(array, 422)
    assert v2.status == 400


@fault("T15", sent="tensors of V2 whose shape is negative, overflows 2^64, is no integers, or not that of their data",
       expected="400, nothing allocated")  # fmt: skip
@pytest.mark.parametrize(
    "shape",
    [[-1, 4], [1, -4], [2**32, 2**32], [2**63, 2], [2**64 + 1, 4], [2**40, 4], [0, 4], [1.5, 4], ["1", 4], [True, 4],
     [1, 5], [], [[1, 4]], None, 4, [1] * 65, [4] + [1] * 1000],
    ids=lambda shape: str(shape)[:30],
)  # fmt: skip
def test_shapes(front: Front, came: Came, shape: Any) -> None:
    before = front.memory_bytes()

    tensor = {"name": "x", "shape": shape, "datatype": "FP64", "data": ROW}
    listed = front.post(json.dumps({"inputs": [tensor]}).encode(), path=V2)
    header = json.dumps({"inputs": [{**tensor, "data": None, "parameters": {"binary_data_size": 32}}]}).encode()
    length = ("Inference-Header-Content-Length", str(len(header)))
    raw = front.post(header + bytes(32), ("Content-Type", "application/octet-stream"), length, path=V2)

    came(listed.status, raw.status)
    assert (listed.status, raw.status) == (400, 400), (listed.body, raw.body)
    assert front.memory_bytes() - before < 64 * 2**20


@fault("T16", sent="rows whose answer holds -inf", expected="null and a flag in JSON, the number itself in npy")
def test_answer_that_json_lacks(front: Front, came: Came) -> None:
    path = "/models/certain/predict?outputs=predict_log_proba"
    body = json.dumps({"instances": [ROW]}).encode()
    listed = front.post(body, path=path)
    binary = front.post(body, ("Content-Type", "application/json"), ("Accept", NPY[1]), path=path)

    came(listed.status, binary.status)
    content = json.loads(listed.body, parse_constant=pytest.fail)
    array = np.load(io.BytesIO(binary.body), allow_pickle=False)
    assert {entry["value"] for entry in content["non_finite"]} == {"-Infinity"}
    assert [None if np.isneginf(value) else value for value in array[0]] == content["predict_log_proba"][0]


@fault("T18", sent="outputs that the model lacks, and names of its other attributes", expected="422")
@pytest.mark.parametrize(
    "name", ["transform", "fit", "get_params", "__class__", "__reduce__", "predict.__self__", "coef_", "set_params", ""]
)
def test_other_methods(front: Front, came: Came, name: str) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    for reply in (
        front.post(body, path=f"{PREDICT}?outputs={name}"),
        front.post(json.dumps({"instances": [ROW], "outputs": [name]}).encode()),
    ):
        came(reply.status)
        is_problem(reply, 422)


@fault("T18", sent="a method in the path", expected="404")
@pytest.mark.parametrize("path", ["/models/numbers/fit", "/models/numbers/predict_proba", "/models/numbers/__class__"])
def test_method_in_the_path(front: Front, came: Came, path: str) -> None:
    reply = front.post(json.dumps({"instances": [ROW]}).encode(), path=path)

    came(reply.status)
    is_problem(reply, 404)


@fault("T19", sent="800 000 rows, of which the answers are 58 MB of numbers", expected="413 naming the limit")
def test_answer_that_is_too_large(front: Front, came: Came) -> None:
    outputs = "predict_proba,predict_log_proba,decision_function"
    body = npy(np.zeros((800_000, 4), dtype="int8"))

    reply = front.post(body, NPY, path=f"{PREDICT}?outputs={outputs}")

    came(reply.status)
    assert f"at most {50 * 2**20} are sent" in is_problem(reply, 413)["detail"]


@fault("T20", sent="a row alone, in a list of one, in a list of a thousand", expected="the same numbers")
@pytest.mark.parametrize("model", ["numbers", "forest", "amounts", "scaled", "outliers", "two-amounts"])
def test_same_row_in_any_company(front: Front, came: Came, model: str) -> None:
    names = "abcd" if model == "forest" else ["x0", "x1", "x2", "x3"]
    others = np.random.default_rng(0).normal(size=(999, 4)).round(3).tolist()

    def first(body: Any) -> Any:
        content = json.loads(ask(front, model, body).body)
        return {key: value for key, value in content.items() if key not in ("model", "version")}.popitem()[1]

    alone = first(dict(zip(names, ROW, strict=True)))
    in_one = first({"instances": [ROW]})[0]
    in_many = first({"instances": [ROW, *others]})[0]

    came(alone)
    assert alone == in_one
    assert in_many == pytest.approx(in_one, rel=1e-12, abs=1e-12)


# A table as somebody may send it: any JSON where rows, columns, cells or names are due.
cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
rows = st.lists(cells, max_size=5) | st.dictionaries(st.sampled_from(["x0", "x1", "x2", "x3", "", "ß"]), cells) | cells
tables = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(rows, max_size=4) | cells,
        "columns": st.dictionaries(st.sampled_from(["x0", "x1", "x2", "x3", ""]), st.lists(cells, max_size=3) | cells),
        "outputs": st.lists(st.sampled_from(["predict", "predict_proba", "fit"]) | cells, max_size=3) | cells,
        "other": cells,
    },
)


@fault("T01", "T03", "T04", "T06", "J11", sent="60 tables made up by hypothesis", expected="200, 400 or 422; never 5xx")
def test_any_table(front: Front, came: Came) -> None:
    statuses: set[int] = set()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=tables)
    def holds(body: Any) -> None:
        reply = ask(front, "numbers", body)
        statuses.add(reply.status)
        if reply.status != 200:
            assert is_problem(reply)["status"] in (400, 422)

    holds()
    came(*sorted(statuses))
