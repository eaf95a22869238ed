"""What a run of `benchmarks.serving` found: tables for people, JSON for the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.load import Load, median
from benchmarks.models import WORKS
from benchmarks.probe import Health
from benchmarks.processes import Memory
from benchmarks.targets import ECHO_ASGI, ECHO_WSGI, NAIVE_FASTAPI, NAIVE_FLASK, Cell, Verdict, ratio, title, verdicts

LIBRARIES: Final = (
    "fastapi", "uvicorn", "uvloop", "httptools", "flask", "granian", "gunicorn", "gevent",
    "scikit-learn", "numpy", "pandas", "onnxruntime", "treelite",
)  # fmt: skip


@dataclass(slots=True)
class Run:
    """Everything measured. `memory` is that of the forest model: after loading, and at work.

    `engines` is what `GET /models/{name}` of Tandem says of them, by work.
    """

    engines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rounds: dict[Cell, dict[str, list[Load]]] = field(default_factory=dict)
    steady: dict[Cell, dict[str, list[Load]]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    memory_at_work: dict[str, Memory] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)

    def verdicts(self) -> list[Verdict]:
        return verdicts(self.rounds, self.steady, self.memory, self.health)


def tables(run: Run) -> str:
    parts = [
        engine_table(run.engines),
        speed_table(run.rounds),
        steady_table(run.steady),
        memory_table(run),
        health_table(run.health),
    ]
    parts.append(target_table(run.verdicts()))
    parts += [profile_table(what, percents) for what, percents in run.profiles.items()]
    return "\n\n".join(part for part in parts if part)


def engine_table(engines: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which engines Tandem chooses from: where only the estimator is left, there is little to measure."""
    lines = [f"| {WORKS[name].title} | {', '.join(e['name'] for e in found)} |" for name, found in engines.items()]
    return table("work | engines that Tandem chooses from", lines)


def speed_table(rounds: Mapping[Cell, Mapping[str, Sequence[Load]]]) -> str:
    lines = []
    for cell, by_name in rounds.items():
        for name, runs in by_name.items():
            load = median(runs)
            is_asgi = "FastAPI" in name or "ASGI" in name
            naive = ratio(by_name, name, NAIVE_FASTAPI if is_asgi else NAIVE_FLASK)
            echo = ratio(by_name, name, ECHO_ASGI if is_asgi else ECHO_WSGI)
            lines.append(
                f"| {title(cell)} | {cell.connections} | {name} | {load.rps:.0f} | {load.p50_ms:.2f} | "
                f"{load.p99_ms:.2f} | {load.tail:.1f} | {figure(naive)} | {figure(echo)} | {counts(load.errors)} |"
            )
    return table(
        "work | connections | contestant | requests/s | p50 ms | p99 ms | p99/p50 | × naive | of echo | errors", lines
    )


def steady_table(steady: Mapping[Cell, Mapping[str, Sequence[Load]]]) -> str:
    lines = []
    for cell, by_name in steady.items():
        for name, runs in by_name.items():
            load = median(runs)
            lines.append(
                f"| {title(cell)} | {name} | {load.rps:.0f} | {load.p50_ms:.2f} | {load.p99_ms:.2f} | {load.tail:.1f} |"
            )
    return table("once all 64 connections are in | contestant | requests/s | p50 ms | p99 ms | p99/p50", lines)


def memory_table(run: Run) -> str:
    lines = []
    for name, loaded in run.memory.items():
        worked = run.memory_at_work[name]
        lines.append(f"| {name} | {loaded.pss:.0f} | {loaded.rss:.0f} | {worked.pss:.0f} | {worked.rss:.0f} |")
    return table("memory with the forest, MiB | loaded: PSS | RSS | at work: PSS | RSS", lines)


def health_table(health: Mapping[str, Health]) -> str:
    lines = [
        f"| {name} | {h.p50_ms:.1f} | {h.p99_ms:.1f} | {h.max_ms:.1f} | {h.failed} of {h.probes} | "
        f"{h.beside_p50_ms:.0f} |"
        for name, h in health.items()
    ]
    return table(
        "/health/live beside slow predictions | p50 ms | p99 ms | most ms | failed | a prediction's p50 ms", lines
    )


def target_table(found: Sequence[Verdict]) -> str:
    """What was measured; and how much was not, so that nothing is missed in silence."""
    measured = [verdict for verdict in found if verdict.passes is not None]
    lines = [
        f"| {v.what} | {v.who} | {v.against} | {'at most' if v.at_most else 'at least'} {v.limit:g} | "
        f"{figure(v.reached)} | {'yes' if v.passes else '**no**'} |"
        for v in measured
    ]
    text = table("target | who | against | limit | reached | holds", lines)
    others = len(found) - len(measured)
    return "\n\n".join(part for part in (text, f"{others} targets not measured" if others else "") if part)


def profile_table(what: str, percents: Mapping[str, float]) -> str:
    return table(f"{what}: where its time goes | %", [f"| {part} | {share:.0f} |" for part, share in percents.items()])


def table(heads: str, lines: Sequence[str]) -> str:
    """Markdown; empty where there are no lines. `heads` are separated by bars."""
    if not lines:
        return ""
    return "\n".join([f"| {heads} |", "|" + "---|" * (heads.count("|") + 1), *lines])


def counts(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in errors.items())


def figure(value: float | None) -> str:
    """Three digits, which is more than a busy machine can promise."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def content(run: Run, method: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": "serving",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "method": dict(method),
        "targets": [{**asdict(v), "holds": v.passes} for v in run.verdicts()],
        "engines": run.engines,
        "rows": _rows(run.rounds),
        "steady": _rows(run.steady),
        "memory_mib": {name: asdict(memory) for name, memory in run.memory.items()},
        "memory_at_work_mib": {name: asdict(memory) for name, memory in run.memory_at_work.items()},
        "health": {name: asdict(health) for name, health in run.health.items()},
        "profiles_percent": run.profiles,
    }


def _rows(rounds: Mapping[Cell, Mapping[str, Sequence[Load]]]) -> list[dict[str, Any]]:
    return [
        {**asdict(cell), "contestant": name, **asdict(median(runs)), "runs": [asdict(run) for run in runs]}
        for cell, by_name in rounds.items()
        for name, runs in by_name.items()
    ]


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
