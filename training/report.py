"""What a model is worth on rows it has not seen: scores, pictures, and the card that shows them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from service.core.table import column_arrays, missing, take
from service.protocols.native import example_body, first_record, write_columns
from service.repository.manifest import installed_libraries, python_version
from service.repository.model_file import Format
from service.runtimes.describe import Described
from training.data import Task
from training.pipeline import SEED
from training.prove import Proven

CARD: Final = "card.html"
PICTURES: Final = {
    "confusion_matrix.png": ("Confusion matrix", "Held-out rows. Colour is the share of the actual class."),
    "residuals.png": ("Residuals", "Held-out rows. A shape in them is something the model has missed."),
    "roc.png": ("ROC curve", "Held-out rows, one point for each threshold."),
    "precision_recall.png": ("Precision and recall", "Held-out rows, one point for each threshold."),
    "importance.png": ("Importance of columns", "How much worse the held-out score gets without each column."),
}
# Importance costs one prediction of all rows for each column and repeat: these keep it to seconds.
SHUFFLED_ROWS: Final = 500
SHUFFLED_COLUMNS: Final = 100
SHOWN_COLUMNS: Final = 20


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A fitted model with rows it has not seen, their true targets, and what it says of them.

    `chances` has shape (rows, classes), None where the model gives no probabilities; `leaning`
    has shape (rows,) and ranks rows by the second of two classes, None where there are not two.
    """

    model: Any
    X: pd.DataFrame
    y: NDArray[Any]
    task: Task
    predicted: NDArray[Any]
    chances: NDArray[Any] | None = None
    leaning: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card says beyond the signature. `plots` holds PNG bytes by file name, `format` is the model file's."""

    name: str
    estimator: str
    purpose: str
    scores: Mapping[str, float] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: Format = "joblib"


def ask(model: Any, X: pd.DataFrame, y: NDArray[Any], task: Task) -> HeldOut:
    """Put the held-out rows to the model."""
    predicted = np.asarray(model.predict(X))
    if task is Task.REGRESSION:
        return HeldOut(model, X, y, task, predicted)
    chances = model.predict_proba(X) if hasattr(model, "predict_proba") else None
    leaning = None
    if len(model.classes_) == 2 and np.unique(y).size == 2:
        if chances is not None:
            leaning = chances[:, 1]
        elif hasattr(model, "decision_function"):
            leaning = model.decision_function(X)
    return HeldOut(model, X, y, task, predicted, chances, leaning)


def score(held: HeldOut, y_fitted: NDArray[Any]) -> dict[str, float]:
    """Scores on the held-out rows, and beside them that of always giving the same answer.

    Args:
        y_fitted: targets the model was fitted on; the one answer is read off them.
    """
    from sklearn import metrics

    y, predicted = held.y, held.predicted
    if held.task is Task.REGRESSION:
        return {
            "r2": float(metrics.r2_score(y, predicted)),
            "mean_absolute_error": float(metrics.mean_absolute_error(y, predicted)),
            "root_mean_squared_error": float(metrics.root_mean_squared_error(y, predicted)),
            "baseline_mean_absolute_error": float(np.abs(y - np.median(y_fitted)).mean()),
        }
    classes, counts = np.unique(y_fitted, return_counts=True)
    scores = {
        "accuracy": float(metrics.accuracy_score(y, predicted)),
        "balanced_accuracy": float(metrics.recall_score(y, predicted, average="macro", zero_division=0)),
        "f1_macro": float(metrics.f1_score(y, predicted, average="macro", zero_division=0)),
    }
    if held.leaning is not None:
        scores["roc_auc"] = float(metrics.roc_auc_score(y == held.model.classes_[1], held.leaning))
    elif held.chances is not None and len(classes) > 2 and np.array_equal(np.unique(y), classes):
        scores["roc_auc"] = float(metrics.roc_auc_score(y, held.chances, multi_class="ovr"))
    scores["baseline_accuracy"] = float(np.mean(y == classes[counts.argmax()]))
    return scores


def draw(held: HeldOut) -> dict[str, bytes]:
    """The pictures that suit the task, as PNG bytes by file name."""
    from training import plots

    if held.task is Task.REGRESSION:
        drawn = {"residuals.png": plots.residuals(held.y, held.predicted)}
    else:
        classes = held.model.classes_
        drawn = {"confusion_matrix.png": plots.confusion_matrix(held.y, held.predicted, classes)}
        if held.leaning is not None:
            is_positive = held.y == classes[1]
            drawn["roc.png"] = plots.roc_curve(is_positive, held.leaning, classes[1])
            drawn["precision_recall.png"] = plots.precision_recall_curve(is_positive, held.leaning, classes[1])
    if held.X.shape[1] <= SHUFFLED_COLUMNS:
        drawn["importance.png"] = _importance(held)
    return drawn


def card(facts: Facts, described: Described, proven: Proven) -> bytes:
    """One HTML page about the model, and how it is computed; the pictures are files beside it."""
    signature = described.signature
    pictures = [(file, *PICTURES[file]) for file in facts.plots]
    page = _ENVIRONMENT.get_template("card.html.j2").render(
        facts=facts,
        signature=signature,
        proven=proven,
        pictures=pictures,
        created=datetime.now(UTC).date().isoformat(),
        body=shlex.quote(example(described)),
        libraries={"python": python_version(), **installed_libraries()},
    )
    return page.encode()


def example(described: Described) -> str:
    """A row of the sample as a request body, one without missing values if there is one."""
    arrays = column_arrays(described.sample)
    holes = np.logical_or.reduce([missing(array) for array in arrays])
    row = take(described.sample, np.array([holes.argmin()]))
    return orjson.dumps(example_body(first_record(write_columns(row, described.signature)))).decode()


def _importance(held: HeldOut) -> bytes:
    """What shuffling each input column costs: it holds for every model and speaks of the user's columns."""
    from sklearn.inspection import permutation_importance

    from training import plots

    X, y = held.X, held.y
    if len(y) > SHUFFLED_ROWS:
        some = np.random.default_rng(SEED).choice(len(y), SHUFFLED_ROWS, replace=False)
        X, y = X.iloc[some], y[some]
    repeats = 5 if X.shape[1] <= SHOWN_COLUMNS else 2
    found = permutation_importance(held.model, X, y, n_repeats=repeats, random_state=SEED)
    order = np.argsort(-found.importances_mean, kind="stable")[:SHOWN_COLUMNS]
    names = [str(X.columns[place]) for place in order]
    measure = "accuracy" if held.task is Task.CLASSIFICATION else "R²"
    return plots.importances(names, found.importances_mean[order], found.importances_std[order], measure)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _label(value: Any) -> str:
    """A category or class as it stands in JSON, text without its quotes."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"number": _number, "label": _label}
