"""cuML's manners without a GPU: what its documentation and its source say of the classes that are served.

A class converts fitted estimators of one scikit-learn class, refuses settings of the fit that it does not
know, checks every batch for numbers that are not finite, and computes in the precision of the model;
neighbours are searched in float32. The numbers come from scikit-learn.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors

from service.runtimes.cuml import TWINS

# Settings that cuML 26.10 converts only where they have this value; the others it takes or ignores.
ONLY: dict[str, Any] = {
    "warm_start": False,
    "positive": False,
    "precompute": False,
    "intercept_scaling": 1,
    "ccp_alpha": 0.0,
    "monotonic_cst": None,
    "min_weight_fraction_leaf": 0.0,
    "multi_class": "ovr",
}


class UnsupportedOnGPU(ValueError):
    pass


class FakeTwin:
    """A cuML estimator. `calls` are the arrays that its methods were given, of all of its kind."""

    name: ClassVar[str]
    calls: ClassVar[list[tuple[str, np.ndarray[Any, Any]]]] = []

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def _params_from_cpu(cls, model: Any) -> dict[str, Any]:
        for setting, value in ONLY.items():
            if getattr(model, setting, value) != value:
                raise UnsupportedOnGPU(f"`{setting}={getattr(model, setting)!r}` is not supported")
        settings = [getattr(model, name, None) for name in ("max_samples", "init", "n_components", "class_weight")]
        if isinstance(settings[0], int) or callable(settings[1]) or settings[2] == "mle":
            raise UnsupportedOnGPU("not supported")
        if settings[3] == "balanced_subsample":
            raise UnsupportedOnGPU("`class_weight='balanced_subsample'` is not supported")
        params: dict[str, Any] = model.get_params(deep=False)
        return params

    @classmethod
    def from_sklearn(cls, model: Any) -> FakeTwin:
        if type(model).__name__ != cls.name:
            raise TypeError(f"Expected {cls.name}, got {type(model).__name__}")
        cls._params_from_cpu(model)
        return cls(model)

    # -- fitting: the settings of cuML's own, and what is fitted to

    def get_params(self) -> dict[str, Any]:
        return {**self._model.get_params(), **({"n_streams": 4} if "RandomForest" in self.name else {})}

    def set_params(self, n_streams: int) -> None:
        self.streams = n_streams

    def fit(self, rows: Any, target: Any) -> None:
        self._check("fit", rows)
        assert target.dtype.kind in "fi", "only numbers may reach the device"
        self._model = clone(self._model).fit(rows, target)

    def as_sklearn(self) -> Any:
        return self._model

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_") or method == "get":
            raise AttributeError(method)

        def ask(rows: Any) -> Any:
            self._check(method, rows)
            return getattr(self._model, method)(rows)

        return ask

    def kneighbors(self, rows: Any, n_neighbors: int, return_distance: bool) -> Any:
        self._check("kneighbors", rows)
        model = self._model
        points = model._fit_X.astype(np.float32)
        index = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute", metric=model.metric, p=model.p).fit(points)
        distances, indices = index.kneighbors(rows.astype(np.float32))
        return distances.astype(np.float32), indices

    def _check(self, method: str, rows: Any) -> None:
        dense = rows.data if hasattr(rows, "tocsr") else rows
        assert dense.dtype.kind == "f", "only numbers may reach the device"
        if not np.isfinite(dense).all():
            raise ValueError("Input contains NaN or infinity")
        self.calls.append((method, rows))


@pytest.fixture
def cuml(monkeypatch: pytest.MonkeyPatch) -> type[FakeTwin]:
    """The modules of cuML are there, with fakes in them."""
    return install(monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch) -> type[FakeTwin]:
    """Put the fakes where cuML's classes are looked for, until `monkeypatch` is undone."""
    FakeTwin.calls.clear()
    for name, twin in TWINS.items():
        path, _, kind = twin.path.rpartition(".")
        for module in ("cuml", path):
            if module not in sys.modules:
                monkeypatch.setitem(sys.modules, module, ModuleType(module))
                sys.modules[module].__spec__ = ModuleSpec(module, None)
        monkeypatch.setattr(sys.modules[path], kind, type(kind, (FakeTwin,), {"name": name}), raising=False)
    return FakeTwin
