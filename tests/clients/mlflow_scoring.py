"""Asks running services with MLflow's own scoring client: `mlflow_scoring.py HOST PORT … < questions > answers`.

A question is `{"columns": {name: [value, …]}, "dates": [name, …], "params": {…} or null}` for a data frame, or
`{"array": [[…], …]}`. Each answer is what the client makes of the reply; there is a list of them by port.
"""

import json
import sys

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, *ports = sys.argv[1:]


def data_of(question):
    if "array" in question:
        return np.array(question["array"])
    data = pd.DataFrame(question["columns"])
    for name in question["dates"]:
        data[name] = pd.to_datetime(data[name])
    return data


def ask(port, questions):
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready()
    answers = []
    for question in questions:
        reply = client.invoke(data_of(question), question.get("params"))
        answers.append({"predictions": reply["predictions"], "rows": len(reply.get_predictions())})
    return {"version": client.get_version(), "answers": answers}


questions = json.load(sys.stdin)
json.dump({port: ask(port, questions) for port in ports}, sys.stdout)
