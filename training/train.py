"""Load, split, fit, score, draw, export: what `tandem train` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.core.artefact_errors import VersionExists
from service.core.errors import TandemError
from service.core.names import check_name
from service.core.rules import Fidelity
from service.runtimes.structure import estimator_name
from training.data import DataUnusable, Task, load, task_of
from training.device import estimator_on_gpu, fit_on_gpu, require_gpu
from training.export import ExportedModel, export
from training.pipeline import SEED, build_pipeline, estimator_class, make_estimator, sort_columns
from training.report import CARD, Facts, ask, card, draw, score


class TrainingFailed(TandemError):
    """The data and the estimator do not go together; the library's own words say why."""

    title = "Training failed"


@dataclass(frozen=True, slots=True)
class Trained:
    """The version that was written, its scores on held-out rows, and what a person should know.

    `dropped` are columns that were not used, with the reasons; `notes` are other remarks, among
    them the distinct warnings of the fit.
    """

    exported: ExportedModel
    scores: Mapping[str, float]
    dropped: Mapping[str, str]
    notes: tuple[str, ...]


def train(
    source: str,
    *,
    name: str,
    estimator: str = "auto",
    target: str | None = None,
    params: Mapping[str, Any] | None = None,
    drop: Collection[str] = (),
    test_size: float = 0.25,
    repository: str | Path = "models",
    version: int | None = None,
    fidelity: Fidelity = "close",
    device: Literal["cpu", "gpu"] = "cpu",
    step: Callable[[str], None] = lambda said: None,
) -> Trained:
    """Fit a pipeline to `source` and export it as `repository/name/version`.

    The exported model is the one that was scored: it is not fitted again on all rows, so its
    scores are its own and not those of a relative. The split is stratified by class and the
    seed is fixed; the same data give the same model.

    Args:
        source: a built-in set or a file, see `training.data.load`.
        estimator: see `training.pipeline.estimator_class`.
        params: parameters of the estimator.
        drop: columns that the model shall not see.
        device: gpu fits the last step with cuML, and exports the scikit-learn model that it converts to.
        test_size: the share of rows that is held out.
        step: told what begins.

    Raises:
        TandemError: of the kind that says what to change.
    """
    check_name(name)
    if device == "gpu":
        require_gpu()
        estimator = estimator_on_gpu(estimator)
    if version is not None and (Path(repository) / name / str(version)).exists():
        raise VersionExists(f"version {version} of {name!r} exists already")  # said before a long fit, not after
    step(f"Read {source}")
    data = load(source, target, drop=drop)
    columns = sort_columns(data.X)
    core = make_estimator(estimator_class(estimator, task_of(data.y), len(data.y)), params or {})
    task = _task(core, data.y, data.target)
    X, X_held, y, y_held = split(data.X.drop(columns=list(columns.dropped)), data.y, task, test_size)
    model = build_pipeline(columns, core, y)
    step(f"Fit {type(core).__name__} on {len(y)} rows")
    if device == "gpu":
        model, warned = fit_on_gpu(model, X, y)
    else:
        warned = fit(model, X, y)
    step(f"Score on {len(y_held)} held-out rows")
    held = ask(model, X_held, y_held, task)
    scores = score(held, y)
    step("Draw the model card")
    facts = Facts(
        name=name,
        estimator=estimator_name(model),
        purpose=f"{task.capitalize()} of {data.target!r} in {Path(source).name}. "
        f"Fitted on {len(y):,} rows, scored on {len(y_held):,} others.",
        scores=scores,
        plots=draw(held),
        dropped=columns.dropped,
        notes=(*data.notes, *warned),
    )
    step("Export and check")
    exported = export(
        model,
        X,
        name=name,
        repository=repository,
        version=version,
        scores={**scores, "rows_fitted": len(y), "rows_held_out": len(y_held)},
        files=lambda described, proven: {CARD: card(facts, described, proven), **facts.plots},
        fidelity=fidelity,
    )
    return Trained(exported, scores, columns.dropped, facts.notes)


def split(
    X: pd.DataFrame, y: NDArray[Any], task: Task, test_size: float
) -> tuple[pd.DataFrame, pd.DataFrame, NDArray[Any], NDArray[Any]]:
    """Rows to fit and rows to hold out: X of both, then y of both.

    Raises:
        DataUnusable: one of them gets too few rows, or a class has too few to be in both.
    """
    from sklearn.model_selection import train_test_split

    stratify = y if task is Task.CLASSIFICATION else None
    try:
        parts = train_test_split(X, y, test_size=test_size, random_state=SEED, stratify=stratify)
    except ValueError as error:
        raise DataUnusable(f"the rows cannot be split: {error}") from error
    if min(map(len, parts)) < 2:
        raise DataUnusable(f"the rows cannot be split: {test_size:g} of {len(y)} leaves one side with a single row")
    return tuple(parts)


def fit(model: Any, X: pd.DataFrame, y: NDArray[Any]) -> list[str]:
    """Fit on all cores, and return the distinct warnings.

    The cores are lent for the fit alone: `n_jobs` of the estimator stays as it is, because a
    service that answers many callers must not start a pool for each.
    """
    from joblib import parallel_config

    with warnings.catch_warnings(record=True) as caught, parallel_config(n_jobs=-1):
        warnings.simplefilter("always")
        try:
            model.fit(X, y)
        except (ValueError, TypeError) as error:
            raise TrainingFailed(f"{estimator_name(model)} cannot be fitted: {error}") from error
    return list(dict.fromkeys(f"{said.category.__name__}: {said.message}" for said in caught))


def _task(estimator: Any, y: NDArray[Any], target: str) -> Task:
    """What `estimator` does, whatever the target looked like.

    Raises:
        TrainingFailed: the target does not allow it.
    """
    from sklearn.base import is_classifier

    if not is_classifier(estimator):
        if y.dtype.kind not in "iufb":
            raise TrainingFailed(f"{type(estimator).__name__} predicts numbers, and {target!r} holds text")
        return Task.REGRESSION
    distinct = np.unique(y).size
    if y.dtype.kind == "f":
        raise TrainingFailed(
            f"{type(estimator).__name__} predicts classes, and {target!r} holds {distinct} distinct fractional numbers"
        )
    if distinct < 2:
        raise TrainingFailed(f"{target!r} has the same value in every row: there is nothing to tell apart")
    return Task.CLASSIFICATION
