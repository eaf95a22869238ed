"""The Open Inference Protocol as those who speak it already do: clients from PyPI, unmodified, against every server.

The servers compute with the estimator itself, so that each answer must equal its own, to the last bit.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd
import pytest

from service.protocols.v2.rest import EXTENSIONS
from tests.conformance import clients
from tests.conformance.models import TEXTS, mixed_table
from tests.conformance.servers import CLIENT, SERVERS, Running

N_ROWS: Final = 5
NUMBERS: Final = np.random.RandomState(7).normal(size=(N_ROWS, 4))
NARROW: Final = NUMBERS.astype("float32")
DATATYPES: Final = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "int8": "INT8", "bool": "BOOL"}


@dataclass(frozen=True)
class Question:
    """A model, the rows as its estimator takes them, the tensors that they are, and the outputs to ask for."""

    model: str
    rows: Any
    inputs: tuple[tuple[str, Any], ...]
    outputs: tuple[str, ...] = ("predict",)

    def asked(self) -> dict[str, Any]:
        return {"model": self.model, "inputs": [tensor(*one) for one in self.inputs], "outputs": self.outputs}

    def expected(self, estimator: Any) -> dict[str, Any]:
        return {name: answer(estimator, name, self.rows) for name in self.outputs}


def tensor(name: str, values: Any) -> dict[str, Any]:
    datatype = DATATYPES.get(str(values.dtype), "BYTES")
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.ravel().tolist()}


def answer(estimator: Any, name: str, rows: Any) -> dict[str, Any]:
    """An output of the estimator, as every script prints tensors; `predict_proba_1` is that of the second target."""
    method, _, target = name.partition("_proba_")
    values = getattr(estimator, f"{method}_proba" if target else name)(rows)
    values = values[int(target)] if target else values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    is_number = str(values.dtype) in DATATYPES
    data = values.ravel().tolist() if is_number else [str(value) for value in values.ravel().tolist()]
    return {"dtype": str(values.dtype) if is_number else "object", "shape": list(values.shape), "data": data}


def people() -> Any:
    """Rows of the mixed table with every text there: no tensor of texts can lack one."""
    table = mixed_table()
    whole = table[table["city"].notna()][4 : 4 + N_ROWS]
    assert whole["age"].isna().any()
    return whole


def columns_of(table: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((name, column_of(table[name])) for name in table)


def column_of(series: Any) -> Any:
    is_plain = str(series.dtype) in DATATYPES
    values = series.to_numpy() if is_plain else np.array([_text(value) for value in series], dtype=object)
    return values.reshape(-1, 1)


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def questions() -> list[Question]:
    table, both = people(), ("predict", "predict_proba")
    matrix = (("input-0", NUMBERS),)
    colours = pd.DataFrame({"colour": ["red", "blue", "puce"], "size": ["S", "M", "L"]})
    narrow = pd.DataFrame(NARROW, columns=list("abcd"))
    counts = (NUMBERS * 10).astype("int8")
    return [
        Question("numbers", NUMBERS, matrix, both),
        Question("forest", narrow, (("X", NARROW),), both),
        Question("people", table, columns_of(table), both),
        Question("opinions", TEXTS[:3], (("text", np.array(TEXTS[:3], dtype=object).reshape(-1, 1)),), both),
        Question("amounts", NUMBERS, matrix),
        Question("two-kinds", NUMBERS, matrix, ("predict_proba_1", "predict", "predict_proba_0")),
        Question("two-amounts", NUMBERS, matrix),
        Question("one-hot", colours, columns_of(colours), ("transform",)),
        Question("scaled", NUMBERS, matrix, ("transform",)),
        Question("counts", counts, (("input-0", counts),), ("transform",)),
    ]


QUESTIONS: Final = questions()
ASKED: Final = [question.asked() for question in QUESTIONS]


@pytest.fixture(scope="module")
def expected(repository: Path) -> dict[str, Any]:
    """What the estimators answer in this process, by model."""
    return {
        question.model: question.expected(joblib.load(repository / question.model / "1" / "model.joblib"))
        for question in QUESTIONS
    }


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, estimators: Mapping[str, tuple[Running, int]]) -> Running:
    return estimators[request.param][0]


@pytest.fixture(scope="module")
def told_triton(server: Running) -> Any:
    """What Triton's client prints of this server."""
    return clients.ask("triton", "triton_http.py", f"127.0.0.1:{server.port}", questions=ASKED)


@clients.needs("triton")
def test_tritonclient_is_answered_whatever_it_sends_and_wants(told_triton: Any, expected: dict[str, Any]) -> None:
    told = told_triton

    for way in ("binary", "JSON", "gzip", "deflate"):
        assert told[way] == expected, way
    by_default = {
        model: {name: values for name, values in outputs.items() if name in ("predict", "transform")}
        for model, outputs in expected.items()
    }
    assert told["default"] == by_default
    assert (told["live"], told["ready"], told["extensions"]) == (True, True, list(EXTENSIONS))
    assert told["ready models"] == [True] * len(QUESTIONS)
    assert (told["ready version"], told["unready version"]) == (True, False)
    assert told["refusal"]["status"] == "404"
    assert "there is no such model" in told["refusal"]["message"]


