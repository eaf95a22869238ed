from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from service.core.artefact_errors import NameInvalid, VersionExists
from service.core.errors import TandemError
from service.loading.loader import Loader
from service.repository.sources import Folder
from training.data import DataUnusable
from training.train import TrainingFailed, train

ROWS = 120
QUICK = {"n_estimators": 10}


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    """Columns of every kind, each with a way to go wrong: holes, quotes, identifiers, emptiness."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "customer": [f"C{number:04}" for number in range(ROWS)],
            "age": np.where(rng.random(ROWS) < 0.1, np.nan, rng.integers(18, 90, ROWS)),
            "visits": rng.integers(0, 20, ROWS),
            "city": rng.choice(["Graz", 'St. "Pölten"', None], ROWS),
            "active": rng.random(ROWS) < 0.5,
            "paid": rng.choice([True, False, None], ROWS),
            "<script>": rng.normal(size=ROWS),
            "nothing": np.nan,
        }
    )
    frame["churn"] = np.where(frame["<script>"] + frame["active"] > 0.5, "yes", "no")
    frame.loc[:2, "churn"] = None
    path = tmp_path / "churn.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # a forest's log of a probability of zero
@pytest.mark.parametrize("estimator", ["logistic", "random-forest"])
def test_a_model_of_mixed_columns_is_exported_and_answers_as_recorded_after_reloading(
    churn: Path, tmp_path: Path, estimator: str
) -> None:
    models = tmp_path / "models"

    trained = train(str(churn), name="churn", target="churn", estimator=estimator, repository=models)

    Loader()(Folder(models).scan().versions["churn"][1])  # asks the golden rows again
    signature = trained.exported.signature
    assert signature.names == ("age", "visits", "city", "active", "paid", "<script>")
    assert all(column.nullable for column in signature.columns)
    assert set(trained.dropped) == {"customer", "nothing"}
    assert trained.notes[0] == "3 of 120 rows left out: 'churn' is missing"


def test_the_version_folder_holds_the_card_and_its_pictures(churn: Path, tmp_path: Path) -> None:
    trained = train(str(churn), name="churn", target="churn", params=QUICK, repository=tmp_path)

    files = trained.exported.manifest.files
    assert {"card.html", "confusion_matrix.png", "roc.png", "precision_recall.png", "importance.png"} < set(files)
    page = (trained.exported.path / "card.html").read_text()
    assert all(f'src="{file}"' in page for file in files if file.endswith(".png"))
    assert "<script>" not in page


def test_the_exported_model_is_the_one_that_was_scored(tmp_path: Path) -> None:
    trained = train("diabetes", name="d", estimator="ridge", repository=tmp_path)

    manifest = json.loads((trained.exported.path / "manifest.json").read_bytes())
    assert {name: manifest["scores"][name] for name in trained.scores} == trained.scores
    assert manifest["scores"]["rows_fitted"] == 331
    assert manifest["scores"]["rows_held_out"] == 111


def test_the_same_data_give_the_same_model(tmp_path: Path) -> None:
    twice = [train("iris", name="iris", params=QUICK, repository=tmp_path).exported for _ in range(2)]

    first, second = (exported.manifest.files for exported in twice)
    assert [exported.version for exported in twice] == [1, 2]
    assert first == second


def test_the_fit_leaves_the_number_of_jobs_as_it_was(tmp_path: Path) -> None:
    trained = train("iris", name="iris", params=QUICK, repository=tmp_path)

    assert joblib.load(trained.exported.path / "model.joblib").n_jobs is None


def test_the_estimator_overrides_what_the_target_looks_like(tmp_path: Path) -> None:
    trained = train("digits", name="d", estimator="DecisionTreeRegressor", repository=tmp_path)

    assert "r2" in trained.scores


def test_xgboost_answers_with_the_names_of_the_classes(tmp_path: Path) -> None:
    trained = train("iris", name="iris", estimator="xgboost", params=QUICK, repository=tmp_path)

    assert trained.exported.signature.outputs[0].classes == ["setosa", "versicolor", "virginica"]
    assert trained.exported.manifest.trust == []


def test_lightgbm_takes_column_names_it_would_refuse(churn: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(churn)[["age", "visits", "churn"]].rename(columns={"age": 'age, "years" [a]'})
    frame.to_csv(churn, index=False)

    trained = train(str(churn), name="c", target="churn", estimator="lightgbm", params=QUICK, repository=tmp_path)

    assert trained.exported.signature.names == ('age, "years" [a]', "visits")


def test_warnings_of_the_fit_become_remarks(tmp_path: Path) -> None:
    trained = train("iris", name="iris", estimator="logistic", params={"max_iter": 1}, repository=tmp_path)

    assert any("ConvergenceWarning" in note for note in trained.notes)


def test_each_step_is_announced_before_it_begins(tmp_path: Path) -> None:
    said: list[str] = []

    train("iris", name="iris", params=QUICK, repository=tmp_path, step=said.append)

    assert said == [
        "Read iris",
        "Fit RandomForestClassifier on 112 rows",
        "Score on 38 held-out rows",
        "Draw the model card",
        "Export and check",
    ]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"name": "a/b"}, NameInvalid, "model name", id="name"),
        pytest.param({"estimator": "logistic", "target": "bmi"}, TrainingFailed, "fractional", id="classes of amounts"),
        pytest.param({"params": {"alpha": -1}}, TrainingFailed, "'alpha' parameter", id="value of a parameter"),
        pytest.param({"test_size": 0.999}, DataUnusable, "split", id="nothing to fit"),
        pytest.param({"test_size": 0.001}, DataUnusable, "single row", id="one row to score"),
    ],
)
def test_what_cannot_be_trained_is_said(
    tmp_path: Path, options: dict[str, Any], error: type[TandemError], message: str
) -> None:
    with pytest.raises(error, match=message):
        train("diabetes", **{"name": "d", "estimator": "ridge", "repository": tmp_path, **options})


@pytest.mark.parametrize(
    ("target", "estimator", "message"),
    [
        pytest.param(["x"] * 20, "auto", "same value in every row", id="one class"),
        pytest.param(["x"] * 19 + ["y"], "auto", "split", id="a class of one row"),
        pytest.param(["x", "y"] * 10, "lasso", "predicts numbers", id="amounts of text"),
    ],
)
def test_a_target_that_does_not_suit_is_refused(
    tmp_path: Path, target: list[str], estimator: str, message: str
) -> None:
    pd.DataFrame({"a": range(20), "y": target}).to_csv(tmp_path / "data.csv", index=False)

    with pytest.raises(TandemError, match=message):
        train(str(tmp_path / "data.csv"), name="d", target="y", estimator=estimator, repository=tmp_path)


def test_a_version_that_exists_is_refused_before_the_fit(tmp_path: Path) -> None:
    train("iris", name="iris", params=QUICK, repository=tmp_path, version=4)
    said: list[str] = []

    with pytest.raises(VersionExists):
        train("iris", name="iris", repository=tmp_path, version=4, step=said.append)

    assert said == []
