"""From an estimator's method to the formula that computes it: the table, and what follows from it.

A formula is registered under the name of a scikit-learn class and one of its methods. It takes the
fitted estimator and its input in the graph and writes what the method computes, in double precision.
What scikit-learn derives by itself (labels from scores, logarithms from probabilities) is derived here
or by the runtime. An estimator without a formula is handed to skl2onnx (`onnx_convert.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Union

import numpy as np
from numpy.typing import NDArray

from training.compile.onnx_graph import Graph, Tensor, stack

if TYPE_CHECKING:
    from training.compile.onnx_inputs import Block

# A matrix of computed numbers, or the columns as they came.
Rows = Union[Tensor, "Block"]
Formula = Callable[[Any, Any], Any]
_FORMULAS: Final[dict[tuple[str, str], tuple[Formula, bool]]] = {}
_FALLBACKS: Final[list[Callable[[Any, str, Tensor], Any]]] = []

# Estimators that hand every call to the one they hold.
HANDS_ON: Final[Mapping[str, str]] = {
    "GridSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "SelfTrainingClassifier": "estimator_",
    "RANSACRegressor": "estimator_",
}


# What skl2onnx can be asked for.
CONVERTED: Final = frozenset({"predict", "predict_proba", "decision_function", "transform"})


class NoFormula(Exception):
    """Nobody knows how to write this; the words become a reason in the manifest."""


def formula(method: str, *classes: str, raw: bool = False) -> Callable[[Formula], Formula]:
    """Register a formula for `method` of scikit-learn's classes of these names.

    A `raw` one takes its input as it came, a `Block` of columns that may hold text; any other a matrix of doubles.
    """

    def register(function: Formula) -> Formula:
        for name in classes:
            _FORMULAS[name, method] = (function, raw)
        return function

    return register


def fallback(function: Callable[[Any, str, Tensor], Any]) -> Callable[[Any, str, Tensor], Any]:
    """Register what is tried where there is no formula."""
    _FALLBACKS.append(function)
    return function


def kind_of(estimator: Any) -> str:
    """The class's name, if it is scikit-learn's own: a subclass may compute anything."""
    kind = type(estimator)
    return kind.__name__ if kind.__module__.startswith("sklearn.") else ""


def has_formula(estimator: Any, method: str) -> bool:
    return (kind_of(estimator), method) in _FORMULAS


def ask(estimator: Any, method: str, x: Rows) -> Any:
    """What `estimator.method(x)` is, as a tensor; a list of them where scikit-learn answers a list of arrays.

    Raises:
        NoFormula: neither a formula nor the fallback knows it.
    """
    estimator = inner(estimator)
    function, raw = _FORMULAS.get((kind_of(estimator), method), (_unknown(method), True))
    try:
        return function(estimator, x if raw else matrix(x))
    except NoFormula as reason:
        if not graph_of(x).converts or method not in CONVERTED:
            raise
        for convert in _FALLBACKS:
            try:
                return convert(estimator, method, matrix(x))
            except NoFormula as other:
                raise NoFormula(f"{reason}; {other}") from other
        raise


def _unknown(method: str) -> Formula:
    def refuse(e: Any, x: Any) -> Any:
        raise NoFormula(f"{type(e).__name__}.{method} has no formula")

    return refuse


def graph_of(x: Rows) -> Graph:
    return x.graph if isinstance(x, Tensor) else x.inputs.graph


def inner(estimator: Any) -> Any:
    """The estimator that answers for a search and its like."""
    while held := HANDS_ON.get(kind_of(estimator)):
        estimator = getattr(estimator, held)
    return estimator


def answering(estimator: Any) -> Any:
    """The model at the end of the steps."""
    estimator = inner(estimator)
    match kind_of(estimator):
        case "Pipeline":
            return answering(estimator.steps[-1][1])
        case "RFE" | "RFECV":
            return answering(estimator.estimator_)
    return estimator


def computes(estimator: Any) -> bool:
    """Whether `predict` answers with numbers that are computed, not with labels."""
    model = answering(estimator)
    return has_formula(model, "predict") or not (has_formula(model, "labels") or hasattr(model, "classes_"))


def matrix(x: Rows) -> Tensor:
    """Shape (rows, columns), double."""
    return x if isinstance(x, Tensor) else x.numbers()


@dataclass(frozen=True, eq=False)
class Labels:
    """How labels are read off `scores`.

    Of shape (rows, classes): the first greatest. Of shape (rows,): the second class where greater
    than 0, or where not less if `is_inclusive`.
    """

    scores: Tensor
    classes: NDArray[Any]
    is_single: bool = False  # scores of shape (rows,)
    is_inclusive: bool = False

    def index(self) -> Tensor:
        if not self.is_single:
            return self.scores.argmax()
        is_second = self.scores >= 0.0 if self.is_inclusive else self.scores > 0.0
        return is_second.cast("int64")

    def values(self) -> Tensor:
        """The labels as numbers in the graph, for an estimator that goes on computing with them."""
        if self.classes.dtype.kind not in "iufb":
            raise NoFormula("labels that are no numbers are computed with")
        return self.index().lookup(self.classes.astype(np.float64))


def labels(estimator: Any, x: Rows) -> list[Labels]:
    """The labels of a classifier, an outlier detector or a clustering; one entry per target."""
    estimator = inner(estimator)
    if has_formula(estimator, "labels"):
        found = ask(estimator, "labels", x)
        return found if isinstance(found, list) else [found]
    for method in ("decision_function", "predict_proba"):
        if has_formula(estimator, method) or (
            not has_formula(estimator, "predict_proba") and hasattr(estimator, method)
        ):
            scores = ask(estimator, method, x)
            if isinstance(scores, list):
                return [Labels(s, np.asarray(c)) for s, c in zip(scores, estimator.classes_, strict=True)]
            classes = np.asarray(estimator.classes_)
            return [Labels(scores, classes, is_single=method == "decision_function" and len(classes) == 2)]
    raise NoFormula(f"{type(estimator).__name__} has no scores to read labels off")


def numbers(estimator: Any, x: Rows) -> Tensor:
    """`predict` as numbers: a regression, or labels that are numbers. Shape (rows,) or (rows, targets)."""
    if computes(estimator):
        result = ask(estimator, "predict", x)
        assert isinstance(result, Tensor)
        return result
    found = labels(estimator, x)
    return found[0].values() if len(found) == 1 else stack([one.values() for one in found])


def both(positive: Tensor) -> Tensor:
    """Probabilities of two classes from that of the second, shape (rows,)."""
    return positive.expand() * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])


def sigmoid(x: Tensor) -> Tensor:
    # Not the operator Sigmoid: in double precision onnxruntime's differs from 1 / (1 + exp(-x)) in more digits.
    return 1.0 / (1.0 + (-x).op("Exp"))


def softmax(x: Tensor) -> Tensor:
    powers = (x - x.max(keepdims=True)).op("Exp")
    return powers / powers.sum(keepdims=True)


def shares(parts: Tensor, otherwise: float) -> Tensor:
    """Rows divided by their sums; each of a row of zeros becomes `otherwise`."""
    total = parts.sum(keepdims=True)
    is_empty = total.equals(0.0)
    return is_empty.where(otherwise, parts / is_empty.where(1.0, total))


def one_hot(index: Tensor, n: int) -> Tensor:
    """Shape (rows, n), doubles."""
    return index.expand().equals(np.arange(n)).cast("double")
