"""From how many rows on a GPU is faster than the CPU, by model. `python -m benchmarks.gpu_crossover`

Each engine of a model answers batches of 1 to 100 000 rows in this process, and must agree with the
estimator before it is timed. Without a usable GPU it says why, measures nothing and writes nothing;
`--device cpu` tries the script with nvForest's CPU mode and does not write either.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.core.agreement import largest_difference
from service.core.contracts import Engine
from service.core.errors import CannotAnswer, TandemError
from service.core.table import Matrix
from service.device.host import prepare_gpu
from service.loading.engines import open_engine
from service.runtimes.cuml import open_cuml
from service.runtimes.describe import Described, describe
from service.runtimes.device import Device, probe
from service.runtimes.estimator import EstimatorEngine
from service.runtimes.nvforest import open_nvforest
from training.compile.onnx import compile_onnx
from training.compile.treelite import compile_treelite

RESULTS: Final = Path(__file__).parent / "results" / "gpu_crossover.json"
ROWS: Final = (1, 8, 64, 512, 4096, 32_768, 100_000)
COLUMNS: Final = 30
# The best of repeats within this time; a batch that takes longer is asked once more after the warm-up.
BUDGET_S: Final = 0.5
# Of the same answer: single precision, with room for sums.
CLOSE: Final = 1e-5
# A GPU wins from the first number of rows at which it is faster by this factor.
CLEARLY: Final = 1.2
ON_GPU: Final = ("nvforest", "cuml")
LIBRARIES: Final = ("scikit-learn", "onnxruntime", "treelite", "nvforest-cu13", "cuml-cu13", "cupy-cuda13x", "numpy")


@dataclass(frozen=True, slots=True)
class Timed:
    """One call of one engine. `us` is the shortest of several, in microseconds."""

    model: str
    engine: str
    output: str
    rows: int
    us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--only", default="", help="models whose name has this in it")
    parser.add_argument("--most-rows", type=int, default=ROWS[-1])
    options = parser.parse_args()
    card = probe() if options.device == "gpu" else Device(name="none: nvForest's CPU mode")
    if options.device == "gpu":
        if not card.usable:
            sys.exit(f"nothing is measured without a GPU: {card.reason}")
        prepare_gpu()
    counts = [count for count in ROWS if count <= options.most_rows]
    rows = np.random.default_rng(0).normal(size=(counts[-1], COLUMNS))
    timed = [
        one
        for name, fit in models().items()
        if options.only in name
        for one in measure(name, fit, rows, counts, options.device)
    ]
    won = crossovers(timed, counts)
    print("\n| model | a GPU engine wins from |\n|---|---|")
    for name, count in won.items():
        print(f"| {name} | {'never' if count is None else f'{count} rows'} |")
    if options.device == "gpu":
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report(card, timed, won), indent=2) + "\n")


def models() -> dict[str, Callable[[], Any]]:
    """What fits each model. Data are noise with something to learn in them; only times matter here."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import make_classification
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    X, y = make_classification(20_000, COLUMNS, n_informative=15, random_state=0)
    few, labels = X[:5000], y[:5000]
    # One thread: with several, a forest adds its trees up in another order at each call.
    forest = {"random_state": 0}
    return {
        "random forest of 100": lambda: RandomForestClassifier(100, **forest).fit(X, y),
        "random forest of 1000": lambda: RandomForestClassifier(1000, **forest).fit(few, labels),
        "regression forest of 100": lambda: RandomForestRegressor(100, **forest).fit(few, few[:, 0]),
        "histogram boosting": lambda: HistGradientBoostingClassifier(random_state=0).fit(X, y),
        "scaler and logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
        "ridge": lambda: Ridge().fit(X, X[:, 0]),
        "k-means of 64": lambda: KMeans(64, n_init=1, random_state=0).fit(X),
        "5 neighbours in 20 000": lambda: KNeighborsClassifier().fit(X, y),
        "svc on 5000": lambda: SVC().fit(few, labels),
        "pca to 10": lambda: PCA(10).fit(X),
    }


