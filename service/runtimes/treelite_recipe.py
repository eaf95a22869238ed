"""What lies between a table and the trees' rows, and between the trees' sums and the outputs.

Written at export, kept as the `options` of an engine in the manifest. Everything after the sum (links,
labels, offsets) is done here as the estimator does it, and in the dtype the estimator does it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from service.core.artefact_errors import ModelFileUnreadable
from service.core.signature import Output, Signature
from service.core.table import Values

Scores = NDArray[np.floating[Any]]


class Recipe(BaseModel):
    """A field that is unknown here would change answers, so it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What the sums are: probabilities of classes, margins of classes, values of targets, or path lengths.
    scores: Literal["votes", "margins", "values", "depths"]
    # What the estimator rounds its rows to before it compares them with thresholds.
    cast: Literal["float32", "float64"]
    link: Literal["identity", "sigmoid", "softmax", "exponential", "signed_square", "log1p_exp"] = "identity"
    # Sums are multiplied by it before a sigmoid.
    slope: float = 1.0
    # The label is the most probable class, or a binary margin's sign, and this says which side zero is on.
    decide: Literal["probability", "at_least_zero", "above_zero"] = "probability"
    # How many classes each target has, where there are several targets.
    targets: tuple[int, ...] | None = None
    # A label that close to another one is left to the estimator: the sums are not its own to the last bit.
    margin: float = 0.0
    # Isolation forests: the sum of path lengths that scores one half, and what decision_function takes away.
    denominator: float = 1.0
    offset: float = 0.0
    # The table's column for each feature of the trees, where they do not follow the table (or the front's output).
    order: tuple[int, ...] | None = None
    # By that column: its values in the order of their codes. What is not among them is missing.
    codes: Mapping[int, list[Any]] | None = None
    # A sparse matrix was given to trees for which what it leaves out is missing.
    zero_is_missing: bool = False
    # Options of the ONNX engine that makes the trees' rows out of the table, where there is one.
    front: Mapping[str, Any] | None = None

    def options(self) -> dict[str, Any]:
        """As the manifest has it: JSON, and nothing said that is as usual."""
        said: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return said

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Recipe:
        """Raises ModelFileUnreadable where an option is unknown or makes no sense."""
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ModelFileUnreadable(f"options of a Treelite engine: {place}: {first['msg']}") from None


