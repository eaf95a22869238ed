"""Ways to ask a model: one per dialect and form of body, each giving back one output as nested lists.

Written without the service's own encoders and decoders, so that the two can disagree.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conformance.servers import CLIENT

DATATYPES: Final = {"f": "FP64", "i": "INT64", "b": "BOOL", "O": "BYTES"}
OF_DATATYPE: Final = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?", "FP32": "<f4"}


@dataclass(frozen=True, slots=True)
class Question:
    """A model and rows for it. `table` has its columns by name, missing values as pandas has them.

    `is_matrix` says that all are numbers of one kind, `is_text` that there is only text, without a name.
    """

    model: str
    output: str
    table: pd.DataFrame
    is_matrix: bool = False
    is_text: bool = False

    @property
    def records(self) -> list[dict[str, Any]]:
        columns = {name: cells(self.table[name]) for name in self.table}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @property
    def rows(self) -> list[list[Any]]:
        return [list(record.values()) for record in self.records]

    @property
    def texts(self) -> pd.DataFrame:
        """The table with moments as texts, for forms that have no type for them."""
        return self.table.assign(**{n: cells(self.table[n]) for n in self.table if self.table[n].dtype.kind == "M"})


def cells(column: pd.Series[Any]) -> list[Any]:
    """Values as JSON has them."""
    if column.dtype.kind == "M":
        return [moment.isoformat() for moment in column]
    listed: list[Any] = column.astype(object).tolist()
    return [None if value is None or value != value else value for value in listed]


Ask = Callable[[str, Question], Any]
WAYS: Final[dict[str, Ask]] = {}


def way(name: str) -> Callable[[Ask], Ask]:
    def register(ask: Ask) -> Ask:
        WAYS[name] = ask
        return ask

    return register


def post(url: str, *, body: Any, kind: str = "application/json", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = CLIENT.post(
        url, content=content, headers={"content-type": kind, **headers}, timeout=60
    )  # fmt: skip
    assert reply.status_code == 200, reply.text
    return reply


# -- native --------------------------------------------------------------------------------------


def native(url: str, asked: Question) -> str:
    return f"{url}/models/{asked.model}/predict?outputs={asked.output}"


def answered(reply: httpx.Response, asked: Question) -> Any:
    key = {"predict": "predictions", "predict_proba": "probabilities"}.get(asked.output, asked.output)
    return reply.json()[key]


@way("native rows")
def native_rows(url: str, asked: Question) -> Any:
    return answered(post(native(url, asked), body={"instances": asked.rows}), asked)


@way("native columns")
def native_columns(url: str, asked: Question) -> Any:
    columns = {name: cells(asked.table[name]) for name in asked.table}
    return answered(post(native(url, asked), body={"columns": columns}), asked)


def from_frame(frame: pd.DataFrame, asked: Question) -> Any:
    """An output out of the columns that tables have for it."""
    if list(frame) == [asked.output]:
        return frame[asked.output].tolist()
    assert all(name.startswith(asked.output) for name in frame), list(frame)
    return frame.to_numpy().tolist()


@way("arrow")
def arrow(url: str, asked: Question) -> Any:
    sink = io.BytesIO()
    table = pa.Table.from_pandas(asked.table, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.stream"
    reply = post(native(url, asked), body=sink.getvalue(), kind=kind)
    assert reply.headers["content-type"] == kind
    return from_frame(pa.ipc.open_stream(reply.content).read_all().to_pandas(), asked)


@way("parquet")
def parquet(url: str, asked: Question) -> Any:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(asked.table, preserve_index=False), sink)
    reply = post(native(url, asked), body=sink.getvalue(), kind="application/vnd.apache.parquet")
    return from_frame(pq.read_table(io.BytesIO(reply.content)).to_pandas(), asked)


@way("csv")
def csv(url: str, asked: Question) -> Any:
    body = asked.texts.to_csv(index=False).encode()
    reply = post(native(url, asked), body=body, kind="text/csv")
    return from_frame(pd.read_csv(io.StringIO(reply.text), dtype=str).map(value_of), asked)


def value_of(text: str) -> Any:
    """A cell of CSV: the number that it is, or the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@way("ndjson")
def ndjson(url: str, asked: Question) -> Any:
    lines = "\n".join(json.dumps(record) for record in asked.records).encode()
    reply = post(native(url, asked), body=lines, kind="application/x-ndjson")
    key = {"predict": "prediction", "predict_proba": "probabilities"}.get(asked.output, asked.output)
    return [json.loads(line)[key] for line in reply.text.splitlines()]


@way("npy")
def npy(url: str, asked: Question) -> Any:
    sink = io.BytesIO()
    np.save(sink, asked.table.to_numpy())
    reply = post(native(url, asked), body=sink.getvalue(), kind="application/x-npy")
    return np.load(io.BytesIO(reply.content)).tolist()


