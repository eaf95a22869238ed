"""Which engine answers: the cheapest for these outputs and so many rows, then whoever can hold the rows."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np

from service.core.contracts import Engine
from service.core.errors import CannotAnswer, NotRepresentable, Unavailable
from service.core.table import Table, Values, take
from service.scheduling.answers import taken, woven
from service.scheduling.cost import CostCurve
from service.scheduling.observer import NOBODY, Observer

# What measurements of one engine differ by from one day to the next: within it, the more exact one is taken.
TIE: Final = 1.1

# Routes that are remembered. There are a handful in practice, but callers choose the order of the outputs.
ROUTES: Final = 1024


class Exactness(IntEnum):
    """How close an engine comes to the estimator, for one output."""

    CLOSE = 0  # numbers in single precision
    EXACT = 1  # as another correct way to add up the same numbers
    ITSELF = 2  # the estimator


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """An engine of a version, and what is known of it.

    `exact` are the outputs whose numbers it computes in full precision. Without a `curve` it was not
    measured, and is the last resort: the estimator, while its file is not opened. One that `may_be_away`
    runs in another process; while that is down (Unavailable), the others answer.
    """

    name: str
    engine: Engine
    outputs: frozenset[str]
    exact: frozenset[str] = frozenset()
    curve: CostCurve | None = None
    is_estimator: bool = False
    may_be_away: bool = False

    def exactness(self, output: str) -> Exactness:
        if self.is_estimator:
            return Exactness.ITSELF
        return Exactness.EXACT if output in self.exact else Exactness.CLOSE

    def seconds(self, rows: int) -> float:
        return math.inf if self.curve is None else self.curve.seconds(rows)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    option: Option
    outputs: tuple[str, ...]


# Who computes which outputs, one after another; the estimator comes last, because it uses up the rows.
Route = tuple[Step, ...]


class Router:
    """The engines of a version as one engine. As safe to call from several threads as the contract wants:
    calls of an engine that is not reentrant wait for each other.

    Args:
        options: at least one; names do not repeat.
        prefer: name of the option that answers whatever it can, whatever it costs.
    """

    def __init__(self, options: Sequence[Option], prefer: str | None = None) -> None:
        """Raises ValueError where no option has the name `prefer`."""
        if prefer is not None and prefer not in {option.name for option in options}:
            raise ValueError(f"there is no engine {prefer!r}; there is {', '.join(o.name for o in options)}")
        self._options = tuple(options)
        self._prefer = prefer
        self._observer = NOBODY
        self._routes: dict[tuple[Sequence[str], int], Route | None] = {}
        self._turns = {option.name: threading.Lock() for option in options if not option.engine.is_reentrant}
        offered = frozenset().union(*(option.outputs for option in options))
        measured = [option for option in options if option.curve is not None]
        # Of one that is opened in need only, calls are rare, and may wait for each other.
        self.is_reentrant = offered == frozenset().union(*(option.outputs for option in measured)) and all(
            option.engine.is_reentrant for option in measured
        )

    def observe(self, observer: Observer) -> None:
        """From now on, `observer` is told which engine is asked."""
        self._observer = observer

    def seconds(self, rows: int, outputs: tuple[str, ...]) -> float:
        """How long `run` will take; infinity where nothing was measured, or nobody can answer."""
        route = self.route(rows, outputs)
        if route is None:
            return math.inf
        total = 0.0
        for step in route:
            total += step.option.seconds(rows)
        return total

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """See `core.contracts.Engine`.

        Raises:
            NotRepresentable: no engine covers an output, or can hold the rows.
        """
        route, outputs = self._route_of(rows, outputs)
        if len(route) == 1:
            return self._ask(route[0], rows, frozenset())
        answers: dict[str, Values] = {}
        for step in route:
            answers |= self._ask(step, rows, frozenset())
        return {name: answers[name] for name in outputs}

    def attempt(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """As `run`, within the time that `seconds` said: nobody else is asked, nor a model file opened for it.

        The rows are as they were, where this fails.

        Raises:
            CannotAnswer: `run` would ask another engine, or the estimator, which take their own time.
            NotRepresentable: no engine covers an output.
        """
        route, outputs = self._route_of(rows, outputs)
        if any(step.option.is_estimator or step.option.may_be_away for step in route):
            # Anybody's code may be in the one, and anything may happen to the process of the other: what was quick
            # when it was measured may wait for something now.
            raise CannotAnswer("it takes its own time", np.ones(rows.n_rows, dtype=bool))
        if len(route) == 1:
            return self._call(route[0], rows)
        answers: dict[str, Values] = {}
        for step in route:
            answers |= self._call(step, rows)
        return {name: answers[name] for name in outputs}

    def _route_of(self, rows: Table, outputs: Sequence[str]) -> tuple[Route, tuple[str, ...]]:
        outputs = tuple(outputs)
        route = self.route(rows.n_rows, outputs)
        if route is None:
            missing = [name for name in outputs if not any(name in option.outputs for option in self._options)]
            raise NotRepresentable(f"no compiled engine computes {', '.join(missing)}")
        return route, outputs

    def route(self, rows: int, outputs: tuple[str, ...]) -> Route | None:
        """Who answers; None where no option covers an output. The same for all row counts of one power of two."""
        key = (outputs, rows.bit_length())
        try:
            return self._routes[key]
        except KeyError:
            pass
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        # In the middle of those with as many bits, in the measure of ratios.
        middle = rows if rows < 2 else round(2 ** (rows.bit_length() - 0.5))
        can = {option: option.outputs.intersection(outputs) for option in self._options}
        route = self._routes[key] = plan(can, outputs, middle, self._prefer)
        return route

    def describe(self) -> list[dict[str, Any]]:
        """The table of engines, for people: what each covers, and its seconds by rows where they were measured."""
        return [
            {
                "name": option.name,
                "outputs": sorted(option.outputs),
                "exact": sorted(name for name in option.outputs if option.exactness(name) > Exactness.CLOSE),
                "seconds": None if option.curve is None else {str(rows): s for rows, s in option.curve.points},
            }
            | ({"preferred": True} if option.name == self._prefer else {})
            for option in self._options
        ]

    def _call(self, step: Step, rows: Table) -> dict[str, Values]:
        turn = self._turns.get(step.option.name)
        self._observer.call(step.option.name, rows.n_rows)
        try:
            if turn is None:
                return step.option.engine.run(rows, step.outputs)
            with turn:
                return step.option.engine.run(rows, step.outputs)
        except Unavailable as away:
            if not step.option.may_be_away:
                raise
            raise _Away(away, rows.n_rows) from away

    def _ask(self, step: Step, rows: Table, asked: frozenset[Option], *, is_rest: bool = False) -> dict[str, Values]:
        """The step's answers; rows that its engine cannot answer are answered by a more exact one.

        `asked` gave these rows up before; `is_rest` says that this engine gave up some of them, and these are the rest.
        """
        option, outputs = step.option, step.outputs
        try:
            return self._call(step, rows)
        except CannotAnswer as refusal:
            self._observer.fallback(option.name)
            hard = refusal.rows
            answers = refusal.answers
            # It should have said by now which rows it cannot answer; it does not get a third try.
            if not hard.any() or (is_rest and answers is None):
                hard, answers = np.ones(rows.n_rows, dtype=bool), None
            easy_rows, hard_rows = np.flatnonzero(~hard), np.flatnonzero(hard)
            others = self._ask_others(step, take(rows, hard_rows), asked | {option}, refusal)
            if not easy_rows.size:
                return others
            if answers is None:
                easy = self._ask(step, take(rows, easy_rows), asked, is_rest=True)
            else:
                easy = {name: taken(answers[name], easy_rows) for name in outputs}
            return woven([(easy_rows, easy), (hard_rows, others)])

    def _ask_others(self, step: Step, rows: Table, asked: frozenset[Option], why: CannotAnswer) -> dict[str, Values]:
        left = [option for option in self._options if option not in asked]
        if isinstance(why, _Away):
            can = {option: option.outputs.intersection(step.outputs) for option in left}
        else:
            can = {option: may_follow(option, step) for option in left}
        route = plan(can, step.outputs, rows.n_rows)
        if route is None:
            raise why.error if isinstance(why, _Away) else NotRepresentable(str(why))
        answers: dict[str, Values] = {}
        for following in route:
            # The estimator comes last in a route, and these rows are nobody else's.
            answers |= self._ask(following, rows, asked)
        return {name: answers[name] for name in step.outputs}


class _Away(CannotAnswer):
    """The process that an engine runs in is down, which says nothing of the rows: anybody may answer them."""

    def __init__(self, error: Unavailable, rows: int) -> None:
        super().__init__(str(error), np.ones(rows, dtype=bool))
        self.error = error


def may_follow(option: Option, step: Step) -> frozenset[str]:
    """The outputs of `step` that `option` may answer where the engine of `step` cannot.

    It must be more exact, or exact as well: what one in single precision finds too close to call, another
    one in single precision cannot call either.
    """
    return frozenset(
        name
        for name in option.outputs.intersection(step.outputs)
        if option.exactness(name) > min(step.option.exactness(name), Exactness.CLOSE)
    )


def plan(
    can: Mapping[Option, frozenset[str]], outputs: tuple[str, ...], rows: int, prefer: str | None = None
) -> Route | None:
    """The route for `outputs`, where `can` says which of them each option may answer.

    One engine for all where there is one, else those that cost least for each output they add. What was not
    measured is taken only for outputs that nothing else covers.
    """
    left = set(outputs)
    chosen: list[Step] = []
    while left:
        useful = {option: names & left for option, names in can.items() if names & left}
        if not useful:
            return None
        option = _best(useful, len(left), rows, prefer)
        chosen.append(Step(option, tuple(name for name in outputs if name in useful[option])))
        left -= useful[option]
    return tuple(sorted(chosen, key=lambda step: step.option.is_estimator))


def _best(useful: Mapping[Option, frozenset[str]], wanted: int, rows: int, prefer: str | None) -> Option:
    preferred = [option for option in useful if option.name == prefer]
    if preferred:
        return preferred[0]
    measured = {option: names for option, names in useful.items() if option.curve is not None} or useful
    whole = {option: names for option, names in measured.items() if len(names) == wanted} or measured
    costs = {option: option.seconds(rows) / len(names) for option, names in whole.items()}
    limit = TIE * min(costs.values())
    return min(
        (option for option, cost in costs.items() if cost <= limit),
        key=lambda option: (-_least_exact(option, whole[option]), costs[option]),
    )


def _least_exact(option: Option, outputs: Iterable[str]) -> Exactness:
    return min(map(option.exactness, outputs))
