"""Requests as MLServer's codecs write data frames, texts and arrays. usage: mlserver_codecs.py URL < questions"""

import json
import sys
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec, StringRequestCodec
from mlserver.types import InferenceResponse

DTYPES = {"FP64": "float64", "FP32": "float32", "INT64": "int64", "INT8": "int8", "BOOL": "bool", "BYTES": "object"}


def request_of(inputs):
    columns = [np.array(one["data"], dtype=DTYPES[one["datatype"]]).reshape(one["shape"]) for one in inputs]
    if len(inputs) > 1:
        frame = pd.DataFrame({one["name"]: column[:, 0] for one, column in zip(inputs, columns, strict=True)})
        return PandasCodec.encode_request(frame, use_bytes=False)
    if inputs[0]["datatype"] == "BYTES":
        return StringRequestCodec.encode_request(inputs[0]["data"], use_bytes=False)
    return NumpyRequestCodec.encode_request(columns[0])


def ask(url, question):
    body = request_of(question["inputs"]).model_dump(mode="json", exclude_none=True)
    body["outputs"] = [{"name": name} for name in question["outputs"]]
    request = Request(f"{url}/v2/models/{question['model']}/infer", json.dumps(body).encode())
    with urlopen(request, timeout=60) as reply:
        response = InferenceResponse.model_validate_json(reply.read())
    return {output.name: plain(output) for output in response.outputs}


def plain(output):
    is_text = output.datatype == "BYTES"
    values = np.array(StringCodec.decode_output(output)) if is_text else NumpyCodec.decode_output(output)
    dtype = "object" if is_text else str(values.dtype)
    return {"dtype": dtype, "shape": list(output.shape), "data": values.ravel().tolist()}


def main():
    questions = json.load(sys.stdin)
    json.dump({question["model"]: ask(sys.argv[1], question) for question in questions}, sys.stdout)


main()
