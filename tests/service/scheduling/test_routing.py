from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.core.errors import CannotAnswer, NotRepresentable, RowsRefused
from service.core.table import Matrix, Table, Values, take
from service.scheduling.cost import CostCurve
from service.scheduling.routing import ROUTES, Option, Router
from tests.faults.cases import fault
from tests.service.scheduling.watching import Watching

BOTH = frozenset({"predict", "predict_proba"})


def _values(rows: Table) -> NDArray[Any]:
    assert isinstance(rows, Matrix)
    return rows.values[:, 0]


class Engine:
    """Answers `value of the row + its own mark`, so that it can be seen who answered.

    Rows whose value is in `hard` it cannot answer; it says so before it computes, or, where it is
    `late`, with the answers to the others.
    """

    def __init__(self, mark: float, hard: Sequence[float] = (), *, late: bool = False, reentrant: bool = True) -> None:
        self.is_reentrant = reentrant
        self.asked: list[tuple[list[float], tuple[str, ...]]] = []
        self._mark = mark
        self._hard = list(hard)
        self._late = late

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        values = _values(rows)
        self.asked.append((values.tolist(), tuple(outputs)))
        answers: dict[str, Values] = dict.fromkeys(outputs, values + self._mark)
        mask = np.isin(values, self._hard)
        if mask.any():
            raise CannotAnswer("a hard value", mask, answers if self._late else None)
        return answers


class InPlace(Engine):
    """Spoils its rows, as estimators may."""

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        answers = super().run(rows, outputs)
        _values(rows)[:] = math.nan
        return answers


def _curve(*seconds: float) -> CostCurve:
    return CostCurve(tuple(zip((1, 64, 4096), seconds, strict=False)))


def _rows(*values: float) -> Matrix:
    return Matrix(np.array([[value, 0.0] for value in values]))


def _estimator(engine: Engine | None = None, outputs: frozenset[str] = BOTH, curve: CostCurve | None = None) -> Option:
    return Option("estimator", engine or InPlace(0.5, reentrant=False), outputs, curve=curve, is_estimator=True)


def _names(router: Router, rows: int, *outputs: str) -> list[tuple[str, tuple[str, ...]]]:
    route = router.route(rows, outputs)
    assert route is not None
    return [(step.option.name, step.outputs) for step in route]


def test_cheapest_engine_for_the_number_of_rows_answers() -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5, 1e-3, 8e-2)),
            Option("gpu", Engine(0.2), BOTH, curve=_curve(1e-4, 1e-4, 2e-4)),
        ]
    )

    chosen = [_names(router, rows, "predict")[0][0] for rows in (1, 8, 64, 4096)]

    assert chosen == ["onnx", "gpu", "gpu", "gpu"]


@pytest.mark.parametrize(("exact_seconds", "chosen"), [(1.09e-5, "treelite"), (1.2e-5, "onnx")])
def test_of_engines_as_cheap_the_more_exact_one_answers(exact_seconds: float, chosen: str) -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5)),
            Option("treelite", Engine(0.2), BOTH, exact=BOTH, curve=_curve(exact_seconds)),
        ]
    )

    assert _names(router, 1, "predict") == [(chosen, ("predict",))]


def test_engine_that_is_exact_for_some_of_the_outputs_is_not_exact() -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5)),
            Option("treelite", Engine(0.2), BOTH, exact=frozenset({"predict"}), curve=_curve(1.05e-5)),
        ]
    )

    assert _names(router, 1, "predict")[0][0] == "treelite"
    assert _names(router, 1, "predict", "predict_proba")[0][0] == "onnx"


def test_one_engine_for_all_outputs_comes_before_several() -> None:
    router = Router(
        [
            Option("labels", Engine(0.1), frozenset({"predict"}), curve=_curve(1e-6)),
            Option("onnx", Engine(0.2), BOTH, curve=_curve(1e-4)),
        ]
    )

    assert _names(router, 1, "predict", "predict_proba") == [("onnx", ("predict", "predict_proba"))]


def test_several_engines_share_outputs_that_none_covers() -> None:
    router = Router(
        [
            Option("labels", Engine(0.1), frozenset({"predict"}), curve=_curve(1e-6)),
            Option("slow labels", Engine(0.2), frozenset({"predict"}), curve=_curve(1e-3)),
            Option("scores", Engine(0.3), frozenset({"predict_proba"}), curve=_curve(1e-5)),
            _estimator(),
        ]
    )

    answers = router.run(_rows(1, 2), ("predict_proba", "predict"))

    assert {name: values.tolist() for name, values in answers.items()} == {  # type: ignore[union-attr]
        "predict_proba": [1.3, 2.3], "predict": [1.1, 2.1],
    }  # fmt: skip
    assert list(answers) == ["predict_proba", "predict"]
    assert router.seconds(1, ("predict", "predict_proba")) == pytest.approx(1.1e-5)


