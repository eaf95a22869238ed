"""From the tensors of an ONNX graph to outputs that look like the estimator's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Output
from service.core.table import SparseRows, Values

Rows = NDArray[np.bool_]
# An output of the tensors it is read off, and the rows whose label is too close to call, if any.
Maker = Callable[[list[NDArray[Any]]], tuple[Values, Rows | None]]


def maker(output: Output, recipe: Mapping[str, Any], margin: float) -> Maker:
    """The function that makes `output` as `recipe` says. `margin` is that of labels, relative to the scores.

    Raises:
        ValueError: the recipe is of a newer export.
    """
    match recipe["as"]:
        case "labels":
            return _labels(output, recipe, margin)
        case "sparse":
            return lambda tensors: (_sparse(tensors[0], np.dtype(output.dtype)), None)
        case "values" | "logarithms" as way:
            return _values(output, is_list=bool(recipe.get("list")), takes_logs=way == "logarithms")
        case way:
            raise ValueError(f"no way to make {output.name}: {way!r}")


def _values(output: Output, *, is_list: bool, takes_logs: bool) -> Maker:
    dtype = np.dtype(output.dtype)

    def finish(tensor: NDArray[Any]) -> NDArray[Any]:
        if takes_logs:
            with np.errstate(divide="ignore"):
                tensor = np.log(tensor)
        return tensor if tensor.dtype == dtype else tensor.astype(dtype)

    if is_list:
        return lambda tensors: ([finish(tensor) for tensor in tensors], None)
    return lambda tensors: (finish(tensors[0]), None)


def _sparse(dense: NDArray[Any], dtype: np.dtype[Any]) -> SparseRows:
    rows, columns = np.nonzero(dense)
    indptr = np.zeros(len(dense) + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=len(dense)), out=indptr[1:])
    return SparseRows(dense.shape[1], indptr, columns.astype(np.int32), dense[rows, columns].astype(dtype))


def _labels(output: Output, recipe: Mapping[str, Any], margin: float) -> Maker:
    targets = [
        _target(_classes(output, classes), is_inclusive, margin)
        for classes, is_inclusive in zip(recipe["classes"], recipe["inclusive"], strict=True)
    ]
    if len(targets) == 1 and not output.shape:
        (only,) = targets
        return lambda tensors: only(tensors[0])

    def several(tensors: list[NDArray[Any]]) -> tuple[Values, Rows | None]:
        found = [target(tensor) for target, tensor in zip(targets, tensors, strict=True)]
        masks = [mask for _, mask in found if mask is not None]
        return np.stack([values for values, _ in found], axis=1), np.logical_or.reduce(masks) if masks else None

    return several


def _classes(output: Output, classes: list[Any]) -> NDArray[Any]:
    match output.dtype:
        case "string":
            return np.array(classes, dtype=str)
        case "object":
            labels = np.empty(len(classes), dtype=object)
            labels[:] = classes
            return labels
    return np.array(classes, dtype=output.dtype)


def _target(
    classes: NDArray[Any], is_inclusive: bool, margin: float
) -> Callable[[NDArray[Any]], tuple[NDArray[Any], Rows | None]]:
    """The labels of one target, from scores of shape (rows, classes), or (rows,) for the second of two."""

    def best(scores: NDArray[Any]) -> Any:
        if scores.ndim > 1:
            return scores.argmax(axis=1)
        return scores >= 0.0 if is_inclusive else scores > 0.0

    def label(scores: NDArray[Any]) -> tuple[NDArray[Any], Rows | None]:
        return classes.take(best(scores)), _close(scores, margin) if margin else None

    return label


def _close(scores: NDArray[Any], margin: float) -> Rows | None:
    """The rows whose two best scores differ by less than `margin`, relative to the larger of them and to 1."""
    if scores.ndim == 1:
        close = np.abs(scores) < margin
    elif scores.shape[1] < 2:
        return None
    else:
        best = np.partition(scores, -2, axis=1)[:, -2:]
        close = best[:, 1] - best[:, 0] < margin * np.maximum(np.abs(best[:, 1]), 1.0)
    return close if close.any() else None
