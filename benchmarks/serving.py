"""Tandem against naive apps and a bare echo, over HTTP, on one core. `python -m benchmarks.serving`

All contestants of one work are up at the same time and take turns, three rounds of each cell, so
that whatever else the machine does hits them alike. Servers run on one core, the client on another.
Before anything is timed, Tandem's numbers are compared with the naive app's.

    python -m benchmarks.serving                     the whole matrix, 25 minutes
    python -m benchmarks.serving --quick             the cells with a target, 3 minutes; writes no results
    python -m benchmarks.serving --only forest       one work (of logistic, forest, mixed, boosting)
    python -m benchmarks.serving --only forest --contestant "Tandem FastAPI" --profile
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.awake import awake
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.load import Load, client_name, run_load, steady_load
from benchmarks.models import FOREST, LOGISTIC, MIXED, ROWS, SLOW, WORKS, Work
from benchmarks.probe import health_beside
from benchmarks.processes import Server, ServerFailed, end_on_sigterm, free_port, serving
from benchmarks.profiling import can_profile, profile
from benchmarks.report import Run, content, tables
from benchmarks.targets import CONNECTIONS, NAIVE_FASTAPI, TIMES_NAIVE, Cell, spoilt, title

RESULTS: Final = Path(__file__).parent / "results"
ALL_CONNECTIONS: Final = (1, 50, 64)
ROUNDS: Final = 3
WARM_UP_S: Final = 1
PROBE_S: Final = 8
STEADY_S: Final = 2
PROFILE_S: Final = 3
# A body looks the same to an echo whatever the model.
ECHOED: Final = (LOGISTIC, MIXED)
AGREE: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; cells with a target for longer than the others."""

    works: tuple[Work, ...]
    contestants: tuple[Contestant, ...]
    connections: tuple[int, ...]
    target_s: int
    other_s: int
    only_targets: bool
    profiles: bool
    server_core: int
    client_core: int

    def cells(self, work: Work) -> list[Cell]:
        cells = [Cell(work.name, rows, connections) for rows in ROWS for connections in self.connections]
        return [cell for cell in cells if is_target(cell) or not self.only_targets]

    def runs(self, contestant: Contestant, cell: Cell) -> bool:
        if contestant.kind == "echo" and WORKS[cell.work] not in ECHOED:
            return False
        return contestant.is_main or (cell.connections == CONNECTIONS and not self.only_targets)

    def seconds(self, contestant: Contestant, cell: Cell) -> int:
        return self.target_s if contestant.is_main and is_target(cell) else self.other_s


def is_target(cell: Cell) -> bool:
    return cell.connections == CONNECTIONS and (WORKS[cell.work], cell.rows) in TIMES_NAIVE


class WrongAnswer(Exception):
    """A contestant gives other numbers than the naive app: its speed is of no interest."""


def main() -> None:
    arguments = parse_arguments()
    plan = plan_of(arguments)
    end_on_sigterm()
    run = Run()
    with tempfile.TemporaryDirectory() as temporary, awake((plan.server_core, plan.client_core)):
        folder = arguments.models or Path(temporary) / "models"
        if not folder.exists():
            say("fitting and exporting the models")
            subprocess.run([sys.executable, "-m", "benchmarks.models", str(folder)], check=True)
        logs = Path(temporary)
        for work in plan.works:
            measure_work(work, plan, folder / work.name, logs, run)
        if FOREST in plan.works:
            measure_memory(plan, folder / FOREST.name, logs, run)
        if not arguments.no_health:
            measure_health(plan, folder / SLOW.name, logs, run)
    print(tables(run))
    found = content(run, method(plan))
    out = arguments.out or (None if arguments.quick or arguments.only or arguments.contestant else RESULTS)
    if out is not None:
        write_results(out, found)
    bad = spoilt(run.rounds)
    if bad:
        sys.exit("errors:\n" + "\n".join(bad))


