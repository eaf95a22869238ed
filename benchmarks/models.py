"""The models that are served, and what they are asked. `python -m benchmarks.models FOLDER [WORK ...]` writes them.

    FOLDER/<work>/model.joblib     what a naive app loads
    FOLDER/<work>/models/          the same estimator, exported: what Tandem serves
    FOLDER/<work>/1.jsonl          requests of one row, one body per line; 100.jsonl those of 100 rows

It is a program of its own, so that whoever measures holds no library of models in memory: pages
shared with the servers would make them look smaller than they are.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROWS: Final = (1, 100)
# Requests differ, so that nobody gains from having seen one before.
BODIES: Final = {1: 64, 100: 8}

COLUMNS: Final = 30
TRAINED_ON: Final = 2000
TEXTS: Final = ("north", "east", "south", "west", "middle", "elsewhere")


@dataclass(frozen=True, slots=True)
class Work:
    """`route` is that of the naive apps: `numbers` takes lists, `customers` takes objects with texts."""

    name: str
    title: str
    route: str


LOGISTIC: Final = Work("logistic", "scaler + logistic regression", "numbers")
FOREST: Final = Work("forest", "random forest of 100", "numbers")
MIXED: Final = Work("mixed", "mixed pipeline + logistic regression", "customers")
BOOSTING: Final = Work("boosting", "mixed pipeline + histogram boosting", "customers")
WORKS: Final = {work.name: work for work in (LOGISTIC, FOREST, MIXED, BOOSTING)}

# Slow enough on every engine that 64 connections keep each thread of a server busy, small
# enough in bytes that decoding is not what health checks wait for.
SLOW: Final = Work("slow", "random forest of 1000", "numbers")


def main(folder: str, *names: str) -> None:
    for name in names or (*WORKS, SLOW.name):
        write({**WORKS, SLOW.name: SLOW}[name], Path(folder))


def write(work: Work, folder: Path) -> None:
    import joblib

    from training import export

    estimator, train, asked = _customers(work) if work.route == "customers" else _numbers(work)
    place = folder / work.name
    place.mkdir(parents=True)
    joblib.dump(estimator, place / "model.joblib")
    export(estimator, train[:200], name=work.name, repository=place / "models")
    for rows in ROWS:
        bodies = [json.dumps({"instances": asked[i * rows : (i + 1) * rows]}) for i in range(BODIES[rows])]
        (place / f"{rows}.jsonl").write_text("\n".join(bodies) + "\n")


def _numbers(work: Work) -> tuple[Any, Any, list[Any]]:
    """(fitted, rows it was fitted on, rows to ask). 2000 noisy rows make trees of 200 leaves; toy data makes 20."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = make_classification(2 * TRAINED_ON, COLUMNS, n_informative=10, flip_y=0.02, random_state=0)
    train, asked = X[:TRAINED_ON], X[TRAINED_ON:]
    estimator: Any
    if work is LOGISTIC:
        estimator = make_pipeline(StandardScaler(), LogisticRegression())
    else:
        estimator = RandomForestClassifier(1000 if work is SLOW else 100, random_state=0)
    return estimator.fit(train, y[:TRAINED_ON]), train, asked.tolist()


def _customers(work: Work) -> tuple[Any, Any, list[Any]]:
    """(fitted, frame it was fitted on, records to ask): six numbers, a tenth of them missing, and six texts."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    random = np.random.default_rng(0)
    numbers = random.normal(size=(2 * TRAINED_ON, 6))
    texts = random.integers(len(TEXTS), size=(2 * TRAINED_ON, 6))
    y = numbers[:, 0] + numbers[:, 1] * numbers[:, 2] + 0.5 * texts[:, 0] - 0.5 * texts[:, 1] > 0
    numbers[random.random(numbers.shape) < 0.1] = np.nan
    columns = {f"number{i}": numbers[:, i] for i in range(6)}
    columns |= {f"text{i}": np.array(TEXTS, dtype=object)[texts[:, i]] for i in range(6)}
    frame = pd.DataFrame(columns)
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [f"number{i}" for i in range(6)]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=work is not BOOSTING), [f"text{i}" for i in range(6)]),
        sparse_threshold=0.0 if work is BOOSTING else 0.3,
    )
    last = HistGradientBoostingClassifier(random_state=0) if work is BOOSTING else LogisticRegression(max_iter=1000)
    train, asked = frame[:TRAINED_ON], frame[TRAINED_ON:]
    records = asked.astype(object).where(asked.notna(), None).to_dict("records")
    return make_pipeline(prepare, last).fit(train, y[:TRAINED_ON].astype(int)), train, records


if __name__ == "__main__":
    main(*sys.argv[1:])
