"""Fitting on a GPU with cuML, and coming back with a scikit-learn model.

The steps before the last one are fitted on the CPU as always. The last one is fitted by its cuML twin and
converted at once, so that what is scored and exported is scikit-learn's own class: the same folder serves
on a machine without a GPU, and the engines for the CPU are compiled from it like any other.
"""

from __future__ import annotations

import copy
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.core.errors import TandemError
from service.runtimes.cuml import TWINS
from service.runtimes.structure import estimator_name

# Of the twins, those that are fitted to a target and convert back.
FITTED: Final = tuple(name for name, twin in TWINS.items() if twin.method != "transform")
# cuML's forests compare single precision, as scikit-learn's do when they answer: thresholds must be of that kind.
SINGLE: Final = ("RandomForestClassifier", "RandomForestRegressor")


class GpuRefused(TandemError):
    """There is no GPU to fit on, or cuML does not fit such a model. The same command with --device cpu works."""

    title = "Not on this GPU"


def require_gpu() -> str:
    """The name of the card. Neither CUDA nor cuML is loaded into this process.

    Raises:
        GpuRefused: there is none that can be used, or cuML is not installed.
    """
    if find_spec("cuml") is None:
        raise GpuRefused("--device gpu needs cuML, which is not installed: pip install 'tandem-serving[gpu]'")
    from service.runtimes.device import probe

    found = probe()
    if not found.usable:
        raise GpuRefused(f"--device gpu needs a GPU: {found.reason}. Fit with --device cpu")
    return str(found.name)


def estimator_on_gpu(name: str) -> str:
    """The friendly name that `auto` stands for on a GPU: cuML has forests, and no boosting."""
    return "random-forest" if name == "auto" else name


def fit_on_gpu(model: Any, X: pd.DataFrame, y: NDArray[Any]) -> tuple[Any, list[str]]:
    """`model` fitted to X and y, its last step by cuML; and notes for a person.

    Returns a new model of scikit-learn classes alone. The one that is given is not changed.

    Raises:
        GpuRefused: cuML has no twin of the last step, does not know a setting, or refuses the rows.
    """
    from sklearn.base import clone
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    unfitted = clone(model)
    steps = [step for _, step in unfitted.steps] if hasattr(unfitted, "steps") else [unfitted]
    before, last = steps[:-1], steps[-1]
    twin = _twin(last, y)
    dtype = "float32" if type(last).__name__ in SINGLE else "float64"
    notes = []
    rows: Any = X
    for step in before:
        rows = step.fit_transform(rows, y)
    if np.isnan(_dense(rows, dtype)).any():
        # scikit-learn's forests split on what is missing; cuML refuses it.
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        rows = imputer.fit_transform(rows)
        before.append(imputer)
        notes.append("cuML takes no missing values: they became the median of their column")
    fitted = _fitted(twin, last, _dense(rows, dtype), y)
    if before:
        return make_pipeline(*before, fitted), notes
    fitted.feature_names_in_ = np.asarray(X.columns, dtype=object)
    return fitted, notes


def _twin(estimator: Any, y: NDArray[Any]) -> Any:
    """The unfitted cuML estimator with the settings of `estimator`."""
    name = type(estimator).__name__
    if name not in FITTED or not type(estimator).__module__.startswith("sklearn."):
        raise GpuRefused(f"cuML does not fit {name}; on a GPU there are {', '.join(FITTED)}")
    if name == "SVC" and len(np.unique(y)) > 2:
        raise GpuRefused("cuML's SVC of more than two classes cannot be converted back; fit it with --device cpu")
    module, _, kind = TWINS[name].path.rpartition(".")
    asked = copy.copy(estimator)
    if isinstance(getattr(asked, "class_weight", None), dict):
        # The device sees numbers for classes, in the order of the classes.
        asked.class_weight = {code: asked.class_weight.get(label, 1.0) for code, label in enumerate(np.unique(y))}
    try:
        twin = getattr(import_module(module), kind).from_sklearn(asked)
    except ValueError as error:  # UnsupportedOnGPU is one
        raise GpuRefused(f"cuML does not fit {name} like this: {error}") from error
    if "n_streams" in twin.get_params():
        # Several streams finish in any order, and the same data shall give the same model.
        twin.set_params(n_streams=1)
    return twin


def _fitted(twin: Any, estimator: Any, values: NDArray[Any], y: NDArray[Any]) -> Any:
    """The scikit-learn estimator that `twin` becomes once it is fitted."""
    from sklearn.base import is_classifier

    classes = None
    if is_classifier(estimator):
        # Texts never reach the device: cuML would need cuDF for them.
        classes, codes = np.unique(y, return_inverse=True)
        target = codes.astype(np.int32)
    else:
        target = np.asarray(y, dtype=values.dtype)
    try:
        twin.fit(values, target)
        fitted = twin.as_sklearn()
    # By these three cuML says that it refuses rows or settings (UnsupportedOnGPU is a ValueError); what the
    # device itself raises passes through.
    except (ValueError, TypeError, NotImplementedError) as error:
        raise GpuRefused(f"cuML cannot fit {estimator_name(estimator)}: {error}") from error
    if classes is not None:
        fitted.classes_ = classes
        if hasattr(estimator, "class_weight"):
            fitted.class_weight = estimator.class_weight
    return fitted


def _dense(rows: Any, dtype: str) -> NDArray[Any]:
    """Of shape (rows, columns), as a device takes it."""
    dense = rows.toarray() if hasattr(rows, "toarray") else rows
    values: NDArray[Any] = np.ascontiguousarray(dense, dtype=dtype)
    return values
