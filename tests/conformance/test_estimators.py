"""Every estimator of scikit-learn, through both frameworks: itself to the last bit, its engines within the fidelity.

One server holds them all; a test asks all of them, because two hundred models in every test
process would cost more than all their answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from service.core.agreement import largest_difference
from service.core.artefact_errors import EstimatorUnusable
from service.loading.golden import CLOSE_RTOL
from tests.conformance.exact import answer, inexact, replied
from tests.conformance.servers import CLIENT, SERVERS, Running, side_by_side, tandem_serve
from tests.estimators import LEFT_OUT, answering_estimators, fitted_estimators
from training.export import export

NOT_SERVED: Final = {
    "DictVectorizer": "its rows are dictionaries of any keys, which have no columns",
    "PatchExtractor": "its rows are images: an array of three dimensions",
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """An exported estimator, the rows to ask it, its own answers by output, and which of them are labels."""

    instances: list[Any]
    columns: dict[str, list[Any]]
    answers: dict[str, Any]
    labels: frozenset[str]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimators")


@pytest.fixture(scope="module")
def fitted(repository: Path) -> Mapping[str, Fitted]:
    """What could be exported, by name."""
    served: dict[str, Fitted] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator, rows in fitted_estimators():
            try:
                signature = export(estimator, rows, name=name, repository=repository).signature
            except EstimatorUnusable:
                continue
            instances = np.asarray(rows).tolist()
            by_column = list(zip(*instances, strict=True)) if isinstance(instances[0], list) else [instances]
            # A copy, as a client's rows are: LabelPropagation keeps the array it was fitted on, and numpy
            # multiplies an array with itself by another routine, which rounds differently.
            asked = deepcopy(rows)
            answers = {output: answer(getattr(estimator, output)(asked)) for output in signature.output_names}
            columns = {column: list(values) for column, values in zip(signature.names, by_column, strict=True)}
            labels = frozenset(o.name for o in signature.outputs if o.classes and o.name == "predict")
            served[name] = Fitted(instances, columns, answers, labels)
    return served


@pytest.fixture(scope="module")
def servers(fitted: Mapping[str, Fitted], repository: Path, tmp_path_factory: Any) -> Iterator[Mapping[str, Running]]:
    """Two that ask the estimators themselves, and one that asks the engines."""
    logs = tmp_path_factory.mktemp("logs")
    models, themselves = ("--models", str(repository)), ("--engine", "estimator")
    with side_by_side(
        {
            "uvicorn": tandem_serve(*SERVERS["uvicorn"], *models, *themselves, log=logs / "uvicorn"),
            "granian": tandem_serve(*SERVERS["granian"], *models, *themselves, log=logs / "granian"),
            "engines": tandem_serve(*SERVERS["uvicorn"], *models, log=logs / "engines"),
        }
    ) as started:
        yield started


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
@pytest.mark.parametrize("form", ["instances", "columns"])
def test_every_estimator_answers_bit_for_bit_as_in_process(
    form: str, server: str, servers: Mapping[str, Running], fitted: Mapping[str, Fitted]
) -> None:
    wrong = _disagreements(servers[server], form, fitted, lambda one, output, got: got == one.answers[output])

    assert wrong == {}


def test_every_engine_answers_within_the_fidelity(servers: Mapping[str, Running], fitted: Mapping[str, Fitted]) -> None:
    def is_close(one: Fitted, output: str, got: Any) -> bool:
        size = largest_difference(inexact(one.answers[output]), inexact(got)).size
        return size == 0 if output in one.labels else size <= CLOSE_RTOL

    wrong = _disagreements(servers["engines"], "instances", fitted, is_close)
    models = CLIENT.get(f"{servers['engines'].url}/models").json()["models"]

    assert wrong == {}
    assert len(models) == len(fitted)


def _disagreements(
    server: Running, form: str, fitted: Mapping[str, Fitted], agrees: Callable[[Fitted, str, Any], bool]
) -> dict[str, str]:
    """What came instead, by model and output."""
    wrong: dict[str, str] = {}
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for name, one in fitted.items():
            body = {form: getattr(one, form), "outputs": list(one.answers)}
            response = client.post(f"/models/{name}/predict", json=body)
            if response.status_code != 200:
                wrong[name] = response.text
                continue
            reply = response.json()
            for output in one.answers:
                if not agrees(one, output, replied(reply, output)):
                    wrong[f"{name}.{output}"] = str(reply)[:300]
    return wrong


def test_nearly_every_estimator_is_served_and_the_others_are_named(fitted: Mapping[str, Fitted]) -> None:
    names = {name for name, _ in answering_estimators()} - LEFT_OUT.keys()

    assert len(fitted) >= 140
    assert names - fitted.keys() == NOT_SERVED.keys()
    assert not LEFT_OUT.keys() & fitted.keys()
    assert all([*NOT_SERVED.values(), *LEFT_OUT.values()]), "each with its reason"
