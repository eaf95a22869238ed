"""Loads MLflow model folders with MLflow itself, and asks each for its own input example: `mlflow_load.py FOLDER …`.

Twice: as `mlflow.pyfunc` does it, and as the scoring server reads the example of a request.
"""

import json
import sys

import mlflow
from mlflow.models import validate_serving_input


def ask(folder):
    model = mlflow.pyfunc.load_model(folder)
    with open(f"{folder}/serving_input_example.json") as file:
        served = validate_serving_input(folder, file.read())
    inputs = model.metadata.get_input_schema()
    return {
        "inputs": None if inputs is None else inputs.to_dict(),
        "loaded": model.predict(model.input_example).tolist(),
        "served": served.tolist(),
    }


json.dump([ask(folder) for folder in sys.argv[1:]], sys.stdout)