# -- Open Inference V2 ---------------------------------------------------------------------------


def tensors(asked: Question) -> list[tuple[str, np.ndarray[Any, Any]]]:
    if asked.is_matrix:
        return [("input-0", asked.table.to_numpy())]
    table = asked.texts
    found = []
    for name in table:
        column = table[name]
        values = column.to_numpy() if column.dtype.kind in "fib" else np.array(cells(column), dtype=object)
        found.append((str(name), values.reshape(-1, 1)))
    return found


def shaped(entry: Mapping[str, Any], values: Any) -> Any:
    return np.array(values, dtype=object if entry["datatype"] == "BYTES" else None).reshape(entry["shape"]).tolist()


@way("v2 json")
def v2_json(url: str, asked: Question) -> Any:
    inputs = [
        {
            "name": name,
            "shape": list(values.shape),
            "datatype": DATATYPES[values.dtype.kind],
            "data": cells(pd.Series(values.ravel())),
        }
        for name, values in tensors(asked)
    ]
    body = {"inputs": inputs, "outputs": [{"name": asked.output}]}
    (entry,) = post(f"{url}/v2/models/{asked.model}/infer", body=body).json()["outputs"]
    return shaped(entry, entry["data"])


@way("v2 binary")
def v2_binary(url: str, asked: Question) -> Any:
    inputs, parts = [], []
    for name, values in tensors(asked):
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "datatype": DATATYPES[values.dtype.kind]}
        if values.dtype.kind == "O" and None in values.ravel().tolist():  # which raw bytes cannot say
            entry["data"] = values.ravel().tolist()
        else:
            parts.append(packed(values))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        inputs.append(entry)
    outputs = [{"name": asked.output, "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    reply = post(
        f"{url}/v2/models/{asked.model}/infer",
        body=head + b"".join(parts),
        kind="application/octet-stream",
        **{"inference-header-content-length": str(len(head))},
    )
    size = int(reply.headers["inference-header-content-length"])
    (entry,) = json.loads(reply.content[:size])["outputs"]
    return shaped(entry, unpacked(entry["datatype"], reply.content[size:]))


def packed(values: np.ndarray[Any, Any]) -> bytes:
    if values.dtype.kind != "O":
        return values.tobytes()
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values.ravel())


def unpacked(datatype: str, content: bytes) -> list[Any]:
    if datatype != "BYTES":
        listed: list[Any] = np.frombuffer(content, dtype=OF_DATATYPE[datatype]).tolist()
        return listed
    found = []
    while content:
        (size,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return found


# -- TensorFlow Serving, MLflow, SageMaker, Vertex AI, TorchServe --------------------------------


@way("v1 rows")
def v1_rows(url: str, asked: Question) -> Any:
    body = {"signature_name": asked.output, "instances": asked.rows if asked.is_matrix else asked.records}
    return post(f"{url}/v1/models/{asked.model}:predict", body=body).json()["predictions"]


@way("v1 columns")
def v1_columns(url: str, asked: Question) -> Any:
    body = {"signature_name": asked.output, "inputs": {name: cells(asked.table[name]) for name in asked.table}}
    return post(f"{url}/v1/models/{asked.model}:predict", body=body).json()["outputs"]


@way("mlflow split")
def mlflow_split(url: str, asked: Question) -> Any:
    body = {
        "dataframe_split": {"columns": list(asked.table), "data": asked.rows},
        "params": {"outputs": [asked.output]},
    }
    return post(f"{url}/invocations?model={asked.model}", body=body).json()["predictions"]


@way("mlflow csv")
def mlflow_csv(url: str, asked: Question) -> Any:
    body = asked.texts.to_csv(index=False).encode()
    reply = post(f"{url}/invocations?model={asked.model}&outputs={asked.output}", body=body, kind="text/csv")
    return reply.json()["predictions"]


def attributes(asked: Question) -> dict[str, str]:
    return {"x-amzn-sagemaker-custom-attributes": f"outputs={asked.output}"}


@way("sagemaker json")
def sagemaker_json(url: str, asked: Question) -> Any:
    return post(f"{url}/models/{asked.model}/invoke", body=asked.rows, **attributes(asked)).json()


@way("sagemaker csv")
def sagemaker_csv(url: str, asked: Question) -> Any:
    body = asked.texts.to_csv(index=False, header=False).encode()
    return post(f"{url}/models/{asked.model}/invoke", body=body, kind="text/csv", **attributes(asked)).json()


@way("vertex")
def vertex(url: str, asked: Question) -> Any:
    body = {"instances": asked.rows, "parameters": {"outputs": [asked.output]}}
    return post(f"{url}/v1/endpoints/1/deployedModels/2:predict", body=body).json()["predictions"]


@way("torchserve")
def torchserve(url: str, asked: Question) -> Any:
    return post(f"{url}/predictions/{asked.model}?outputs={asked.output}", body=asked.records).json()
