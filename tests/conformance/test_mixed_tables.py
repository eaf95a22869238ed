from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest

from tests.conformance.exact import answer, exact, replied
from tests.conformance.mixed import Mirror, boosted, cell, linear, table
from tests.conformance.servers import CLIENT, SERVERS, Running, side_by_side, tandem_serve
from training.export import export

# Histogram boosting checks columns of categories with a partial of check_array.
TRUSTED: Final = ("tests.conformance.mixed.*", "functools.partial", "sklearn.utils.validation.check_array")


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    estimator: Any
    rows: pd.DataFrame
    output: str

    def answers(self, rows: pd.DataFrame) -> Any:
        return answer(getattr(self.estimator, self.output)(rows))


@pytest.fixture(scope="module")
def models() -> Mapping[str, Model]:
    rows = table()
    chosen = boosted(rows)
    return {
        model.name: model
        for model in (
            Model("mirror", Mirror().fit(rows), rows, "transform"),
            Model("linear", linear(rows), rows, "predict_proba"),
            Model("boosted", chosen, rows[list(chosen.feature_names_in_)], "predict_proba"),
        )
    }


@pytest.fixture(scope="module")
def servers(models: Mapping[str, Model], tmp_path_factory: Any) -> Iterator[Mapping[str, Running]]:
    folder: Path = tmp_path_factory.mktemp("mixed")
    for model in models.values():
        export(model.estimator, model.rows, name=model.name, repository=folder / "models")
    with side_by_side(
        {
            name: tandem_serve(
                *SERVERS[name],
                *("--models", str(folder / "models"), "--engine", "estimator"),
                log=folder / name,
                environment={"TANDEM_TRUST": ",".join(TRUSTED)},
            )
            for name in ("uvicorn", "granian")
        }
    ) as started:
        yield started


def ask(server: Running, model: Model, body: dict[str, Any]) -> dict[str, Any]:
    response = CLIENT.post(f"{server.url}/models/{model.name}/predict?outputs={model.output}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{name: cell(rows[name].iloc[index]) for name in rows.columns} for index in range(len(rows))]


def shuffled(record: dict[str, Any], seed: int) -> dict[str, Any]:
    keys = random.Random(seed).sample(list(record), len(record))
    return {key: record[key] for key in keys}


def without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


NAMES: Final = ("mirror", "linear", "boosted")
FRAMEWORKS: Final = ("uvicorn", "granian")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["lists", "objects", "shuffled objects", "objects without nulls", "columns",
                                  "shuffled columns"])  # fmt: skip
def test_many_rows_in_every_form_get_the_answers_on_the_data_frame(
    form: str, name: str, framework: str, servers: Mapping[str, Running], models: Mapping[str, Model]
) -> None:
    model = models[name]
    rows = records(model.rows)
    columns = {column: [row[column] for row in rows] for column in model.rows.columns}
    bodies: dict[str, dict[str, Any]] = {
        "lists": {"instances": [list(row.values()) for row in rows]},
        "objects": {"instances": rows},
        "shuffled objects": {"instances": [shuffled(row, seed) for seed, row in enumerate(rows)]},
        "objects without nulls": {"instances": [without_nulls(row) for row in rows]},
        "columns": {"columns": columns},
        "shuffled columns": {"columns": shuffled(columns, 7)},
    }

    reply = ask(servers[framework], model, bodies[form])

    assert replied(reply, model.output) == model.answers(model.rows)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", [0, 1, 5, 40])
def test_one_record_gets_the_answer_on_its_row(
    index: int, name: str, framework: str, servers: Mapping[str, Running], models: Mapping[str, Model]
) -> None:
    model = models[name]
    row = model.rows.iloc[[index]]
    record = shuffled(without_nulls(records(row)[0]), index)

    reply = ask(servers[framework], model, record)

    key = {"predict_proba": "probabilities"}.get(model.output, model.output)
    assert [exact(reply[key])] == model.answers(row)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_column_means_missing_in_every_row(
    name: str, servers: Mapping[str, Running], models: Mapping[str, Model]
) -> None:
    model = models[name]
    rows = model.rows.iloc[:4].copy()
    column = "float64 with holes"
    rows[column] = float("nan")
    columns = {key: [cell(value) for value in rows[key]] for key in rows.columns if key != column}

    replies = [ask(server, model, {"columns": columns}) for server in servers.values()]

    assert [replied(reply, model.output) for reply in replies] == [model.answers(rows)] * 2


@pytest.mark.parametrize(
    "written", ["2024-07-01T10:00:00Z", "2024-07-01T12:00:00+02:00", "2024-07-01T04:30:00-05:30", "2024-07-01 10:00Z"]
)
def test_one_moment_written_with_any_offset_is_one_moment(
    written: str, servers: Mapping[str, Running], models: Mapping[str, Model]
) -> None:
    mirror = models["mirror"]
    record = {**records(mirror.rows.iloc[[1]])[0], "moment in Vienna": written}

    reply = ask(servers["granian"], mirror, record)

    seen = dict(zip(mirror.rows.columns, reply["transform"], strict=True))["moment in Vienna"]
    assert seen.endswith("Timestamp('2024-07-01 12:00:00+0200', tz='Europe/Vienna')")
