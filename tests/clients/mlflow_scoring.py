"""Asks a running service with MLflow's own scoring client: `mlflow_scoring.py HOST PORT < questions > answers`.

A question is `{"columns": {name: [value, …]}, "dates": [name, …], "params": {…} or null}` for a data frame, or
`{"array": [[…], …]}`. Each answer is what the client makes of the reply.
"""

import json
import sys

import numpy as np
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

host, port = sys.argv[1:]
client = ScoringServerClient(host, int(port))
client.wait_server_ready()
answers = []
for question in json.load(sys.stdin):
    if "array" in question:
        data = np.array(question["array"])
    else:
        data = pd.DataFrame(question["columns"])
        for name in question["dates"]:
            data[name] = pd.to_datetime(data[name])
    reply = client.invoke(data, question.get("params"))
    answers.append({"predictions": reply["predictions"], "rows": len(reply.get_predictions())})
json.dump({"version": client.get_version(), "answers": answers}, sys.stdout)
