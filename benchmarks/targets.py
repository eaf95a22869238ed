"""What the engines must show, and how far a run got. Pure: figures in, verdicts out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.load import Load, median
from benchmarks.models import FOREST, LOGISTIC, MIXED, WORKS, Work
from benchmarks.probe import Health
from benchmarks.processes import Memory

CONNECTIONS: Final = 64

NAIVE_FASTAPI: Final = "naive FastAPI, uvicorn"
NAIVE_FLASK: Final = "naive Flask, gunicorn gthread"  # as tutorials deploy it
NAIVE_FLASK_GRANIAN: Final = "naive Flask, granian"  # the quickest server it may have
TANDEM_FASTAPI: Final = "Tandem FastAPI, uvicorn"
TANDEM_FLASK: Final = "Tandem Flask, gunicorn gthread"
ECHO_ASGI: Final = "echo ASGI, uvicorn"
ECHO_WSGI: Final = "echo WSGI, granian"  # the quickest

# By work and rows: how many times the throughput of the naive app, FastAPI and Flask.
TIMES_NAIVE: Final[Mapping[tuple[Work, int], tuple[float, float]]] = {
    (MIXED, 1): (50, 30),
    (FOREST, 1): (40, 30),
    (LOGISTIC, 1): (6, 4),
    (LOGISTIC, 100): (10, 8),
    (FOREST, 100): (3, 3),
}
OF_ECHO: Final = 0.33
TAIL: Final = 4.0
TIMES_MEMORY: Final = 1.3
HEALTH_MS: Final = 50.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What is asked: `work` is a name of `benchmarks.models.WORKS`."""

    work: str
    rows: int
    connections: int


# What one run measured: the rounds of each cell, by the name of the contestant.
Rounds = Mapping[Cell, Mapping[str, Sequence[Load]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reached` is None where it was not measured. `limit` is a least or, with `at_most`, a greatest figure."""

    what: str
    who: str
    against: str
    limit: float
    reached: float | None
    at_most: bool = False

    @property
    def passes(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.limit if self.at_most else self.reached >= self.limit


def verdicts(
    rounds: Rounds, steady: Rounds, memory: Mapping[str, Memory], health: Mapping[str, Health]
) -> list[Verdict]:
    """`steady` has latencies without those of connecting, `memory` is that of the forest model."""
    found = []
    for (work, rows), (fastapi, flask) in TIMES_NAIVE.items():
        cell = Cell(work.name, rows, CONNECTIONS)
        what = title(cell)
        by_name = rounds.get(cell, {})
        for who, against, limit in (
            (TANDEM_FASTAPI, NAIVE_FASTAPI, fastapi),
            (TANDEM_FLASK, NAIVE_FLASK, flask),
            (TANDEM_FLASK, NAIVE_FLASK_GRANIAN, flask),
        ):
            found.append(Verdict(what, who, f"× {against}", limit, ratio(by_name, who, against)))
        if (work, rows) == (LOGISTIC, 1):
            found.append(
                Verdict(what, TANDEM_FASTAPI, f"of {ECHO_ASGI}", OF_ECHO, ratio(by_name, TANDEM_FASTAPI, ECHO_ASGI))
            )
    for work, rows in TIMES_NAIVE:
        cell = Cell(work.name, rows, CONNECTIONS)
        for who in (TANDEM_FASTAPI, TANDEM_FLASK):
            runs = steady.get(cell, {}).get(who)
            tail = statistics.median(run.tail for run in runs) if runs else None
            found.append(Verdict(title(cell), who, "p99 / p50, steady", TAIL, tail, at_most=True))
    for who, against in (
        (TANDEM_FASTAPI, NAIVE_FASTAPI),
        (TANDEM_FLASK, NAIVE_FLASK),
        (TANDEM_FLASK, NAIVE_FLASK_GRANIAN),
    ):
        reached = memory[who].pss / memory[against].pss if who in memory and against in memory else None
        found.append(Verdict("memory after load, forest", who, f"× {against}", TIMES_MEMORY, reached, at_most=True))
    for who in (TANDEM_FASTAPI, TANDEM_FLASK):
        p99 = health[who].p99_ms if who in health else None
        found.append(Verdict("/health/live while all threads predict", who, "p99, ms", HEALTH_MS, p99, at_most=True))
    return found


def ratio(by_name: Mapping[str, Sequence[Load]], who: str, against: str) -> float | None:
    """Throughput over throughput: the median of the rounds' own ratios, since noise hits both of a round alike."""
    ours, theirs = by_name.get(who), by_name.get(against)
    if not ours or not theirs or any(run.rps == 0 for run in theirs):
        return None
    return statistics.median(a.rps / b.rps for a, b in zip(ours, theirs, strict=True))


def spoilt(rounds: Rounds) -> list[str]:
    """What got a reply other than 2xx, a broken connection, or no reply at all: its figures mean nothing."""
    return [
        f"{title(cell)}, {cell.connections} connections, {name}: {run.errors or 'no answers'}, {run.rps:.1f} requests/s"
        for cell, by_name in rounds.items()
        for name, runs in by_name.items()
        if (run := median(runs)).errors or not run.rps
    ]


def title(cell: Cell) -> str:
    return f"{WORKS[cell.work].title}, {cell.rows} row{'s' if cell.rows > 1 else ''}"