def derivation(recipe: Recipe, signature: Signature) -> Callable[[Scores, Sequence[str]], dict[str, Values]]:
    """The function that makes outputs from sums of shape (rows, targets, classes)."""
    outputs = {output.name: output for output in signature.outputs}
    make = _FAMILIES[recipe.scores](recipe, outputs.get("predict"))

    def derive(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        found = make(scores, names)
        return {name: _as(outputs[name], found[name]) for name in names}

    return derive


def too_close(recipe: Recipe, scores: Scores) -> NDArray[np.bool_] | None:
    """Rows whose label the sums do not tell for sure, as a mask of shape (rows,); None where all do."""
    if not recipe.margin:
        return None
    if recipe.scores == "depths":
        gap = _isolation(recipe, scores) - recipe.offset
    elif scores.shape[2] == 1:
        gap = scores[:, 0, 0]
    else:
        best = np.sort(scores[:, 0], axis=1)
        gap = best[:, -1] - best[:, -2]
    # A margin grows with the sums it is a difference of.
    doubtful: NDArray[np.bool_] = np.abs(gap) <= recipe.margin * np.maximum(1.0, np.abs(scores[:, 0]).max(axis=1))
    return doubtful if doubtful.any() else None


Make = Callable[[Scores, Sequence[str]], dict[str, Values]]


def _votes(recipe: Recipe, predict: Output | None) -> Make:
    """Random forests: the sums are probabilities."""
    if recipe.targets is not None:
        return _votes_of_targets(recipe.targets, predict)
    labels = _labels(predict)

    def make(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        found: dict[str, Values] = {"predict_proba": scores[:, 0]}
        if "predict_log_proba" in names:
            found["predict_log_proba"] = _log(scores[:, 0])
        if "predict" in names:
            found["predict"] = labels[scores[:, 0].argmax(axis=1)]
        return found

    return make


def _votes_of_targets(targets: tuple[int, ...], predict: Output | None) -> Make:
    classes = [] if predict is None else [_label_array(predict, known) for known in predict.classes or []]

    def make(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        votes = [scores[:, target, :count] for target, count in enumerate(targets)]
        found: dict[str, Values] = {"predict_proba": votes}
        if "predict_log_proba" in names:
            found["predict_log_proba"] = [_log(of_target) for of_target in votes]
        if "predict" in names:
            chosen = [known[of.argmax(axis=1)] for known, of in zip(classes, votes, strict=True)]
            found["predict"] = np.stack(chosen, axis=1)
        return found

    return make


def _margins(recipe: Recipe, predict: Output | None) -> Make:
    """Boosted classifiers: one margin of the second class, or one margin for each class."""
    labels = _labels(predict)

    def make(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        margins = scores[:, 0, 0] if scores.shape[2] == 1 else scores[:, 0]
        found: dict[str, Values] = {"decision_function": margins}
        needs = recipe.decide == "probability" or len(names) > 1 or names[0] not in ("predict", "decision_function")
        probabilities = _probabilities(recipe, margins) if needs else margins
        found["predict_proba"] = probabilities
        if "predict_log_proba" in names:
            found["predict_log_proba"] = _log(probabilities)
        if "predict" in names:
            found["predict"] = labels[_decide(recipe, margins, probabilities)]
        return found

    return make


def _decide(recipe: Recipe, margins: Scores, probabilities: Scores) -> NDArray[np.intp]:
    """The number of the class, with ties broken as the estimator breaks them."""
    if recipe.decide == "probability":
        chosen: NDArray[np.intp] = probabilities.argmax(axis=1)
    elif margins.ndim > 1:
        chosen = margins.argmax(axis=1)
    else:
        chosen = (margins >= 0 if recipe.decide == "at_least_zero" else margins > 0).astype(np.intp)
    return chosen


def _probabilities(recipe: Recipe, margins: Scores) -> Scores:
    if margins.ndim > 1:
        return _link(recipe, margins)
    second = _link(recipe, margins)
    both = np.empty((len(margins), 2), dtype=margins.dtype)
    both[:, 1] = second
    np.subtract(1, second, out=both[:, 0])
    return both


def _values(recipe: Recipe, predict: Output | None) -> Make:
    """Regressors and rankers: a value for each target."""

    def make(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        # Several numbers for a row are several targets, or the probabilities of a library that knows no classes.
        flat = scores.reshape(len(scores), -1)
        values = _link(recipe, flat)
        return {"predict": values if predict is not None and predict.shape else values[:, 0]}

    return make


def _depths(recipe: Recipe, predict: Output | None) -> Make:
    """Isolation forests: the sums are path lengths, and short ones are suspicious."""

    def make(scores: Scores, names: Sequence[str]) -> dict[str, Values]:
        samples = _isolation(recipe, scores)
        decision = samples - recipe.offset
        return {
            "score_samples": samples,
            "decision_function": decision,
            "predict": np.where(decision < 0, -1, 1),
        }

    return make


_FAMILIES: Final = {"votes": _votes, "margins": _margins, "values": _values, "depths": _depths}


def _isolation(recipe: Recipe, scores: Scores) -> Scores:
    """Liu, Ting and Zhou (2008), negated as scikit-learn has it."""
    result: Scores = -(2 ** -(scores[:, 0, 0] / recipe.denominator))
    return result


def _link(recipe: Recipe, margins: Scores) -> Scores:
    """The inverse link, in the dtype of the margins: XGBoost computes in single precision."""
    result: Scores
    # exp of a large margin is infinite, and the quotient with it zero, which is right.
    with np.errstate(over="ignore"):
        match recipe.link:
            case "sigmoid":
                one = margins.dtype.type(1)
                result = one / (one + np.exp(-margins * margins.dtype.type(recipe.slope)))
            case "softmax":
                result = np.exp(margins - margins.max(axis=1, keepdims=True))
                result /= result.sum(axis=1, keepdims=True)
            case "exponential":
                result = np.exp(margins)
            case "signed_square":
                result = np.copysign(margins * margins, margins)
            case "log1p_exp":
                result = np.log1p(np.exp(margins))
            case "identity":
                result = margins
    return result


def _log(probabilities: Scores) -> Scores:
    # The logarithm of a probability of zero is an answer, not a warning at every request.
    with np.errstate(divide="ignore"):
        result: Scores = np.log(probabilities)
    return result


def _labels(predict: Output | None) -> NDArray[Any]:
    """What `predict` answers for each class, as the estimator's own array has it."""
    return np.arange(0) if predict is None or predict.classes is None else _label_array(predict, predict.classes)


def _label_array(predict: Output, classes: Sequence[Any]) -> NDArray[Any]:
    dtype = {"string": np.dtype(str), "object": np.dtype(object)}.get(predict.dtype) or np.dtype(predict.dtype)
    return np.array(classes, dtype=dtype)


def _as(output: Output, values: Values) -> Values:
    """In the dtype that the estimator answers in; text stays as wide as it is."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu" and values.dtype != output.dtype:
        return values.astype(output.dtype)
    return values
