from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, IsolationForest, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from service.runtimes.threads import LARGEST, one_job, set_jobs
from tests.faults.cases import fault

_RANDOM = np.random.default_rng(0)
_X = _RANDOM.random((60, 4))
_Y = (_X[:, 0] > 0.5).astype(int)

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="threads are counted in Linux's /proc")

# Started anew for each test: limits are the process's own, and some hold from the loading of a library on.
_BEGIN = """
import sys, threading
import numpy as np
from service.runtimes.threads import limit_libraries, limit_this_thread, set_jobs

def threads():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))

def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

# So many OpenMP would use by itself, on a machine of any size.
import os
os.environ["OMP_NUM_THREADS"] = "4"
rows = np.random.default_rng(0).random((20_000, 4))
labels = rows[:, 0] > 0.5
"""

_BOOSTING = """
from sklearn.ensemble import HistGradientBoostingClassifier
"""


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _BEGIN + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _models() -> dict[str, Any]:
    def forest() -> RandomForestClassifier:
        return RandomForestClassifier(3, n_jobs=-1)

    scale = make_column_transformer((FeatureUnion([("s", StandardScaler())], n_jobs=2), [0, 1, 2, 3]), n_jobs=2)
    return {
        "forest": forest(),
        "pipeline": make_pipeline(scale, forest()),
        "search": GridSearchCV(forest(), {"max_depth": [2]}, cv=2, n_jobs=1),
        "one against the rest": OneVsRestClassifier(forest(), n_jobs=1),
        "calibrated": CalibratedClassifierCV(forest(), cv=2, n_jobs=1),
        "stack": StackingClassifier(
            [("a", forest()), ("b", make_pipeline(scale, KNeighborsClassifier(n_jobs=-1)))], forest(), cv=2
        ),
        "bag": BaggingClassifier(forest(), 2, n_jobs=1),
        "isolation": make_pipeline(StandardScaler(), IsolationForest(n_estimators=3, n_jobs=-1)),
        "xgboost": xgboost.XGBClassifier(n_estimators=2, n_jobs=4),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=2, n_jobs=4, min_child_samples=2, verbose=-1),
    }


def _jobs(item: Any, seen: set[int]) -> list[int]:
    """Every `n_jobs` anywhere below `item`, found by brute force."""
    if id(item) in seen or isinstance(item, str | type):
        return []
    seen.add(id(item))
    found = [value for name, value in getattr(item, "__dict__", {}).items() if name == "n_jobs"]
    inside: list[Any] = list(getattr(item, "__dict__", {}).values())
    if isinstance(item, dict):
        inside += item.values()
    elif isinstance(item, list | tuple):
        inside += item
    return found + [jobs for part in inside for jobs in _jobs(part, seen)]


@pytest.mark.parametrize("name", _models())
def test_every_estimator_inside_is_reached(name: str) -> None:
    with joblib.parallel_config(backend="threading"):  # processes would take long to start
        model = _models()[name].fit(_X, _Y)
    before = model.predict(_X)
    assert set(_jobs(model, set())) - {1}

    set_jobs(model, 1)

    assert set(_jobs(model, set())) == {1}
    assert (model.predict(_X) == before).all()


def test_booster_inside_xgboost_obeys() -> None:
    model = xgboost.XGBClassifier(n_estimators=2, n_jobs=4).fit(_X, _Y)

    set_jobs(model, 1)

    assert '"nthread":"1"' in model.get_booster().save_config()


def test_estimator_with_parameters_of_its_own_mind_is_left_as_it_is() -> None:
    class Odd:
        """Refuses to tell its parameters, and contains itself."""

        def __init__(self) -> None:
            self.me = [self]
            self.n_jobs = 7

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            raise RuntimeError

        def __setattr__(self, name: str, value: Any) -> None:
            assert name not in vars(self), "set once"
            super().__setattr__(name, value)

        def predict(self, rows: Any) -> Any:
            return rows

    odd = Odd()

    set_jobs(make_pipeline(FunctionTransformer(), odd), 1)

    assert odd.n_jobs == 1