def measure_work(work: Work, plan: Plan, models: Path, logs: Path, run: Run) -> None:
    cells = plan.cells(work)
    wanted = [c for c in plan.contestants if any(plan.runs(c, cell) for cell in cells)]
    if not cells or not wanted:
        return
    say(f"{work.title}: starting {len(wanted)} servers")
    with fleet(wanted, work, models, logs, plan) as servers:
        check_answers(work, models, servers)
        tandem = next((servers[c] for c in wanted if c.kind == "Tandem"), None)
        if tandem is not None:
            run.engines[work.name] = json.loads(tandem.ask(f"/models/{work.name}")[1]).get("engines", [])
        for cell in cells:
            bodies = models / f"{cell.rows}.jsonl"
            runs: dict[str, list[Load]] = {c.name: [] for c in wanted if plan.runs(c, cell)}
            for turn in range(-1, ROUNDS):
                for contestant in (c for c in wanted if c.name in runs):
                    seconds = WARM_UP_S if turn < 0 else plan.seconds(contestant, cell)
                    url = servers[contestant].url(contestant.path(work))
                    load = run_load(url, bodies, cell.connections, seconds, plan.client_core)
                    servers[contestant].settle()
                    if turn >= 0:
                        runs[contestant.name].append(load)
            run.rounds[cell] = runs
            best = {name: max(load.rps for load in loads) for name, loads in runs.items()}
            say(f"  {cell.rows} row(s), {cell.connections} connections: " + tell(best))
        for contestant in wanted:
            if contestant.kind == "Tandem" and contestant.is_main:
                for cell in filter(is_target, cells):
                    look_closer(contestant, servers[contestant], cell, models, plan, run)


def look_closer(contestant: Contestant, server: Server, cell: Cell, models: Path, plan: Plan, run: Run) -> None:
    """Latency without that of connecting, and where the time goes."""
    work = WORKS[cell.work]
    path, bodies = contestant.path(work), models / f"{cell.rows}.jsonl"
    run.steady.setdefault(cell, {})[contestant.name] = [
        steady_load(server.url(path), bodies, cell.connections, STEADY_S, plan.client_core) for _ in range(ROUNDS)
    ]
    if plan.profiles:
        what = f"{contestant.name}: {title(cell)}"
        run.profiles[what] = profile(
            server, path, bodies, cell.connections, PROFILE_S, plan.client_core,
            only_lock=contestant.framework == "Flask",
        )  # fmt: skip


def measure_memory(plan: Plan, models: Path, logs: Path, run: Run) -> None:
    """One server at a time, so that no contestant shares its pages with another."""
    for contestant in plan.contestants:
        if contestant.is_main and contestant.kind != "echo":
            with fleet([contestant], FOREST, models, logs, plan) as servers:
                server = servers[contestant]
                loaded = server.memory()
                url = server.url(contestant.path(FOREST))
                run_load(url, models / "1.jsonl", CONNECTIONS, 2, plan.client_core)
                worked = server.memory()
            if loaded is not None and worked is not None:
                run.memory[contestant.name] = loaded
                run.memory_at_work[contestant.name] = worked
    say("memory: " + tell({name: memory.pss for name, memory in run.memory.items()}, "MiB"))


def measure_health(plan: Plan, models: Path, logs: Path, run: Run) -> None:
    for contestant in plan.contestants:
        if contestant.kind == "Tandem" and contestant.is_main:
            with fleet([contestant], SLOW, models, logs, plan) as servers:
                run.health[contestant.name] = health_beside(
                    servers[contestant], contestant.path(SLOW), models / "100.jsonl", PROBE_S, plan.client_core
                )
    say("health p99: " + tell({name: health.p99_ms for name, health in run.health.items()}, "ms"))


@contextmanager
def fleet(
    contestants: Sequence[Contestant], work: Work, models: Path, logs: Path, plan: Plan
) -> Iterator[dict[Contestant, Server]]:
    """All of them, ready. Raises ServerFailed."""
    body = (models / "1.jsonl").read_bytes().splitlines()[0]
    with ExitStack() as stack:
        servers = {}
        for number, contestant in enumerate(contestants):
            port = free_port()
            command, environment = contestant.command(models, port), contestant.environment(models)
            log = logs / f"{work.name}-{number}.log"
            servers[contestant] = stack.enter_context(serving(command, environment, port, log, plan.server_core))
        for contestant, server in servers.items():
            server.wait_until_ready(contestant.path(work), body)
        yield servers


