"""The picture of `results/serving.json` that the README shows. `python -m benchmarks.plot`"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any, Final

from benchmarks.models import FOREST, LOGISTIC, MIXED, WORKS
from benchmarks.targets import (
    CONNECTIONS,
    ECHO_ASGI,
    ECHO_WSGI,
    NAIVE_FASTAPI,
    NAIVE_FLASK,
    NAIVE_FLASK_GRANIAN,
    TANDEM_FASTAPI,
    TANDEM_FLASK,
)

RESULTS: Final = Path(__file__).parent / "results"

PANELS: Final = ((MIXED, 1), (FOREST, 1), (LOGISTIC, 1), (FOREST, 100), (LOGISTIC, 100))
# From top to bottom, in two groups: its label and its colour (safe for the colour-blind).
MARKS: Final = (
    (NAIVE_FASTAPI, "naive FastAPI, uvicorn", "#9a9a9a"),
    (TANDEM_FASTAPI, "Tandem FastAPI, uvicorn", "#0072b2"),
    (NAIVE_FLASK, "naive Flask, gunicorn", "#9a9a9a"),
    (NAIVE_FLASK_GRANIAN, "naive Flask, Granian", "#9a9a9a"),
    (TANDEM_FLASK, "Tandem Flask, gunicorn", "#d55e00"),
)
PLACES: Final = (0.0, 1.0, 2.5, 3.5, 4.5)
# An echo is what no app under a web server can pass: a line across its group, that of the quickest server.
CEILINGS: Final = ((ECHO_ASGI, -0.45, 1.45), (ECHO_WSGI, 2.05, 4.95))


def main() -> None:
    draw(json.loads((RESULTS / "serving.json").read_text()), RESULTS / "serving.png")


def draw(found: dict[str, Any], path: Path) -> None:
    """Requests per second at 64 connections, one panel a work, on one logarithmic axis. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    at_64 = {
        (row["work"], row["rows"], row["contestant"]): row for row in found["rows"] if row["connections"] == CONNECTIONS
    }
    rps = {which: row["rps"] for which, row in at_64.items()}
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(9, 11), sharex=True, layout="constrained")
    for axis, (work, rows) in zip(axes, PANELS, strict=True):
        for place, (name, _, colour) in zip(PLACES, MARKS, strict=True):
            value = rps.get((work.name, rows, name))
            if value is None:
                continue
            # Points, not bars: on a logarithmic axis the length of a bar means nothing.
            axis.plot(value, place, "o", color=colour, markersize=9)
            text = f"{value:,.0f}".replace(",", "\u2009") + times(at_64, work.name, rows, name)
            clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # of the lines behind it
            axis.text(value * 1.12, place, text, va="center", fontsize=9, bbox=clear)
        for name, low, high in CEILINGS:
            ceiling = echo_of(rps, work.name, rows, name)
            if ceiling is not None:
                axis.plot([ceiling, ceiling], [low, high], color="black", linestyle=":", linewidth=1.5)
        axis.set_yticks(PLACES, [label for _, label, _ in MARKS], fontsize=9)
        axis.set_ylim(5.1, -0.6)
        axis.set_xscale("log")
        axis.set_title(f"{work.title}, {rows} row{'s' if rows > 1 else ''} per request", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[-1].set_xlabel("requests per second, logarithmic")
    axes[0].set_xlim(10 ** math.floor(math.log10(min(rps.values()))), max(rps.values()) * 2)
    machine = found["machine"]
    figure.suptitle(
        f"One core for the server, {CONNECTIONS} connections. × is against the naive app of the same framework "
        "(Flask: under gunicorn);\nthe dotted line is a bare echo, for Flask that of Granian. "
        f"{machine['cpu']}, Python {machine['python']}, {found['date'][:10]}",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def times(found: dict[tuple[str, int, str], Any], work: str, rows: int, name: str) -> str:
    """How many times the naive app, for a mark of Tandem: the same figure as in the table of targets."""
    against = {TANDEM_FASTAPI: NAIVE_FASTAPI, TANDEM_FLASK: NAIVE_FLASK}.get(name)
    naive = found.get((work, rows, against)) if against else None
    if naive is None:
        return ""
    pair = zip(found[work, rows, name]["runs"], naive["runs"], strict=True)
    ratio = statistics.median(ours["rps"] / theirs["rps"] for ours, theirs in pair)
    return f"   {ratio:.0f} ×" if ratio >= 10 else f"   {ratio:.1f} ×"


def echo_of(rps: dict[tuple[str, int, str], float], work: str, rows: int, name: str) -> float | None:
    """The echo was measured once for each kind of body."""
    route = WORKS[work].route
    same = (other.name for other in WORKS.values() if other.route == route and (other.name, rows, name) in rps)
    echoed = next(same, None)
    return None if echoed is None else rps[echoed, rows, name]


if __name__ == "__main__":
    main()