def test_estimator_that_was_not_measured_answers_only_what_nobody_else_covers() -> None:
    estimator = InPlace(0.5, reentrant=False)
    router = Router(
        [
            _estimator(estimator, frozenset({"predict", "transform"})),
            Option("onnx", Engine(0.1), frozenset({"predict"}), curve=_curve(10.0)),
        ]
    )

    answers = router.run(_rows(1, 2), ("transform", "predict"))

    assert estimator.asked == [([1, 2], ("transform",))]
    # The estimator spoils its rows, so it came last.
    assert np.asarray(answers["predict"]).tolist() == [1.1, 2.1]
    assert router.seconds(1, ("transform", "predict")) == math.inf


def test_estimator_that_was_measured_answers_where_it_is_cheapest() -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5, 1e-2)),
            _estimator(curve=_curve(1e-3, 2e-3)),
        ]
    )

    assert _names(router, 1, "predict")[0][0] == "onnx"
    assert _names(router, 64, "predict")[0][0] == "estimator"


def test_estimator_comes_last_because_it_spoils_the_rows() -> None:
    router = Router(
        [
            _estimator(outputs=frozenset({"predict", "transform"}), curve=_curve(1e-6)),
            Option("scores", Engine(0.3), frozenset({"predict_proba"}), curve=_curve(1e-3)),
        ]
    )

    answers = router.run(_rows(1), ("predict", "transform", "predict_proba"))

    assert {name: np.asarray(got).tolist() for name, got in answers.items()} == {
        "predict": [1.5], "transform": [1.5], "predict_proba": [1.3],
    }  # fmt: skip


def test_preferred_engine_answers_what_it_can_and_others_the_rest() -> None:
    options = [
        Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5)),
        Option("treelite", Engine(0.2), frozenset({"predict"}), curve=_curve(1e-3)),
        _estimator(),
    ]

    assert _names(Router(options, prefer="treelite"), 1, "predict", "predict_proba") == [
        ("treelite", ("predict",)),
        ("onnx", ("predict_proba",)),
    ]
    assert _names(Router(options, prefer="estimator"), 1, "predict") == [("estimator", ("predict",))]


def test_engine_that_is_not_there_cannot_be_preferred() -> None:
    with pytest.raises(ValueError, match="there is no engine 'gpu'; there is estimator"):
        Router([_estimator()], prefer="gpu")


def test_output_that_nobody_covers_is_told() -> None:
    router = Router([Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5))])

    with pytest.raises(NotRepresentable, match="no compiled engine computes transform;"):
        router.run(_rows(1), ("predict", "transform"))
    assert router.seconds(1, ("transform",)) == math.inf


@pytest.mark.parametrize("late", [pytest.param(True, id="with answers"), pytest.param(False, id="without")])
@given(values=st.lists(st.sampled_from([1.0, 2.0, 7.0, 8.0, 9.0]), min_size=1, max_size=8))
def test_more_exact_engine_answers_the_rows_that_one_cannot(late: bool, values: list[float]) -> None:
    quick = Engine(0.1, hard=[7, 8], late=late)
    exact = Engine(0.2, hard=[8])
    estimator = InPlace(0.5, reentrant=False)
    router = Router(
        [
            Option("onnx", quick, BOTH, curve=_curve(1e-5)),
            Option("treelite", exact, BOTH, exact=BOTH, curve=_curve(1e-3)),
            _estimator(estimator),
        ]
    )

    answers = router.run(_rows(*values), ("predict", "predict_proba"))

    expected = [value + {7: 0.2, 8: 0.5}.get(int(value), 0.1) for value in values]
    assert {name: np.asarray(got).tolist() for name, got in answers.items()} == {
        "predict": expected,
        "predict_proba": expected,
    }
    assert [asked for asked, _ in estimator.asked] == [[8] * values.count(8)] * (8 in values)


def test_observer_is_told_who_is_asked_and_who_could_not_answer() -> None:
    told = Watching()
    router = Router([Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5)), _estimator()])
    router.observe(told)

    router.run(_rows(1.0, 7.0), ("predict",))

    assert told.calls == [("onnx", 2), ("estimator", 1), ("onnx", 1)]
    assert told.fallbacks == ["onnx"]


def test_engine_as_coarse_is_not_asked_instead() -> None:
    other = Engine(0.2)
    router = Router(
        [
            Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5)),
            Option("gpu", other, BOTH, curve=_curve(1e-3)),
            _estimator(),
        ]
    )

    answers = router.run(_rows(7), ("predict",))

    assert np.asarray(answers["predict"]).tolist() == [7.5]
    assert other.asked == []


