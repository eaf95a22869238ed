from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

from service.repository.manifest import DroppedEngine, EngineEntry
from service.runtimes.describe import Described, describe
from training.data import Task
from training.prove import Proven
from training.report import Facts, HeldOut, ask, card, draw, example, score

ROWS = 60
X = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 2)), columns=["<script>", "it's"])
BINARY = np.where(X["<script>"] > 0, "yes", "no")
THREE = np.digitize(X["<script>"], [-0.5, 0.5])
AMOUNT = (X["<script>"] * 2 + 1).to_numpy()
VOID = {"meta", "img"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed without being open; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def held_out(estimator: Any, y: np.ndarray[Any, Any], task: Task = Task.CLASSIFICATION) -> HeldOut:
    return ask(estimator.fit(X, y), X, y, task)


def described() -> Described:
    return describe(LogisticRegression().fit(X, BINARY), X)


def read(page: bytes) -> Balanced:
    parser = Balanced()
    parser.feed(page.decode())
    parser.close()
    return parser


def test_classes_are_scored_beside_the_most_frequent_one() -> None:
    held = held_out(LogisticRegression(C=1e6), BINARY)

    scores = score(held, BINARY)

    assert scores["accuracy"] == scores["roc_auc"] == 1
    assert scores["baseline_accuracy"] == pytest.approx(max(np.mean(BINARY == "yes"), np.mean(BINARY == "no")))


def test_amounts_are_scored_beside_the_median() -> None:
    scores = score(held_out(Ridge(1e-9), AMOUNT, Task.REGRESSION), AMOUNT)

    assert scores["r2"] == pytest.approx(1)
    assert scores["mean_absolute_error"] < scores["baseline_mean_absolute_error"]


@pytest.mark.parametrize(
    ("estimator", "y", "has_area"),
    [
        pytest.param(RidgeClassifier(), BINARY, True, id="two classes without probabilities"),
        pytest.param(LogisticRegression(), THREE, True, id="three classes with probabilities"),
        pytest.param(RidgeClassifier(), THREE, False, id="three classes without probabilities"),
    ],
)
def test_the_area_under_the_curve_is_there_where_it_can_be(
    estimator: Any, y: np.ndarray[Any, Any], has_area: bool
) -> None:
    assert ("roc_auc" in score(held_out(estimator, y), y)) is has_area


@pytest.mark.parametrize(
    ("estimator", "y", "task", "files"),
    [
        pytest.param(
            LogisticRegression(),
            BINARY,
            Task.CLASSIFICATION,
            ["confusion_matrix.png", "roc.png", "precision_recall.png", "importance.png"],
            id="two classes",
        ),
        pytest.param(
            LogisticRegression(),
            THREE,
            Task.CLASSIFICATION,
            ["confusion_matrix.png", "importance.png"],
            id="three classes",
        ),
        pytest.param(Ridge(), AMOUNT, Task.REGRESSION, ["residuals.png", "importance.png"], id="amounts"),
    ],
)
def test_the_pictures_suit_the_task(estimator: Any, y: np.ndarray[Any, Any], task: Task, files: list[str]) -> None:
    assert list(draw(held_out(estimator, y, task))) == files


def test_the_card_is_one_well_formed_page_with_every_name_escaped() -> None:
    facts = Facts(
        name="churn",
        estimator="LogisticRegression",
        purpose="<b>bold</b>",
        scores={"accuracy": 0.9371, "mean_absolute_error": 12345.6},
        plots={"roc.png": b""},
        dropped={"<i>": "a & b"},
        notes=("<script>alert(1)</script>",),
    )
    engine = EngineEntry(name="onnx", runtime="onnx", files=("model.onnx",), agreement={"predict": 2e-9})
    dropped = DroppedEngine(name="treelite", output="predict", reason="<em>it</em> disagrees")
    proven = Proven((engine,), {}, (dropped,))

    page = card(facts, described(), proven)

    parser = read(page)
    assert parser.open == []
    assert b"<script>" not in page
    assert parser.images == ["roc.png"]
    for shown in (
        "<b>bold</b>",
        "0.9371",
        "12,346",
        "<script>",
        "a & b",
        "no, yes",
        "predict_proba",
        "scikit-learn",
        "2e-09",
        "<em>it</em> disagrees",
    ):
        assert shown in parser.text
    assert "2e-09" in parser.text
    assert "<em>it</em> disagrees" in parser.text


def test_the_card_of_a_model_that_was_not_scored_has_neither_scores_nor_pictures() -> None:
    text = read(card(Facts("churn", "Ridge", "Read from a file."), described(), Proven())).text

    assert "Scores" not in text
    assert "Pictures" not in text


def test_the_card_says_what_waits_for_a_gpu_to_be_proven() -> None:
    options = {"class": "cuml.linear_model.Ridge", "outputs": ["predict", "transform"]}
    engine = EngineEntry(name="cuml", runtime="cuml", files=(), agreement={}, options=options)

    text = read(card(Facts("churn", "Ridge", ""), described(), Proven((engine,)))).text

    assert "could give predict, transform on a GPU. It is not proven yet" in text
    assert "By the estimator itself" in text


def test_the_call_on_the_card_survives_the_shell() -> None:
    parser = read(card(Facts("churn", "Ridge", ""), described(), Proven()))

    command = re.search(r"curl.*?}'", parser.text, re.DOTALL)

    assert command is not None
    assert set(json.loads(shlex.split(command.group())[-1])) == {"<script>", "it's"}


def test_the_example_is_a_row_without_holes_where_there_is_one() -> None:
    frame = pd.DataFrame({"a": [np.nan, 2.0], "b": ["x", "y"]})
    from sklearn.ensemble import RandomForestClassifier

    from training.pipeline import build_pipeline, sort_columns

    model = build_pipeline(sort_columns(frame), RandomForestClassifier(2), np.array([0, 1])).fit(frame, [0, 1])

    assert json.loads(example(describe(model, frame))) == {"a": 2.0, "b": "y"}


def test_a_column_named_like_a_word_of_the_protocol_is_sent_among_instances() -> None:
    frame = pd.DataFrame({"outputs": [1.0, 2.0]})

    assert json.loads(example(describe(Ridge().fit(frame, [1, 2]), frame))) == {"instances": [{"outputs": 1.0}]}
