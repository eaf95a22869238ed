"""MLflow's own scoring client, unmodified, against every server."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from service import __version__
from tests.conformance import clients
from tests.conformance.models import mixed_table
from tests.conformance.servers import SERVERS, Running, side_by_side, tandem_serve

NUMBERS = np.random.RandomState(7).normal(size=(5, 4))
BOTH = {"outputs": ["predict", "predict_proba"]}


def frame_question(table: pd.DataFrame, params: Any = None) -> dict[str, Any]:
    """The table as the script builds it again; missing values travel as null."""
    dates = [name for name in table if table[name].dtype.kind == "M"]
    texts = table.assign(**{name: table[name].astype(str) for name in dates})
    columns = {
        name: [None if value != value else value for value in texts[name].astype(object).tolist()] for name in table
    }
    return {"columns": columns, "dates": dates, "params": params}


def ask(servers: Iterable[Running], questions: list[dict[str, Any]]) -> list[Any]:
    """What one client tells of each of them."""
    ports = [str(server.port) for server in servers]
    told = clients.ask("mlflow", "mlflow_scoring.py", "127.0.0.1", *ports, questions=questions)
    return [told[port] for port in ports]


@pytest.fixture
def of_people(repository: Path, tmp_path: Path) -> Iterator[Mapping[str, Running]]:
    """A server of each kind whose default model is another one: the client names none."""
    shutil.copytree(repository / "people", tmp_path / "models" / "people")
    arguments = ("--models", str(tmp_path / "models"), "--default-model", "people", "--engine", "estimator")
    trusted = ("--trust", "tests.conformance.models.days")
    starts = {name: tandem_serve(*SERVERS[name], *arguments, *trusted, log=tmp_path / name) for name in SERVERS}
    with side_by_side(starts) as started:
        yield started


@clients.needs("mlflow")
def test_a_data_frame_with_holes_gets_the_estimators_own_answers(
    of_people: Mapping[str, Running], repository: Path
) -> None:
    people = mixed_table().head(12)
    estimator = joblib.load(repository / "people" / "1" / "model.joblib")
    assert people.isna().any().any()

    told = ask(of_people.values(), [
        frame_question(people),
        frame_question(people[list(reversed(people.columns))].assign(more=1), BOTH),
    ])  # fmt: skip

    labels, scores = estimator.predict(people).tolist(), estimator.predict_proba(people).tolist()
    both = [{"predict": label, "predict_proba": score} for label, score in zip(labels, scores, strict=True)]
    answers = [{"predictions": labels, "rows": 12}, {"predictions": both, "rows": 12}]
    assert told == [{"version": __version__, "answers": answers}] * len(SERVERS)


@clients.needs("mlflow")
def test_arrays_and_data_frames_without_names_get_the_estimators_own_answers(
    estimators: Mapping[str, tuple[Running, int]], repository: Path
) -> None:
    estimator = joblib.load(repository / "numbers" / "1" / "model.joblib")

    told = ask([server for server, _ in estimators.values()], [
        {"array": NUMBERS.tolist(), "params": {"outputs": ["predict_proba"]}},
        frame_question(pd.DataFrame(NUMBERS)),
    ])  # fmt: skip

    answers = [estimator.predict_proba(NUMBERS).tolist(), estimator.predict(NUMBERS).tolist()]
    assert [[answer["predictions"] for answer in one["answers"]] for one in told] == [answers] * len(SERVERS)