@clients.needs("triton")
def test_tritonclient_finds_in_the_metadata_what_to_send(told_triton: Any, expected: dict[str, Any]) -> None:
    metadata = told_triton["metadata"]

    for question in QUESTIONS:
        about = metadata[question.model]
        takes = {one["name"]: (one["datatype"], one["shape"]) for one in about["inputs"]}
        sent = {one["name"]: (one["datatype"], [-1, *one["shape"][1:]]) for one in question.asked()["inputs"]}
        assert list(takes.values()) == list(sent.values())
        gives = {one["name"]: one["shape"] for one in about["outputs"]}
        for name, values in expected[question.model].items():
            assert gives[name] == [-1, *values["shape"][1:]]


@clients.needs("kserve")
def test_kserve_client_is_answered(server: Running, expected: dict[str, Any]) -> None:
    told = clients.ask("kserve", "kserve_rest.py", server.url, questions=ASKED)

    assert told["JSON"] == expected
    assert told["binary"] == expected
    assert (told["live"], told["ready"], told["unknown model"]) == (True, True, False)
    assert told["ready models"] == [True] * len(QUESTIONS)


@clients.needs("mlserver")
def test_codecs_of_mlserver_are_understood_and_understand(server: Running, expected: dict[str, Any]) -> None:
    told = clients.ask("mlserver", "mlserver_codecs.py", server.url, questions=ASKED)

    assert told == expected


@clients.needs("mlserver")
@pytest.mark.parametrize(
    ("name", "batch_size", "options"), [("uvicorn", 1, []), ("granian", 2, []), ("gunicorn", 2, ["--binary-data"])]
)
def test_infer_command_of_mlserver_is_answered(
    name: str, batch_size: int, options: list[str], estimators: Mapping[str, tuple[Running, int]],
    repository: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """A way of asking at each server in turn: the command starts for seconds, and the codecs ask every server."""
    server, _ = estimators[name]
    command = clients.environment("mlserver") / "bin" / "mlserver"
    asked, told = tmp_path / "asked.jsonl", tmp_path / "told.jsonl"
    outputs = [{"name": "predict"}, {"name": "predict_proba"}]
    asked.write_text(
        "".join(
            json.dumps({"id": str(row), "inputs": [tensor("input-0", NUMBERS[row : row + 1])], "outputs": outputs})
            + "\n"
            for row in range(N_ROWS)
        )
    )

    clients.run(
        str(command), "infer", "--url", f"127.0.0.1:{server.port}", "--model-name", "numbers",
        "--input-data-path", str(asked), "--output-data-path", str(told),
        "--workers", "1", "--batch-size", str(batch_size), *options,
    )  # fmt: skip

    estimator = joblib.load(repository / "numbers" / "1" / "model.joblib")
    replies = sorted(map(json.loads, told.read_text().splitlines()), key=lambda reply: reply["id"])
    assert [reply["id"] for reply in replies] == [str(row) for row in range(N_ROWS)]
    for name in ("predict", "predict_proba"):
        data = [one["data"] for reply in replies for one in reply["outputs"] if one["name"] == name]
        # The last digit depends on how many rows are asked together.
        batches = [NUMBERS[row : row + batch_size] for row in range(0, N_ROWS, batch_size)]
        assert data == [
            np.atleast_1d(row).tolist() for rows in batches for row in getattr(estimator, name)(rows)
        ]  # fmt: skip


def test_plain_http_client_sends_raw_bytes(server: Running, expected: dict[str, Any]) -> None:
    reply = CLIENT.post(
        f"{server.url}/v2/models/forest/infer",
        content=NARROW.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )

    size = int(reply.headers["inference-header-content-length"])
    (output,) = reply.json()["outputs"] if size == len(reply.content) else json.loads(reply.content[:size])["outputs"]
    assert reply.headers["content-type"] == "application/octet-stream"
    assert output["parameters"] == {"binary_data_size": 8 * N_ROWS}
    assert list(struct.unpack(f"<{N_ROWS}q", reply.content[size:])) == expected["forest"]["predict"]["data"]


def test_plain_http_client_sends_json(server: Running, expected: dict[str, Any]) -> None:
    for question in QUESTIONS:
        body = {"inputs": question.asked()["inputs"], "outputs": [{"name": name} for name in question.outputs]}
        content = json.dumps(body).encode()

        reply = CLIENT.post(f"{server.url}/v2/models/{question.model}/infer", content=content)

        told = {one["name"]: (one["shape"], one["data"]) for one in reply.json()["outputs"]}
        assert told == {
            name: (values["shape"], values["data"]) for name, values in expected[question.model].items()
        }  # fmt: skip
