"""The forest behind Ray Serve, as its quickstart shows it."""

import os
import sys
import time

import joblib
import numpy as np
from ray import serve
from starlette.requests import Request


@serve.deployment
class Forest:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL_FILE"])

    async def __call__(self, http: Request):
        body = await http.json()
        return {"probabilities": self.model.predict_proba(np.array(body["instances"])).tolist()}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Forest.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
