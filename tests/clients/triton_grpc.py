"""tritonclient over gRPC. usage: triton_grpc.py HOST:PORT < questions; every way of asking is a key of the answers.

`health` is what gRPC's own health stub is told, as the health probes of orchestrators ask for it.
"""

import json
import queue
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def inputs_of(question):
    inputs = []
    for tensor in question["inputs"]:
        values = np.array(tensor["data"], dtype=triton_to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])
        given = triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        given.set_data_from_numpy(values)
        inputs.append(given)
    return inputs


def outputs_of(question):
    return [triton.InferRequestedOutput(name) for name in question["outputs"]]


def plain(result):
    return {entry.name: values_of(result.as_numpy(entry.name)) for entry in result.get_response().outputs}


def values_of(values):
    flat = [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return {"dtype": str(values.dtype), "shape": list(values.shape), "data": flat}


def ask(client, question, **options):
    result = client.infer(question["model"], inputs_of(question), request_id="mine", **options)
    assert result.get_response().id == "mine"
    return plain(result)


def ask_in_stream(client, questions):
    """Every question on one stream, and one for a model that is not there before them."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("nobody", inputs_of(questions[0]))
    for question in questions:
        client.async_stream_infer(question["model"], inputs_of(question), outputs=outputs_of(question))
    _, error = answers.get(timeout=60)
    results = [answers.get(timeout=60)[0] for _ in questions]
    client.stop_stream()
    return {
        "refusal": error.message(),
        "answers": {question["model"]: plain(result) for question, result in zip(questions, results, strict=True)},
    }


def refusal(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]


def health(address, service=""):
    with grpc.insecure_channel(address) as channel:
        return HealthCheckResponse.ServingStatus.Name(
            HealthStub(channel).Check(HealthCheckRequest(service=service)).status
        )


def main():
    address, questions = sys.argv[1], json.load(sys.stdin)
    client = triton.InferenceServerClient(address)
    first = questions[0]
    answers = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "extensions": list(client.get_server_metadata().extensions),
        "ready models": [client.is_model_ready(question["model"]) for question in questions],
        "metadata": {q["model"]: client.get_model_metadata(q["model"], as_json=True) for q in questions},
        "config": {q["model"]: client.get_model_config(q["model"], as_json=True) for q in questions},
        "index": client.get_model_repository_index(as_json=True),
        "refusal": refusal(lambda: client.get_model_metadata("nobody")),
        "load": refusal(lambda: client.load_model(first["model"])),
        "statistics": refusal(lambda: client.get_inference_statistics(first["model"])),
        "health": [health(address), health(address, "inference.GRPCInferenceService"), health(address, first["model"])],
        "default": {question["model"]: ask(client, question) for question in questions},
        "chosen": {q["model"]: ask(client, q, outputs=outputs_of(q), timeout=60_000_000) for q in questions},
        "gzip": {q["model"]: ask(client, q, outputs=outputs_of(q), compression_algorithm="gzip") for q in questions},
        "stream": ask_in_stream(client, questions),
    }
    client.close()
    json.dump(answers, sys.stdout)


main()