def test_engine_that_is_exact_too_is_asked_before_the_estimator() -> None:
    router = Router(
        [
            Option("treelite", Engine(0.1, hard=[7, 8]), BOTH, exact=BOTH, curve=_curve(1e-5)),
            Option("onnx", Engine(0.2, hard=[8]), BOTH, exact=BOTH, curve=_curve(1e-3)),
            _estimator(),
        ]
    )

    answers = router.run(_rows(1, 7, 8), ("predict",))

    assert np.asarray(answers["predict"]).tolist() == [1.1, 7.2, 8.5]


def test_outputs_of_hard_rows_may_come_from_several_engines() -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5)),
            Option("treelite", Engine(0.2), frozenset({"predict"}), exact=BOTH, curve=_curve(1e-3)),
            _estimator(),
        ]
    )

    answers = router.run(_rows(1, 7), ("predict_proba", "predict"))

    assert {name: np.asarray(got).tolist() for name, got in answers.items()} == {
        "predict_proba": [1.1, 7.5],
        "predict": [1.1, 7.2],
    }
    assert list(router.run(_rows(7), ("predict_proba", "predict"))) == ["predict_proba", "predict"]


def test_rows_that_nobody_can_hold_are_told() -> None:
    router = Router([Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5))])

    with pytest.raises(NotRepresentable, match="a hard value; only the estimator itself"):
        router.run(_rows(1, 7), ("predict",))


def test_engine_that_gives_up_rows_again_and_again_is_not_asked_a_third_time() -> None:
    class OneByOne(Engine):
        """Tells of the first hard row only."""

        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            try:
                return super().run(rows, outputs)
            except CannotAnswer as error:
                mask = np.zeros(rows.n_rows, dtype=bool)
                mask[np.flatnonzero(error.rows)[0]] = True
                raise CannotAnswer("one", mask) from None

    quick = OneByOne(0.1, hard=[7, 8, 9])
    router = Router([Option("onnx", quick, BOTH, curve=_curve(1e-5)), _estimator()])

    answers = router.run(_rows(7, 1, 8, 9), ("predict",))

    assert np.asarray(answers["predict"]).tolist() == [7.5, 1.5, 8.5, 9.5]
    assert len(quick.asked) == 2


def test_engine_that_gives_up_without_naming_a_row_gives_up_all() -> None:
    class Vague(Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            super().run(rows, outputs)
            raise CannotAnswer("something", np.zeros(rows.n_rows, dtype=bool))

    vague = Vague(0.1)
    router = Router([Option("onnx", vague, BOTH, curve=_curve(1e-5)), _estimator()])

    answers = router.run(_rows(1, 2), ("predict",))

    assert np.asarray(answers["predict"]).tolist() == [1.5, 2.5]
    assert len(vague.asked) == 1


def test_attempt_asks_nobody_else() -> None:
    estimator = InPlace(0.5, reentrant=False)
    router = Router([Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5)), _estimator(estimator)])

    with pytest.raises(CannotAnswer):
        router.attempt(_rows(1, 7), ("predict",))

    assert np.asarray(router.attempt(_rows(1, 2), ("predict",))["predict"]).tolist() == [1.1, 2.1]
    assert estimator.asked == []


def test_attempt_asks_no_other_process_however_quick_it_was() -> None:
    engine = Engine(0.1)
    router = Router([Option("gpu", engine, BOTH, curve=_curve(1e-9), may_be_away=True)])

    with pytest.raises(CannotAnswer):
        router.attempt(_rows(1), ("predict",))

    assert engine.asked == []
    assert np.asarray(router.run(_rows(1), ("predict",))["predict"]).tolist() == [1.1]


def test_attempt_of_several_engines_keeps_the_order_of_the_outputs() -> None:
    router = Router(
        [
            Option("labels", Engine(0.1), frozenset({"predict"}), curve=_curve(1e-6)),
            Option("scores", Engine(0.3), frozenset({"predict_proba"}), curve=_curve(1e-5)),
        ]
    )

    assert list(router.attempt(_rows(1), ("predict_proba", "predict"))) == ["predict_proba", "predict"]


def test_attempt_of_what_nobody_covers_is_told() -> None:
    with pytest.raises(NotRepresentable):
        Router([_estimator()]).attempt(_rows(1), ("transform",))


