"""cuML on a GPU: the arithmetic of an estimator's last step there, scikit-learn's own code around it.

One method of each family runs on the device: scores, distances, a search. What follows from it, labels
among it, is computed on the host by scikit-learn, which is handed the device's numbers in place of its
own. So classes, dtypes and ties are the estimator's, and no text ever reaches the device.

cuML needs the estimator itself. Whether its file may be opened is decided elsewhere; this module is given
a function that opens it. cuML is imported when an engine is opened, in the process that owns the GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import CannotAnswer, ModelFailed, RowsRefused
from service.core.signature import Signature
from service.core.table import Table, Values
from service.runtimes.cuml_neighbours import Neighbours
from service.runtimes.estimator_input import input_builder
from service.runtimes.structure import is_search, shared_steps

PROBABILITIES: Final = ("predict", "predict_proba", "predict_log_proba")


@dataclass(frozen=True, slots=True)
class Twin:
    """The cuML class of a scikit-learn estimator.

    `method` is the one that runs on the device, `outputs` are what follows from it. `reset` are settings
    that matter to a fit alone and that cuML refuses: they get these values on a copy. `cast` is what the
    estimator itself makes of its rows before anything else; None leaves them in their own precision.
    """

    path: str
    method: str
    outputs: tuple[str, ...]
    reset: Mapping[str, Any] = field(default_factory=dict)
    cast: str | None = None
    takes_sparse: bool = False


_FOREST: Final = {
    "warm_start": False, "ccp_alpha": 0.0, "max_samples": None, "min_weight_fraction_leaf": 0.0,
    "monotonic_cst": None, "oob_score": False, "random_state": None,
}  # fmt: skip
_SVM: Final = {"cache_size": 200, "random_state": None, "class_weight": None}
_LASSO: Final = {"positive": False, "warm_start": False, "precompute": False}

# By the name of the scikit-learn class. A subclass may have changed anything, so only these very classes count.
TWINS: Final[dict[str, Twin]] = {
    "LinearRegression": Twin(
        "cuml.linear_model.LinearRegression", "predict", ("predict",), {"positive": False}, takes_sparse=True
    ),
    "Ridge": Twin(
        "cuml.linear_model.Ridge", "predict", ("predict",), {"positive": False, "solver": "auto"}, takes_sparse=True
    ),
    "Lasso": Twin("cuml.linear_model.Lasso", "predict", ("predict",), _LASSO, takes_sparse=True),
    "ElasticNet": Twin("cuml.linear_model.ElasticNet", "predict", ("predict",), _LASSO, takes_sparse=True),
    "LogisticRegression": Twin(
        "cuml.linear_model.LogisticRegression",
        "decision_function",
        (*PROBABILITIES, "decision_function"),
        {"warm_start": False, "intercept_scaling": 1, "class_weight": None},
        takes_sparse=True,
    ),
    "LinearSVC": Twin(
        "cuml.svm.LinearSVC",
        "decision_function",
        ("predict", "decision_function"),
        {"intercept_scaling": 1, "multi_class": "ovr", "class_weight": None},
        takes_sparse=True,
    ),
    "LinearSVR": Twin("cuml.svm.LinearSVR", "predict", ("predict",), {"intercept_scaling": 1}, takes_sparse=True),
    # Only two classes; probabilities of SVC come from a second model that cuML does not have.
    "SVC": Twin("cuml.svm.SVC", "decision_function", ("predict", "decision_function"), {**_SVM, "probability": False}),
    "SVR": Twin("cuml.svm.SVR", "predict", ("predict",), {"cache_size": 200}),
    "KernelRidge": Twin("cuml.kernel_ridge.KernelRidge", "predict", ("predict",), {"kernel_params": None}),
    "KMeans": Twin(
        "cuml.cluster.KMeans", "transform", ("predict", "transform"), {"init": "random", "random_state": None}
    ),
    "KNeighborsClassifier": Twin("cuml.neighbors.KNeighborsClassifier", "kneighbors", ("predict", "predict_proba")),
    "KNeighborsRegressor": Twin("cuml.neighbors.KNeighborsRegressor", "kneighbors", ("predict",)),
    "PCA": Twin(
        "cuml.decomposition.PCA", "transform", ("transform",), {"svd_solver": "auto", "iterated_power": "auto"}
    ),
    "TruncatedSVD": Twin("cuml.decomposition.TruncatedSVD", "transform", ("transform",)),
    "RandomForestClassifier": Twin(
        "cuml.ensemble.RandomForestClassifier",
        "predict_proba",
        PROBABILITIES,
        {**_FOREST, "criterion": "gini", "class_weight": None},
        cast="float32",
    ),
    "RandomForestRegressor": Twin(
        "cuml.ensemble.RandomForestRegressor",
        "predict",
        ("predict",),
        {**_FOREST, "criterion": "squared_error"},
        cast="float32",
    ),
}


def open_cuml(
    files: Mapping[str, bytes],
    signature: Signature,
    options: Mapping[str, Any],
    threads: int = 1,
    *,
    open_estimator: Callable[[], Any],
) -> CumlEngine:
    """The engine of the estimator that `open_estimator` gives. It has no files or options of its own.

    Raises:
        EstimatorUnusable: cuML has no twin of it, or refuses the conversion; the message says why.
        What `open_estimator` raises, and what CUDA raises where there is no GPU.
    """
    front, last = split(open_estimator())
    if (reason := refusal(last)) is not None:
        raise EstimatorUnusable(reason)
    twin = TWINS[type(last).__name__]
    ready = prepared(last)
    search = Neighbours(last, signature) if twin.method == "kneighbors" else None
    if search is not None:
        ready._fit_X = search.narrowed()
    module, _, name = twin.path.rpartition(".")
    try:
        device = getattr(import_module(module), name).from_sklearn(ready)
    except ValueError as error:  # UnsupportedOnGPU is one
        raise EstimatorUnusable(f"cuML refuses {type(last).__name__}: {error}") from error
    return CumlEngine(front, last, twin, device, search, signature)


def split(estimator: Any) -> tuple[Any | None, Any]:
    """The steps that stay on the CPU, None where there are none, and the step that goes to the GPU."""
    if is_search(estimator):
        estimator = estimator.best_estimator_
    parts = shared_steps(estimator)
    return (None, estimator) if parts is None else parts


def refusal(estimator: Any) -> str | None:
    """Why this fitted estimator cannot be answered for by cuML, or None. Asks neither cuML nor a GPU."""
    name = type(estimator).__name__
    if name not in TWINS or not type(estimator).__module__.startswith("sklearn."):
        return f"cuML has no twin of {name}"
    match name:
        case "SVC" if len(estimator.classes_) > 2:
            return "cuML converts SVC for two classes only"
        case "SVC" | "SVR" | "KernelRidge" if not isinstance(estimator.kernel, str):
            return "cuML takes no kernel that is a function"
        case "SVC" | "SVR" | "KernelRidge" if estimator.kernel == "precomputed":
            return "a precomputed kernel has no rows to send"
        case "KernelRidge" if not isinstance(estimator.X_fit_, np.ndarray):
            return "cuML converts KernelRidge only where it was fitted on dense rows"
        case "PCA" if estimator.whiten:
            return "cuML's whitening PCA scales by the rows of the batch at hand, not by those of the fit"
        case "KNeighborsClassifier" | "KNeighborsRegressor":
            return Neighbours.refusal(estimator)
        case "RandomForestClassifier" | "RandomForestRegressor" if estimator.n_outputs_ > 1:
            return "cuML's forests have one target"
        case "Lasso" | "ElasticNet" if np.ndim(estimator.coef_) > 1:
            return f"cuML's {name} has one target"
    return None


def prepared(estimator: Any) -> Any:
    """A shallow copy that cuML converts: settings of the fit alone are back at their defaults."""
    ready = copy.copy(estimator)
    for name, value in TWINS[type(estimator).__name__].reset.items():
        if hasattr(ready, name):
            setattr(ready, name, value)
    # Rows come without names, which cuML would remark on at each call.
    vars(ready).pop("feature_names_in_", None)
    if type(estimator).__name__ == "PCA":
        ready.n_components = estimator.n_components_  # "mle" and shares of the variance end up as a number
    return ready


class CumlEngine:
    """Answers `outputs`, of which the signature may name more. Its calls come one by one.

    What CUDA raises (out of memory, a lost device) is raised as it is: the process that owns the GPU
    tells them apart, because after some of them nothing works any more.
    """

    is_reentrant: Final = False

    def __init__(
        self, front: Any | None, last: Any, twin: Twin, device: Any, search: Neighbours | None, signature: Signature
    ) -> None:
        self._front = front
        self._last = last
        self._twin = twin
        self._device = device
        self._search = search
        self._build = input_builder(signature)
        self._outputs = {output.name: output for output in signature.outputs}
        self.outputs = tuple(name for name in twin.outputs if name in self._outputs)

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """See `core.contracts.Engine`. One call of the device serves all outputs."""
        data, refused = self._hold(self._features(rows))
        found: Any
        unsure: NDArray[np.bool_] | None
        if self._search is not None:
            found, unsure = self._search.find(self._device, data)
        else:
            found = on_host(getattr(self._device, self._twin.method)(data))
            unsure = _too_close(found, self._last) if "predict" in outputs else None
        with np.errstate(all="ignore"):
            answers = {name: self._derive(name, found, data) for name in outputs}
        if unsure is not None and unsure.any():
            raise CannotAnswer("two labels or neighbours are too close to tell apart", refused | unsure, answers)
        if refused.any():
            raise CannotAnswer("a value is not a finite number in the precision of the device", refused, answers)
        return answers

    def _features(self, rows: Table) -> Any:
        """The input of the last step, as an array or a sparse matrix."""
        try:
            with np.errstate(all="ignore"):
                data = self._build(rows)
                if self._front is not None:
                    data = self._front.transform(data)
        except ValueError as error:
            raise RowsRefused from error
        except Exception as error:
            raise ModelFailed from error
        if hasattr(data, "tocsr"):
            return data.tocsr() if self._twin.takes_sparse else data.toarray()
        return data.to_numpy() if hasattr(data, "to_numpy") else np.asarray(data)

    def _hold(self, data: Any) -> tuple[Any, NDArray[np.bool_]]:
        """The data as the device takes it, and a mask of shape (rows,): these are zeros instead.

        cuML refuses a whole batch for one missing or infinite number in it.
        """
        if hasattr(data, "tocsr"):
            bad = np.zeros(data.shape[0], dtype=bool)
            if not np.isfinite(data.data).all():
                bad[np.unique(data.tocoo().row[~np.isfinite(data.data)])] = True
                data = data.copy()
                data.data[~np.isfinite(data.data)] = 0
            return data, bad
        with np.errstate(over="ignore"):
            wanted = self._twin.cast or ("float64" if data.dtype.kind != "f" else data.dtype)
            held = data.astype(wanted)
        bad = ~np.isfinite(held).all(axis=1)
        held[bad] = 0
        return held, bad

    def _derive(self, name: str, found: Any, data: Any) -> Values:
        """One output from what the device found, by the estimator's own code."""
        kind = type(self._last).__name__
        if name == self._twin.method:
            return self._shaped(name, found)
        if kind == "SVC":  # libsvm decides by a vote of one; scikit-learn's sign is the other way round
            labels: NDArray[Any] = self._last.classes_[(found >= 0).astype(np.intp)]
            return labels
        if kind == "KMeans":
            return self._shaped(name, found.argmin(axis=1))
        host = copy.copy(self._last)
        if self._search is not None:
            host._fit_method = "ball_tree"  # "brute" would take a short cut past kneighbors
            host.kneighbors = lambda X, return_distance=True: found if return_distance else found[1]
        else:
            # A copy: softmax works in place, and the next output begins with these numbers again.
            setattr(host, self._twin.method, lambda X: found.copy())
        try:
            answer: Values = getattr(host, name)(data)
        except Exception as error:
            raise ModelFailed from error
        return answer

    def _shaped(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        output = self._outputs[name]
        shaped: NDArray[Any] = np.ascontiguousarray(values, dtype=output.dtype).reshape(len(values), *output.shape)
        return shaped


def on_host(values: Any) -> NDArray[Any]:
    """A device's array as numpy's; cuML gives numpy itself where it was asked to."""
    return np.asarray(values.get() if hasattr(values, "get") else values)


def _too_close(found: NDArray[Any], estimator: Any) -> NDArray[np.bool_] | None:
    """Rows whose label another order of summation could turn, or None where there are no labels.

    The margin is eps^(2/3), 4e-11 in double precision, times the row's largest number: far above
    what sums differ by, and far below what data decide on.
    """
    if not hasattr(estimator, "classes_") and not hasattr(estimator, "cluster_centers_"):
        return None
    margin = float(np.finfo(found.dtype).eps) ** (2 / 3)
    if found.ndim == 1:
        return np.asarray(np.abs(found) <= margin)
    if found.shape[1] < 2:
        return None
    values = -found if hasattr(estimator, "cluster_centers_") else found
    best = np.partition(values, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] <= margin * np.maximum(1, np.abs(best).max(axis=1)))
