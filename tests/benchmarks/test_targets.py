"""From figures to verdicts."""

from __future__ import annotations

import pytest

from benchmarks.load import Load
from benchmarks.models import FOREST, LOGISTIC
from benchmarks.probe import Health
from benchmarks.processes import Memory
from benchmarks.targets import (
    ECHO_ASGI,
    NAIVE_FASTAPI,
    NAIVE_FLASK,
    NAIVE_FLASK_GRANIAN,
    TANDEM_FASTAPI,
    TANDEM_FLASK,
    TIMES_NAIVE,
    Cell,
    Verdict,
    ratio,
    spoilt,
    verdicts,
)

CELL = Cell(LOGISTIC.name, 1, 64)


def runs(*rps: float, p99_ms: float = 2.0, errors: int = 0) -> list[Load]:
    return [Load(each, 1.0, p99_ms, {"read": errors} if errors else {}) for each in rps]


def one(found: list[Verdict], who: str, against: str, what: str = "scaler + logistic regression, 1 row") -> Verdict:
    matching = [v for v in found if v.who == who and v.against == against and what in v.what]
    assert len(matching) == 1
    return matching[0]


def test_ratio_is_the_median_of_each_rounds_own() -> None:
    """The machine was half as fast in the second round, and somebody disturbed one run of the third."""
    by_name = {"ours": runs(600, 350, 100), "theirs": runs(100, 50, 100)}

    assert ratio(by_name, "ours", "theirs") == 6


@pytest.mark.parametrize("theirs", [[], runs(0, 1, 1)])
def test_ratio_against_nothing_is_none(theirs: list[Load]) -> None:
    assert ratio({"ours": runs(1, 1, 1), "theirs": theirs}, "ours", "theirs") is None


def test_flask_is_held_against_both_naive_deployments() -> None:
    by_name = {TANDEM_FLASK: runs(400), NAIVE_FLASK: runs(100), NAIVE_FLASK_GRANIAN: runs(101)}

    found = verdicts({CELL: by_name}, {}, {}, {})

    assert one(found, TANDEM_FLASK, f"× {NAIVE_FLASK}").passes is True
    assert one(found, TANDEM_FLASK, f"× {NAIVE_FLASK_GRANIAN}").passes is False


def test_echo_is_a_ceiling_for_one_row_of_the_logistic_regression() -> None:
    by_name = {TANDEM_FASTAPI: runs(33), ECHO_ASGI: runs(100)}

    verdict = one(verdicts({CELL: by_name}, {}, {}, {}), TANDEM_FASTAPI, f"of {ECHO_ASGI}")

    assert verdict.passes is True


def test_what_was_not_measured_neither_passes_nor_fails() -> None:
    found = verdicts({}, {}, {}, {})

    assert {verdict.passes for verdict in found} == {None}
    assert len(found) == 3 * len(TIMES_NAIVE) + 1 + 2 * len(TIMES_NAIVE) + 3 + 2


@pytest.mark.parametrize(("p99_ms", "passes"), [(4.0, True), (4.1, False)])
def test_tail_is_that_of_the_steady_runs(p99_ms: float, passes: bool) -> None:
    steady = {CELL: {TANDEM_FASTAPI: runs(1, 1, 1, p99_ms=p99_ms)}}
    rounds = {CELL: {TANDEM_FASTAPI: runs(1, 1, 1, p99_ms=1000)}}

    verdict = one(verdicts(rounds, steady, {}, {}), TANDEM_FASTAPI, "p99 / p50, steady")

    assert verdict.passes is passes


@pytest.mark.parametrize(("pss", "passes"), [(130.0, True), (131.0, False)])
def test_memory_may_be_a_third_more_than_the_naive_apps(pss: float, passes: bool) -> None:
    memory = {TANDEM_FASTAPI: Memory(pss, 0), NAIVE_FASTAPI: Memory(100, 0)}

    verdict = one(verdicts({}, {}, memory, {}), TANDEM_FASTAPI, f"× {NAIVE_FASTAPI}", "memory")

    assert verdict.passes is passes


@pytest.mark.parametrize(("p99_ms", "passes"), [(50.0, True), (50.1, False)])
def test_health_answers_within_its_bound(p99_ms: float, passes: bool) -> None:
    health = {TANDEM_FLASK: Health(1.0, p99_ms, p99_ms, 160, 0, 10.0, 100.0)}

    verdict = one(verdicts({}, {}, {}, health), TANDEM_FLASK, "p99, ms", "/health/live")

    assert verdict.passes is passes


def test_row_with_errors_or_without_answers_is_spoilt() -> None:
    rounds = {
        CELL: {"good": runs(1, 1, 1), "bad": runs(1, 1, 1, errors=1)},
        Cell(FOREST.name, 100, 1): {"silent": runs(0, 0, 0)},
    }

    found = spoilt(rounds)

    assert len(found) == 2
    assert "bad" in found[0]
    assert "random forest of 100, 100 rows, 1 connections, silent" in found[1]