@pytest.mark.parametrize("data", [list(range(LARGEST + 1)), {}, np.array(1), np.array([LogisticRegression(n_jobs=5)])])
def test_data_beside_estimators_does_no_harm(data: Any) -> None:
    model = LogisticRegression(n_jobs=3)
    model.data_ = data

    set_jobs(model, 1)

    assert model.n_jobs == 1
    assert not isinstance(data, np.ndarray) or data.ndim == 0 or data[0].n_jobs == 1


def test_members_in_an_array_are_reached() -> None:
    model = LogisticRegression()
    model.members_ = np.array([[LogisticRegression(n_jobs=5)]])

    set_jobs(model, 1)

    assert model.members_[0, 0].n_jobs == 1


@fault("B18", sent="a forest with n_jobs=-1", expected="no thread of its own")
@needs_proc
@pytest.mark.parametrize(("jobs", "grows"), [("1", False), ("4", True)])
def test_forest_that_was_fitted_with_all_cores_brings_no_threads(jobs: str, grows: bool) -> None:
    code = f"""
from sklearn.ensemble import RandomForestClassifier
limit_libraries(1)
forest = RandomForestClassifier(8, n_jobs=-1).fit(rows[:50], labels[:50])
set_jobs(forest, {jobs})
before = threads()
most = []
import joblib.parallel
class Watching(type(forest.estimators_[0])):
    def predict_proba(self, X, check_input=True):
        most.append(threads())
        return super().predict_proba(X, check_input)
for tree in forest.estimators_:
    tree.__class__ = Watching
forest.predict(rows)
print(max(most) > before)
"""

    assert _run(code) == [str(grows)]


@fault("B18", sent="libraries that compute with OpenMP", expected="threads within the budget")
@needs_proc
@pytest.mark.parametrize(
    ("code", "grows"),
    [
        pytest.param(_BOOSTING + "{fit}; in_a_thread({predict})", True, id="without a limit"),
        pytest.param("limit_libraries(1)" + _BOOSTING + "{fit}; in_a_thread({predict})", False, id="loaded later"),
        pytest.param(
            _BOOSTING + "{fit}; limit_libraries(1); in_a_thread(lambda: (limit_this_thread(), ({predict})()))",
            False,
            id="loaded before",
        ),
    ],
)
def test_threads_of_openmp_are_within_the_budget(code: str, grows: bool) -> None:
    # Fitted on few rows, then on one thread: the pool that a fit leaves behind must not be counted.
    fit = "model = HistGradientBoostingClassifier(max_iter=2).fit(rows[:100], labels[:100]); before = threads()"
    predict = "lambda: (model.predict(rows), found.append(threads()))"
    whole = code.format(fit="found = []; " + fit, predict=predict) + "\nprint(found[0] > before + 1)"

    assert _run(whole) == [str(grows)]


def test_threads_of_linear_algebra_are_within_the_budget() -> None:
    code = """
limit_libraries(1)
from threadpoolctl import threadpool_info
print(max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"))
limit_libraries(2)
import os
print(os.environ["OMP_NUM_THREADS"])
"""

    assert _run(code) == ["1", "2"]


def test_nothing_is_limited_before_anybody_said_so() -> None:
    code = """
import os
limit_this_thread()
print(os.environ["OMP_NUM_THREADS"])
"""

    assert _run(code) == ["4"]


def test_one_job_is_for_a_while_and_for_every_part() -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(2, n_jobs=3)).fit(_X, _Y)
    stacked = BaggingClassifier(KNeighborsClassifier(n_jobs=5), 2, n_jobs=2).fit(_X, _Y)

    with one_job([model, stacked]):
        within = [model[-1].n_jobs, stacked.n_jobs, stacked.estimators_[0].n_jobs]

    assert within == [1, 1, 1]
    assert [model[-1].n_jobs, stacked.n_jobs, stacked.estimators_[0].n_jobs] == [3, 2, 5]


def test_jobs_are_what_they_were_after_a_failure() -> None:
    forest = RandomForestClassifier(2, n_jobs=3).fit(_X, _Y)

    with pytest.raises(ZeroDivisionError), one_job(forest):
        raise ZeroDivisionError

    assert forest.n_jobs == 3