def test_what_an_engine_refuses_is_refused() -> None:
    class Strict(Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            raise RowsRefused

    router = Router([Option("onnx", Strict(0.1), BOTH, curve=_curve(1e-5)), _estimator()])

    with pytest.raises(RowsRefused):
        router.run(_rows(1), ("predict",))


def _option(reentrant: bool, outputs: frozenset[str] = BOTH, curve: CostCurve | None = None) -> Option:
    return Option(f"{reentrant}", Engine(0.0, reentrant=reentrant), outputs, curve=curve)


@pytest.mark.parametrize(
    ("options", "is_reentrant"),
    [
        pytest.param([_option(True, curve=_curve(1.0))], True, id="its engine is"),
        pytest.param([_option(True, curve=_curve(1.0)), _estimator()], True, id="the estimator is for emergencies"),
        pytest.param([_option(True, curve=_curve(1.0)), _option(False, curve=_curve(2.0))], False, id="one is not"),
        pytest.param([_option(True, frozenset({"predict"}), _curve(1.0)), _estimator()], False, id="estimator needed"),
        pytest.param([_estimator()], False, id="estimator alone"),
    ],
)
def test_router_is_reentrant_where_every_engine_that_is_always_asked_is(
    options: list[Option], is_reentrant: bool
) -> None:
    assert Router(options).is_reentrant is is_reentrant


@fault("B17", sent="two calls of an engine that is not reentrant", expected="one after the other")
@pytest.mark.parametrize("reentrant", [False, True])
def test_calls_of_an_engine_wait_for_each_other_where_it_is_not_reentrant(reentrant: bool) -> None:
    taken_turns: list[bool] = []

    class Looking(Engine):
        def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
            turn = router._turns.get("onnx")
            taken_turns.append(turn is not None and turn.locked())
            return super().run(rows, outputs)

    router = Router([Option("onnx", Looking(0.1, reentrant=reentrant), BOTH, curve=_curve(1e-5))])

    for call in (router.run, router.attempt):
        call(_rows(1), ("predict",))

    assert taken_turns == [not reentrant] * 2
    assert not any(turn.locked() for turn in router._turns.values())


def test_routes_that_are_remembered_are_bounded() -> None:
    names = [f"output {number}" for number in range(ROUTES + 10)]
    router = Router([Option("onnx", Engine(0.1), frozenset(names), curve=_curve(1e-5))])

    for name in names:
        router.run(_rows(1), (name,))

    assert len(router._routes) <= ROUTES


def test_rows_are_counted_for_their_cost_and_not_for_their_route_alone() -> None:
    router = Router([Option("onnx", Engine(0.1), BOTH, curve=_curve(1e-5, 64e-5))])

    assert router.seconds(32, ("predict",)) < router.seconds(48, ("predict",)) < router.seconds(63, ("predict",))


def test_table_of_engines_is_for_people() -> None:
    router = Router(
        [
            Option("onnx", Engine(0.1), BOTH, exact=frozenset({"predict"}), curve=CostCurve(((1, 1e-5), (8, 2e-5)))),
            _estimator(),
        ],
        prefer="onnx",
    )

    assert router.describe() == [
        {
            "name": "onnx",
            "outputs": ["predict", "predict_proba"],
            "exact": ["predict"],
            "seconds": {"1": 1e-5, "8": 2e-5},
            "preferred": True,
        },
        {
            "name": "estimator",
            "outputs": ["predict", "predict_proba"],
            "exact": ["predict", "predict_proba"],
            "seconds": None,
        },
    ]


@given(
    values=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=6),
    hard=st.lists(st.sets(st.integers(0, 5).map(float)), min_size=3, max_size=3),
    late=st.lists(st.booleans(), min_size=3, max_size=3),
    exact=st.lists(st.booleans(), min_size=3, max_size=3),
    covers=st.lists(st.sets(st.sampled_from(sorted(BOTH)), min_size=1), min_size=3, max_size=3),
)
def test_every_row_is_answered_by_an_engine_that_can_hold_it(
    values: list[float], hard: list[set[float]], late: list[bool], exact: list[bool], covers: list[set[str]]
) -> None:
    marks = (0.1, 0.2, 0.3)
    engines = [Engine(mark, sorted(h), late=is_late) for mark, h, is_late in zip(marks, hard, late, strict=True)]
    router = Router(
        [
            Option(f"{n}", engine, frozenset(c), exact=BOTH if e else frozenset(), curve=_curve(float(n + 1)))
            for n, (engine, c, e) in enumerate(zip(engines, covers, exact, strict=True))
        ]
        + [_estimator()]
    )

    answers = router.run(_rows(*values), ("predict", "predict_proba"))

    for name, got in answers.items():
        for value, answer in zip(values, np.asarray(got).tolist(), strict=True):
            who = [n for n, mark in enumerate((*marks, 0.5)) if answer == value + mark]
            assert len(who) == 1
            assert who == [3] or (value not in hard[who[0]] and name in covers[who[0]])


def test_rows_are_not_shared_with_whoever_spoils_them() -> None:
    rows = _rows(1, 7)
    before = take(rows, np.arange(2))
    router = Router([Option("onnx", Engine(0.1, hard=[7]), BOTH, curve=_curve(1e-5)), _estimator()])

    router.run(rows, ("predict",))

    assert _values(rows).tolist() == _values(before).tolist()
