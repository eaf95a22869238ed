"""Every kind of model, asked in every dialect through every framework, answers what the estimator does in process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd
import pytest

from tests.conformance.exact import answer, exact
from tests.conformance.models import TEXTS, mixed_table
from tests.conformance.servers import Running
from tests.conformance.ways import WAYS, Question

NUMBERS: Final = pd.DataFrame(np.random.RandomState(7).normal(size=(7, 4)), columns=["x0", "x1", "x2", "x3"])
WORDS: Final = pd.DataFrame({"text": TEXTS[:6]})
PEOPLE: Final = mixed_table().head(12)

QUESTIONS: Final = {
    "numeric": Question("numbers", "predict", NUMBERS, is_matrix=True),
    "numeric, probabilities": Question("numbers", "predict_proba", NUMBERS, is_matrix=True),
    "mixed table": Question("people", "predict", PEOPLE),
    "mixed table, probabilities": Question("people", "predict_proba", PEOPLE),
    "text labels": Question("opinions", "predict", WORDS, is_text=True),
    "text, probabilities": Question("opinions", "predict_proba", WORDS, is_text=True),
    "regressor": Question("amounts", "predict", NUMBERS, is_matrix=True),
    "several amounts": Question("two-amounts", "predict", NUMBERS, is_matrix=True),
    "several labels": Question("two-kinds", "predict", NUMBERS, is_matrix=True),
    "transformer": Question("scaled", "transform", NUMBERS, is_matrix=True),
}

# What a way has no form for, and why.
LEFT_OUT: Final = {
    ("npy", "mixed table"): "an array of objects is a pickle",
    ("npy", "mixed table, probabilities"): "an array of objects is a pickle",
    ("npy", "text labels"): "an array of objects is a pickle",
    ("npy", "text, probabilities"): "an array of objects is a pickle",
    ("npy", "several labels"): "an array of objects is a pickle",
    ("csv", "several labels"): "its cells do not tell the text 2 from the number",
}


def cases() -> Iterator[Any]:
    for way in WAYS:
        for kind, asked in QUESTIONS.items():
            if (way, kind) in LEFT_OUT or (way == "vertex" and asked.model != "numbers"):
                continue
            yield pytest.param(way, asked, id=f"{way}: {kind}")


def in_process(asked: Question, repository: Path) -> Any:
    (version,) = (repository / asked.model).glob("[0-9]*")
    estimator = joblib.load(version / "model.joblib")
    rows: Any = asked.table
    if asked.is_text:
        rows = asked.table.iloc[:, 0].tolist()
    elif asked.is_matrix:
        rows = np.ascontiguousarray(asked.table.to_numpy())  # as it lay at fit: the last digit depends on it
    return getattr(estimator, asked.output)(rows)


def as_texts(value: Any) -> Any:
    """Labels as tensors of BYTES have them: what is no text, as JSON writes it."""
    if isinstance(value, list):
        return [as_texts(item) for item in value]
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("way", "asked"), list(cases()))
def test_every_dialect_gives_the_estimators_own_answers(
    way: str, asked: Question, estimators: Mapping[str, tuple[Running, int]], repository: Path
) -> None:
    values = in_process(asked, repository)
    expected = answer(values)
    if way.startswith("v2") and isinstance(values, np.ndarray) and values.dtype == object:
        expected = exact(as_texts(values.tolist()))

    found = {name: exact(WAYS[way](estimators[name][0].url, asked)) for name in ("uvicorn", "granian")}

    assert found == dict.fromkeys(found, expected)
