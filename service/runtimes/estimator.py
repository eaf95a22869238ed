"""The engine of last resort and the measure of all others: the fitted estimator itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, Final

import numpy as np

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import ModelFailed, RowsRefused
from service.core.signature import Signature
from service.core.table import SparseRows, Table, Values, copied
from service.runtimes.estimator_input import input_builder
from service.runtimes.structure import reads_files, shared_steps
from service.runtimes.threads import limit_this_thread

_log = logging.getLogger(__name__)

# The only attributes of an estimator that a caller can ever reach.
METHODS: Final = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "transform",
    "score_samples",
)


class EstimatorEngine:
    """Calls the estimator's own methods on the input it was fitted on, one call at a time."""

    is_reentrant = False

    def __init__(self, estimator: Any, signature: Signature) -> None:
        """Raises EstimatorUnusable where rows would make the estimator open files of their choice."""
        if reads_files(estimator):
            raise EstimatorUnusable(
                "a vectorizer in it reads the files that its input names (input='filename' or 'file'), so a caller "
                "could read any file of the server; fit it with input='content'"
            )
        self._estimator = estimator
        self._build = input_builder(signature)
        self._shared = shared_steps(estimator)

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """See `core.contracts.Engine`. With several outputs, a pipeline's steps run once."""
        limit_this_thread()
        try:
            # The logarithm of a probability of zero is an answer, not a warning at every request.
            with np.errstate(all="ignore"):
                if len(outputs) == 1 or self._shared is None:
                    estimator, inputs = self._estimator, self._inputs(rows, len(outputs))
                else:
                    steps, estimator = self._shared
                    data = steps.transform(self._build(rows))
                    inputs = (deepcopy(data) for _ in outputs)  # which keeps the memory layout
                answers = {
                    name: to_values(getattr(estimator, name)(data)) for name, data in zip(outputs, inputs, strict=True)
                }
        except ValueError as error:
            _log.info("the model refused rows: %s", error)
            raise RowsRefused from error
        except Exception as error:
            raise ModelFailed from error
        for name, values in answers.items():
            if n_rows(values) != rows.n_rows:
                _log.error("%s answered %d rows for %d", name, n_rows(values), rows.n_rows)
                raise ModelFailed
        return answers

    def _inputs(self, rows: Table, calls: int) -> Iterator[Any]:
        """An input for each call: an estimator may work in place on what it gets (copy=False)."""
        for _ in range(calls - 1):
            yield self._build(copied(rows))
        yield self._build(rows)


def to_values(raw: Any) -> Values:
    """What an estimator returned, as `core.table.Values`.

    Raises:
        TypeError: it is neither array, sparse matrix, data frame nor a list of arrays.
    """
    if isinstance(raw, np.ndarray):
        return raw
    if hasattr(raw, "tocsr"):
        rows = raw.tocsr()
        return SparseRows(int(rows.shape[1]), rows.indptr, rows.indices, rows.data)
    if isinstance(raw, list) and raw and all(isinstance(part, np.ndarray) for part in raw):
        return raw
    if hasattr(raw, "to_numpy"):  # a pandas or polars frame or series, from set_output
        return np.asarray(raw.to_numpy())
    if isinstance(raw, list):
        return np.asarray(raw)
    raise TypeError(f"an answer of type {type(raw).__name__}")


def n_rows(values: Values) -> int:
    if isinstance(values, SparseRows):
        return len(values.indptr) - 1
    if isinstance(values, list):
        return len(values[0])
    return int(values.shape[0]) if values.ndim else -1
