"""tritonclient over HTTP, loading and unloading. usage: triton_repository.py HOST:PORT < the name of a model"""

import json
import sys

import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
model = json.load(sys.stdin)


def refused(name, **options):
    try:
        client.load_model(name, **options)
    except InferenceServerException as error:
        return str(error)
    return "was taken"


found = {"index": client.get_model_repository_index()}
client.unload_model(model, unload_dependents=True)
found["unloaded"] = client.get_model_repository_index()
found["ready when unloaded"] = client.is_model_ready(model)
found["with a configuration"] = refused(model, config="{}")
found["unknown"] = refused("nobody")
client.load_model(model)
found["loaded"] = client.get_model_repository_index()
found["ready when loaded"] = client.is_model_ready(model)
print(json.dumps(found))
