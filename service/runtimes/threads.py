"""One thread budget for the process: what computes is a thread of ours, and brings no others along.

Three kinds of libraries start threads of their own. Linear algebra (OpenBLAS, MKL, BLIS) has one pool for
the process. OpenMP (histogram boosting, XGBoost, LightGBM) has a limit for each thread that calls it, which
begins as OMP_NUM_THREADS was when the library was loaded. joblib asks the estimator's `n_jobs`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

# Read by libraries when they are loaded.
VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

# Larger containers hold data (a vocabulary, training rows), not estimators: no ensemble has so many members
# with threads of their own.
LARGEST: Final = 10_000

# What makes an object worth looking into: estimators, and the parts of ensembles that are none in name.
METHODS: Final = ("get_params", "predict", "predict_proba", "decision_function", "transform", "score_samples")


class _Limit:
    """Threads for each call, None before anybody said. `current` is another object after every change."""

    current: _Limit | None = None

    def __init__(self, threads: int) -> None:
        self.threads = threads


_obeyed = threading.local()


def limit_libraries(threads: int) -> None:
    """From now on each call into a numeric library uses `threads` threads at most.

    Reaches libraries that are loaded, and those that are loaded later. Of OpenMP libraries that are loaded
    already, only the calls of this thread, and of those that call `limit_this_thread`. Call it again after
    an estimator was opened: its libraries may have been loaded by somebody else, with other limits.
    """
    for name in VARIABLES:
        os.environ[name] = str(threads)
    _Limit.current = _Limit(threads)
    limit_this_thread()


def limit_this_thread() -> None:
    """Let the OpenMP calls of this thread obey, too. Costs a look after the first time."""
    limit = _Limit.current
    if limit is not None and getattr(_obeyed, "limit", None) is not limit:
        threadpool_limits(limit.threads)
        _obeyed.limit = limit


def set_jobs(estimator: Any, jobs: int) -> None:
    """Set `n_jobs` of `estimator` and of every estimator within it, fitted or not, to `jobs`.

    With 1, joblib starts neither threads nor processes. It is set where every estimator keeps it, rather than
    by `set_params`, which reaches no fitted member of an ensemble and can refuse.
    """
    for part in _parts(estimator):
        if "n_jobs" in vars(part):
            vars(part)["n_jobs"] = jobs
        # XGBoost's estimators keep their model apart, with its own idea of threads.
        booster = vars(part).get("_Booster")
        if type(booster).__module__ == "xgboost.core":
            booster.set_param({"nthread": jobs})


@contextmanager
def one_job(estimator: Any) -> Iterator[None]:
    """Within it, `n_jobs` is 1 in all of `estimator`, and afterwards what it was.

    Several threads add up a forest's trees in whatever order they finish, so that its last digits change
    from call to call.
    """
    before = [(part, part.n_jobs) for part in _parts(estimator) if "n_jobs" in vars(part)]
    try:
        for part, _ in before:
            part.n_jobs = 1
        yield
    finally:
        for part, jobs in before:
            part.n_jobs = jobs


def _parts(estimator: Any) -> Iterator[Any]:
    """Every estimator-like object that can be reached from `estimator`, itself first, each once."""
    seen: set[int] = set()
    left = [estimator]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict | list | tuple | np.ndarray):
            left.extend(_members(item))
        elif _is_part(item):
            yield item
            left.extend(vars(item).values())


def _members(container: Any) -> Iterable[Any]:
    if isinstance(container, np.ndarray):
        return container.ravel() if container.dtype == object and container.size <= LARGEST else ()
    if len(container) > LARGEST:
        return ()
    return container.values() if isinstance(container, dict) else container


def _is_part(item: Any) -> bool:
    return hasattr(item, "__dict__") and any(hasattr(type(item), name) for name in METHODS)