def measure(name: str, fit: Callable[[], Any], rows: Any, counts: list[int], device: str) -> Iterator[Timed]:
    """Times of every engine that agrees with the estimator; of the others, the reason is printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = fit()
        described = describe(estimator, rows[:200])
    offered = described.signature.output_names
    output = next(one for one in ("predict_proba", "transform", "predict") if one in offered)
    for engine_name, open_it in openers(estimator, described, device).items():
        try:
            engine = open_it()
            reason = disagreement(EstimatorEngine(estimator, described.signature), engine, rows[:512], output)
        except (TandemError, ImportError) as error:
            reason = str(error)
        if reason is not None:
            print(f"{name}: no {engine_name}: {reason}")
            continue
        for count in counts:
            us = shortest(engine, rows[:count], output) * 1e6
            print(f"{name:32s} {engine_name:12s} {count:7d} rows {us:12.1f} µs", flush=True)
            yield Timed(name, engine_name, output, count, round(us, 1))


def openers(estimator: Any, described: Described, device: Any) -> dict[str, Callable[[], Engine]]:
    """By the engine's name, what opens it. The CPU's have all cores."""
    signature, sample = described.signature, described.sample
    threads = os.cpu_count() or 1
    found: dict[str, Callable[[], Engine]] = {"estimator": lambda: EstimatorEngine(estimator, signature)}
    for compiler in (compile_onnx, compile_treelite):
        for one in compiler(estimator, signature, sample).candidates:
            given = (one.files, signature, one.options)
            found[one.name] = partial(open_engine, one.runtime, *given, threads=threads)
            if one.runtime == "treelite":
                found["nvforest"] = partial(open_nvforest, *given, threads, device)
    if device == "gpu":
        found["cuml"] = partial(open_cuml, {}, signature, {}, open_estimator=lambda: estimator)
    return found


def disagreement(reference: Engine, engine: Engine, rows: Any, output: str) -> str | None:
    """In words, or None. Rows that the engine passes on count as equal: it will not answer them."""
    expected = reference.run(Matrix(rows.copy()), (output,))[output]
    try:
        got, sure = engine.run(Matrix(rows.copy()), (output,))[output], np.ones(len(rows), dtype=bool)
    except CannotAnswer as error:
        sure = ~error.rows
        got = engine.run(Matrix(rows[sure]), (output,))[output]
    found = largest_difference(np.asarray(expected)[sure].tolist(), np.asarray(got).tolist())
    return None if found.size <= CLOSE else found.where


def shortest(engine: Engine, rows: Any, output: str) -> float:
    """Seconds of the quickest call, after one that warms up. What is passed on to another engine is not counted."""
    best, begun = float("inf"), time.perf_counter()
    for call in range(1_000_000):
        given = Matrix(rows.copy())
        start = time.perf_counter()
        with suppress(CannotAnswer):
            engine.run(given, (output,))
        now = time.perf_counter()
        if call:
            best = min(best, now - start)
            if now - begun > BUDGET_S:
                break
    return best


def crossovers(timed: list[Timed], counts: list[int]) -> dict[str, int | None]:
    """By model, the least number of rows from which on the best GPU engine clearly beats the best of the CPU."""
    won: dict[str, int | None] = {}
    for model in dict.fromkeys(one.model for one in timed):
        wins = []
        for count in counts:
            here = [one for one in timed if (one.model, one.rows) == (model, count)]
            gpu = min((one.us for one in here if one.engine in ON_GPU), default=float("inf"))
            cpu = min(one.us for one in here if one.engine not in ON_GPU)
            wins.append(gpu * CLEARLY < cpu)
        beaten = [index for index, wins_here in enumerate(wins) if not wins_here]
        first = beaten[-1] + 1 if beaten else 0
        won[model] = counts[first] if first < len(counts) else None
    return won


def report(card: Device, timed: list[Timed], won: dict[str, int | None]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": card.name,
        "driver": card.driver,
        "compute_capability": card.compute_capability,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "wins_from_rows": won,
        "timed": [asdict(one) for one in timed],
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
