"""The forest behind LitServe, as its quickstart shows it."""

import os
import sys

import joblib
import litserve
import numpy as np


class Forest(litserve.LitAPI):
    def setup(self, device):
        self.model = joblib.load(os.environ["MODEL_FILE"])

    def decode_request(self, request):
        return np.array(request["instances"])

    def predict(self, x):
        return self.model.predict_proba(x)

    def encode_response(self, output):
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Forest(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
