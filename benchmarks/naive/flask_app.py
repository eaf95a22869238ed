"""A model behind Flask, as tutorials show it. `MODEL_FILE=model.joblib gunicorn flask_app:app`"""

import os

import joblib
import numpy as np
import pandas as pd
from flask import Flask, jsonify, request

app = Flask(__name__)
model = joblib.load(os.environ["MODEL_FILE"])


@app.post("/numbers")
def numbers():
    body = request.get_json()
    probabilities = model.predict_proba(np.array(body["instances"]))
    return jsonify({"probabilities": probabilities.tolist()})


@app.post("/customers")
def customers():
    body = request.get_json()
    probabilities = model.predict_proba(pd.DataFrame(body["instances"]))
    return jsonify({"probabilities": probabilities.tolist()})
