"""tritonclient over HTTP. usage: triton_http.py HOST:PORT < questions; every way of asking is a key of the answers."""

import json
import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

# As a tensor is sent and wanted, and how the bodies are compressed. The first is what the client does by itself.
WAYS = {
    "default": (None, {}),
    "binary": (True, {}),
    "JSON": (False, {}),
    "gzip": (True, {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}),
    "deflate": (False, {"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"}),
}


def ask(client, question, binary, options):
    inputs = []
    for tensor in question["inputs"]:
        values = np.array(tensor["data"], dtype=triton_to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])
        given = http.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        given.set_data_from_numpy(values, **({} if binary is None else {"binary_data": binary}))
        inputs.append(given)
    outputs = None
    if binary is not None:
        outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in question["outputs"]]
    result = client.infer(question["model"], inputs, outputs=outputs, request_id="mine", **options)
    assert result.get_response()["id"] == "mine"
    return {entry["name"]: plain(result.as_numpy(entry["name"])) for entry in result.get_response()["outputs"]}


def plain(values):
    flat = [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return {"dtype": str(values.dtype), "shape": list(values.shape), "data": flat}


def refusal(client):
    try:
        client.get_model_metadata("nobody")
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def main():
    questions = json.load(sys.stdin)
    with http.InferenceServerClient(sys.argv[1], network_timeout=60) as client:
        answers = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "extensions": client.get_server_metadata()["extensions"],
            "ready models": [client.is_model_ready(question["model"]) for question in questions],
            "ready version": client.is_model_ready("versions", "3"),
            "unready version": client.is_model_ready("versions", "9"),
            "metadata": {question["model"]: client.get_model_metadata(question["model"]) for question in questions},
            "refusal": refusal(client),
        }
        for way, (binary, options) in WAYS.items():
            answers[way] = {question["model"]: ask(client, question, binary, options) for question in questions}
    json.dump(answers, sys.stdout)


main()
