"""KServe's inference client over REST. usage: kserve_rest.py URL < questions; prints answers by way of asking."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.utils.numpy_codec import to_np_dtype


def request_of(question, binary):
    inputs = []
    for tensor in question["inputs"]:
        values = np.array(tensor["data"], dtype=to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])
        given = InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        given.set_data_from_numpy(values, binary_data=binary)
        inputs.append(given)
    outputs = [RequestedOutput(name, {"binary_data": binary}) for name in question["outputs"]]
    return InferRequest(question["model"], inputs, request_id="mine", request_outputs=outputs)


def plain(output):
    values = output.as_numpy()
    flat = [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]
    return {"dtype": str(values.dtype), "shape": list(output.shape), "data": flat}


async def main():
    url, questions = sys.argv[1], json.load(sys.stdin)
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    answers = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "ready models": [await client.is_model_ready(url, question["model"]) for question in questions],
        "unknown model": await client.is_model_ready(url, "nobody"),
    }
    for way, binary in {"JSON": False, "binary": True}.items():
        answers[way] = {}
        for question in questions:
            response = await client.infer(url, request_of(question, binary), model_name=question["model"])
            assert response.id == "mine"
            answers[way][question["model"]] = {output.name: plain(output) for output in response.outputs}
    await client.close()
    json.dump(answers, sys.stdout)


asyncio.run(main())
