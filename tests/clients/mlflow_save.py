"""Fits models and saves them as MLflow does, with signature and input example: `mlflow_save.py FOLDER`.

One folder per form in which MLflow writes a scikit-learn model, and per kind of example. Requirements are given: to
find them out, MLflow would load each model in a process of its own.
"""

import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

REQUIREMENTS = ["mlflow", "pandas", "scikit-learn"]
folder = Path(sys.argv[1])
table = pd.DataFrame(
    {
        "age": [41.5, np.nan, 23.0, 67.0] * 5,
        "city": ["Graz", "Linz", None, "Wien"] * 5,
        "visits": [3, 1, 4, 1] * 5,
        "since": pd.to_datetime(["2024-02-29 10:00"] * 20),
        "member": [True, False, False, True] * 5,
    }
)
columns = make_column_transformer(
    (SimpleImputer(), ["age", "visits"]), (OneHotEncoder(handle_unknown="ignore"), ["city", "member"])
)
mixed = make_pipeline(columns, LogisticRegression()).fit(table, ["stays", "leaves"] * 10)
for form, trusted in (("pickle", None), ("cloudpickle", None), ("skops", ["numpy.dtype"])):
    mlflow.sklearn.save_model(
        mixed,
        str(folder / form),
        serialization_format=form,
        skops_trusted_types=trusted,
        signature=infer_signature(table, mixed.predict(table)),
        input_example=table.head(8),
        pip_requirements=REQUIREMENTS,
    )
numbers = np.random.RandomState(0).normal(size=(12, 3))
mlflow.sklearn.save_model(
    LogisticRegression().fit(numbers, [0, 1] * 6),
    str(folder / "array"),
    serialization_format="pickle",
    input_example=(numbers[:6], {"temperature": 0.5}),
    pip_requirements=REQUIREMENTS,
)
texts = ["great fun", "bad food", "great food", "awful"] * 3
mlflow.sklearn.save_model(
    make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, ["good", "bad"] * 6),
    str(folder / "texts"),
    serialization_format="cloudpickle",
    input_example=texts[:4],
    pip_requirements=REQUIREMENTS,
)
