"""The forest behind BentoML, as its quickstart shows it."""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service
class Forest:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL_FILE"])

    @bentoml.api
    def predict(self, instances: list[list[float]]) -> dict[str, list[list[float]]]:
        return {"probabilities": self.model.predict_proba(np.array(instances)).tolist()}
