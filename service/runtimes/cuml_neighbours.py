"""Nearest neighbours: searched on the GPU in single precision, decided on the host in double.

cuML stores and searches in float32, so alone it would confuse neighbours that differ in the eighth digit.
Here it names a few more candidates than are wanted. Their distances are computed anew in float64, the
nearest of them are the answer, and where the float32 search may have missed one the row is passed on.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Signature

# Norms of a difference: moving all points together changes none of them. The value is the p of Minkowski.
METRICS: Final[dict[str, float | None]] = {
    "euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "l1": 1.0, "cityblock": 1.0,
    "chebyshev": np.inf, "minkowski": None,
}  # fmt: skip
# Distances that differ by less than this share are equal: which of two such points is the nearer one
# depends on the way the estimator's own search went.
TIE: Final = 1e-10
EPS: Final = float(np.finfo(np.float32).eps)
# Floats of the differences between rows and candidates that are held at a time: 32 MiB.
CELLS: Final = 2**22


class Neighbours:
    """The exact end of the search of a fitted KNeighborsClassifier or KNeighborsRegressor."""

    def __init__(self, estimator: Any, signature: Signature) -> None:
        points = np.asarray(estimator._fit_X, dtype=np.float64)
        # Centred points are small numbers, of which float32 keeps more digits.
        self._middle = points.mean(axis=0)
        self._points = points - self._middle
        self._k = int(estimator.n_neighbors)
        self._candidates = min(len(points), 2 * self._k + 8)
        self._p = _power(estimator)
        self._reach = float(self._sizes(self._points).max())

    @staticmethod
    def refusal(estimator: Any) -> str | None:
        """Why this search stays on the CPU, or None."""
        if callable(estimator.weights):
            return "cuML takes no weights that are a function"
        if not isinstance(estimator._fit_X, np.ndarray):
            return "the points of the fit are sparse"
        if estimator.effective_metric_ not in METRICS or _weighted(estimator):
            return f"distances by {estimator.effective_metric_!r} cannot be centred, and float32 would lose digits"
        return None

    def narrowed(self) -> NDArray[np.float32]:
        """The points as the device keeps them, of shape (points, columns)."""
        narrow: NDArray[np.float32] = self._points.astype(np.float32)
        return narrow

    def find(
        self, device: Any, rows: NDArray[Any]
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.intp]], NDArray[np.bool_]]:
        """Distances and indices of the nearest points, of shape (rows, k) each; and which rows are not certain.

        `device` has `kneighbors(rows, n_neighbors=, return_distance=)` in float32.
        """
        centred = np.asarray(rows, dtype=np.float64) - self._middle
        with np.errstate(over="ignore"):
            narrow = centred.astype(np.float32)
        lost = ~np.isfinite(narrow).all(axis=1)
        narrow[lost] = 0
        rough, indices = device.kneighbors(narrow, n_neighbors=self._candidates, return_distance=True)
        rough, indices = np.asarray(rough, dtype=np.float64), np.asarray(indices, dtype=np.intp)
        exact = self._distances(centred, indices)
        order = np.argsort(exact, axis=1, kind="stable")
        exact = np.take_along_axis(exact, order, axis=1)
        indices = np.take_along_axis(indices, order, axis=1)
        k = self._k
        unsure = lost
        if self._candidates > k:
            unsure |= exact[:, k] - exact[:, k - 1] <= TIE * exact[:, k]
        if self._candidates < len(self._points):
            # Every point that was not named is at least this far away.
            unsure |= exact[:, k - 1] >= self._least(rough.max(axis=1), centred)
        return (exact[:, :k], indices[:, :k]), unsure

    def _distances(self, centred: NDArray[np.float64], indices: NDArray[np.intp]) -> NDArray[np.float64]:
        """From each row to its candidates, of the shape of `indices`."""
        found = np.empty(indices.shape)
        step = max(1, CELLS // max(1, indices.shape[1] * centred.shape[1]))
        for start in range(0, len(centred), step):
            some = slice(start, start + step)
            differences = self._points[indices[some]] - centred[some, None, :]
            found[some] = np.linalg.norm(differences, ord=self._p, axis=2)
        return found

    def _least(self, rough: NDArray[np.float64], centred: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a distance of `rough`, computed in float32, is at least.

        For Euclid the device may compute |x|² + |y|² - 2xy, whose error grows with the numbers and not with
        the distance: columns times eps times (|x| + |y|)², by the usual bound for sums of products. The
        other norms lose columns times eps times (|x| + |y|).
        """
        size = self._sizes(centred) + self._reach
        lost = 2 * (centred.shape[1] + 4) * EPS * size
        if self._p == 2.0:
            return np.asarray(np.sqrt(np.maximum(0.0, rough**2 - lost * size)))
        return np.asarray(rough - lost)

    def _sizes(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Euclid's norm where that is the distance, else the sum, which no other norm exceeds."""
        return np.asarray(np.linalg.norm(points, ord=2 if self._p == 2.0 else 1, axis=1))


def _power(estimator: Any) -> float:
    power = METRICS[estimator.effective_metric_]
    return float((estimator.effective_metric_params_ or {}).get("p", estimator.p)) if power is None else power


def _weighted(estimator: Any) -> bool:
    return (estimator.effective_metric_params_ or {}).get("w") is not None
