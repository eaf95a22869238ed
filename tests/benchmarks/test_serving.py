"""What is run, and when numbers count as the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.models import WORKS
from benchmarks.serving import Plan, agree
from benchmarks.targets import CONNECTIONS, TIMES_NAIVE, Cell


def plan(*, only_targets: bool = False) -> Plan:
    return Plan(
        tuple(WORKS.values()), CONTESTANTS, (1, 50, CONNECTIONS), 3, 1,
        only_targets=only_targets, profiles=False, server_core=0, client_core=1,
    )  # fmt: skip


def runs(plan: Plan) -> list[tuple[Contestant, Cell]]:
    return [
        (contestant, cell)
        for work in plan.works
        for cell in plan.cells(work)
        for contestant in plan.contestants
        if plan.runs(contestant, cell)
    ]


def test_whole_matrix_holds_every_work_row_count_and_number_of_connections() -> None:
    asked = {(cell.work, cell.rows, cell.connections) for _, cell in runs(plan())}

    assert asked == {(work, rows, c) for work in WORKS for rows in (1, 100) for c in (1, 50, 64)}


def test_whole_matrix_takes_less_than_25_minutes() -> None:
    whole = plan()

    seconds = sum(3 * whole.seconds(contestant, cell) + 1 for contestant, cell in runs(whole))

    assert seconds < 20 * 60  # the rest is for starting servers and letting them rest


def test_quick_run_holds_what_has_a_target_and_nothing_else() -> None:
    asked = {(WORKS[cell.work], cell.rows) for contestant, cell in runs(plan(only_targets=True))}

    assert asked == set(TIMES_NAIVE)
    assert all(contestant.is_main for contestant, _ in runs(plan(only_targets=True)))


def test_every_deployment_is_run_by_every_kind() -> None:
    for_flask = {c.deployment for c in CONTESTANTS if c.framework == "Flask"}

    assert {(c.kind, c.deployment) for c, _ in runs(plan())} == {
        (kind, deployment) for kind in ("naive", "Tandem", "echo") for deployment in (*for_flask, "uvicorn")
    }


def test_every_contestant_runs_under_the_server_that_it_is_named_after(tmp_path: Path) -> None:
    assert all(c.deployment.split()[0] in c.command(tmp_path, 8000) for c in CONTESTANTS)


@pytest.mark.parametrize(
    ("got", "same"),
    [
        pytest.param([[0.2, 0.8]], True, id="equal"),
        pytest.param([[0.200001, 0.799999]], True, id="the sixth digit"),
        pytest.param([[0.2001, 0.7999]], False, id="the fourth digit"),
        pytest.param([[0.2, 0.8], [0.2, 0.8]], False, id="more rows"),
        pytest.param([[0.2, 0.8, 0.0]], False, id="more classes"),
        pytest.param([[float("nan"), 0.8]], False, id="not a number"),
    ],
)
def test_answers_agree_to_five_digits(got: list[list[float]], same: bool) -> None:
    assert agree([[0.2, 0.8]], got) is same
