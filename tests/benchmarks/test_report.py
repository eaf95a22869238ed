"""Tables and JSON."""

from __future__ import annotations

import json

import pytest

from benchmarks.load import Load
from benchmarks.models import LOGISTIC
from benchmarks.processes import Memory
from benchmarks.report import Run, content, figure, table, tables
from benchmarks.targets import NAIVE_FASTAPI, TANDEM_FASTAPI, Cell


@pytest.fixture
def run() -> Run:
    cell = Cell(LOGISTIC.name, 1, 64)
    by_name = {NAIVE_FASTAPI: [Load(100, 10, 20)] * 3, TANDEM_FASTAPI: [Load(700, 1, 2)] * 3}
    memory = {NAIVE_FASTAPI: Memory(100, 120), TANDEM_FASTAPI: Memory(110, 130)}
    return Run(rounds={cell: by_name}, memory=memory, memory_at_work=memory, profiles={"a cell": {"engine": 60.0}})


def test_row_holds_the_ratio_to_the_naive_app(run: Run) -> None:
    text = tables(run)

    assert f"| 64 | {TANDEM_FASTAPI} | 700 | 1.00 | 2.00 | 2.0 | 7 |" in text


def test_target_says_whether_it_is_reached(run: Run) -> None:
    text = tables(run)

    assert f"| {TANDEM_FASTAPI} | × {NAIVE_FASTAPI} | at least 6 | 7 | yes |" in text
    assert "targets not measured" in text


def test_every_line_of_a_table_has_as_many_cells(run: Run) -> None:
    for part in tables(run).split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("|")]

        assert len({line.count("|") for line in lines}) <= 1, part


def test_table_without_lines_is_left_out() -> None:
    assert table("a | b", []) == ""


def test_content_is_json_with_runs_and_machine(run: Run) -> None:
    read = json.loads(json.dumps(content(run, {"client": "wrk"}), allow_nan=False))

    assert [row["rps"] for row in read["rows"]] == [100, 700]
    assert len(read["rows"][0]["runs"]) == 3
    assert read["machine"]["libraries"]["numpy"]
    assert read["method"] == {"client": "wrk"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "", id="not measured"),
        pytest.param(0.3333, "0.333", id="below one"),
        pytest.param(123.4, "123", id="large"),
    ],
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text
