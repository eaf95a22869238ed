"""KServe's inference client over gRPC. usage: kserve_grpc.py HOST:PORT < questions; prints answers by way of asking."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype


def request_of(question, is_raw):
    inputs = []
    for tensor in question["inputs"]:
        values = np.array(tensor["data"], dtype=to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])
        given = InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        given.set_data_from_numpy(values, binary_data=is_raw)
        inputs.append(given)
    outputs = [RequestedOutput(name) for name in question["outputs"]]
    return InferRequest(question["model"], inputs, request_id="mine", request_outputs=outputs)


def plain(output):
    values = output.as_numpy()
    flat = [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return {"dtype": str(values.dtype), "shape": list(output.shape), "data": flat}


async def main():
    questions = json.load(sys.stdin)
    client = InferenceGRPCClient(sys.argv[1])
    answers = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "ready models": [await client.is_model_ready(question["model"]) for question in questions],
    }
    for way, is_raw in {"typed": False, "raw": True}.items():
        answers[way] = {}
        for question in questions:
            response = await client.infer(request_of(question, is_raw))
            assert response.id == "mine"
            answers[way][question["model"]] = {output.name: plain(output) for output in response.outputs}
    await client.close()
    json.dump(answers, sys.stdout)


asyncio.run(main())