def check_answers(work: Work, models: Path, servers: dict[Contestant, Server]) -> None:
    """Every body, every contestant, against the naive FastAPI app (or whichever naive one is there).

    Raises:
        WrongAnswer: a number differs by more than 1e-5, relative or absolute.
    """
    judges = [c for c in servers if c.kind == "naive"]
    if not judges:
        say("  no naive app here: answers are not compared")
        return
    judge = min(judges, key=lambda c: c.name != NAIVE_FASTAPI)
    for rows in ROWS:
        for line in (models / f"{rows}.jsonl").read_bytes().splitlines():
            expected = probabilities(judge, servers[judge], work, line)
            for contestant, server in servers.items():
                if contestant.kind == "echo":
                    continue
                got = probabilities(contestant, server, work, line)
                if not agree(expected, got):
                    raise WrongAnswer(f"{contestant.name}, {work.title}: {got[:2]} is not {expected[:2]}")


def probabilities(contestant: Contestant, server: Server, work: Work, body: bytes) -> list[list[float]]:
    status, reply = server.ask(contestant.path(work), body)
    if status != 200:
        raise ServerFailed(f"{contestant.name}: status {status}: {reply[:500]!r}")
    found: list[list[float]] = json.loads(reply)["probabilities"]
    return found


def agree(expected: Sequence[Sequence[float]], got: Sequence[Sequence[float]]) -> bool:
    return len(expected) == len(got) and all(
        len(a) == len(b) and all(math.isclose(x, y, rel_tol=AGREE, abs_tol=AGREE) for x, y in zip(a, b, strict=True))
        for a, b in zip(expected, got, strict=True)
    )


def write_results(out: Path, found: dict[str, Any]) -> None:
    from benchmarks.plot import draw

    out.mkdir(parents=True, exist_ok=True)
    (out / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, out / "serving.png")
    say(f"written: {out}/serving.json and serving.png")


def method(plan: Plan) -> dict[str, Any]:
    return {
        "client": client_name(),
        "server_core": plan.server_core,
        "client_core": plan.client_core,
        "rounds": ROUNDS,
        "seconds": {"with a target": plan.target_s, "others": plan.other_s},
        "asked": "predict_proba, JSON, 64 different bodies of one row or 8 of 100 in turn",
        "logs": "as by default, into a file",
        "cores": "kept awake by processes that compute when nobody else would (SCHED_IDLE)",
        "between runs": "a server comes to rest: what it still computes for clients that left costs nobody else",
        "steady": f"{STEADY_S} s by the bundled client, counted once every connection was answered",
        "figures": "medians over the rounds; ratios are medians of the rounds' own ratios",
    }


def plan_of(arguments: argparse.Namespace) -> Plan:
    quick = arguments.quick
    works = tuple(work for name, work in WORKS.items() if not arguments.only or name in arguments.only)
    contestants = tuple(
        c for c in CONTESTANTS if not arguments.contestant or any(part in c.name for part in arguments.contestant)
    )
    if arguments.profile and not can_profile():
        sys.exit("--profile needs py-spy on the path: pip install py-spy")
    return Plan(
        works,
        contestants,
        connections=(CONNECTIONS,) if quick else ALL_CONNECTIONS,
        target_s=arguments.seconds or (1 if quick else 3),
        other_s=arguments.seconds or 1,
        only_targets=quick,
        profiles=arguments.profile,
        server_core=arguments.server_core,
        client_core=min(arguments.client_core, (os.cpu_count() or 1) - 1),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only what has a target, for shorter")
    parser.add_argument("--only", action="append", choices=list(WORKS), help="a work; again for more")
    parser.add_argument("--contestant", action="append", help="those whose name contains this; again for more")
    parser.add_argument("--seconds", type=int, help="of each run")
    parser.add_argument("--profile", action="store_true", help="say where Tandem's time goes (needs py-spy)")
    parser.add_argument("--no-health", action="store_true", help="leave out the probes of /health/live")
    parser.add_argument("--models", type=Path, help="models of an earlier run, kept here; made if absent")
    parser.add_argument("--out", type=Path, help="where serving.json and serving.png go")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    return parser.parse_args()


def tell(figures: dict[str, float], unit: str = "/s") -> str:
    return "; ".join(f"{name} {value:.0f} {unit}" for name, value in figures.items())


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
