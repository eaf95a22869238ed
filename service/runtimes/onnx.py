"""Engines that are ONNX graphs, run by onnxruntime on the CPU.

A graph takes a matrix of doubles, codes of categories, or both, and gives tensors; the options, written
at export, say how columns become these and how outputs are read off (`onnx_inputs.py`, `onnx_outputs.py`).
No text enters the graph, so there is none that onnxruntime could not carry.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import EstimatorUnusable
from service.core.errors import CannotAnswer, ModelFailed, RowsRefused
from service.core.signature import Signature
from service.core.table import SparseRows, Table, Values
from service.runtimes.onnx_inputs import CODES, feeder
from service.runtimes.onnx_outputs import Maker, maker

_log = logging.getLogger(__name__)

ERRORS_ONLY: Final = 3


def open_onnx(
    files: Mapping[str, bytes], signature: Signature, options: Mapping[str, Any], threads: int = 1
) -> OnnxEngine:
    """The engine in `files`, which hold one graph.

    Raises:
        EstimatorUnusable: onnxruntime refuses the file, or the options do not belong to it.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = ERRORS_ONLY
    # Beyond the basic ones, optimizations trade digits: a factor after a product of matrices of doubles
    # becomes an attribute in single precision (MatMulScaleFusion).
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A thread that spins for its next task takes the time of those that have one.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps what the largest batch ever needed; without it small runs are no slower.
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    (content,) = files.values()
    try:
        session = ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        return OnnxEngine(session, ort.RunOptions(), signature, options)
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise EstimatorUnusable(f"the ONNX graph cannot be opened: {str(error).splitlines()[0]}") from error


class OnnxEngine:
    """One graph. Thread-safe: a run keeps nothing."""

    is_reentrant: Final = True

    def __init__(self, session: Any, run_options: Any, signature: Signature, options: Mapping[str, Any]) -> None:
        # The session's own method checks names that are known to be right, which is 1.4 of 12 µs,
        # and where it is given no options it makes some for each run, which is 1 µs.
        self._call = getattr(session, "_sess", session).run
        self._run_options = run_options
        self._session = session
        inputs = {value.name for value in session.get_inputs()}
        self._feed = feeder(inputs, signature, options)
        self._makers: dict[str, Maker] = {
            output.name: maker(output, options["outputs"][output.name], options.get("margin", 0.0))
            for output in signature.outputs
            if output.name in options["outputs"]
        }
        self._tensors: dict[str, list[str]] = {name: options["outputs"][name]["tensors"] for name in self._makers}
        # A truth per row that the graph itself computes: neighbours at the same distance, for one.
        self._doubt: str | None = options.get("doubt")
        self._slice_rows: int = options.get("slice_rows", 2**31)
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def run(self, rows: Table, outputs: Sequence[str]) -> dict[str, Values]:
        """See `core.contracts.Engine`.

        Raises:
            CannotAnswer: a value that the graph cannot hold, or a label too close to call.
        """
        wanted = tuple(outputs)
        plan = self._plans.get(wanted) or self._plan(wanted)
        n = rows.n_rows
        try:
            feed, bad = self._feed(rows)
            if n <= self._slice_rows:
                found = self._call(plan.fetch, feed, self._run_options)
            else:
                found = self._in_slices(plan.fetch, feed, n)
            if self._doubt is not None and found[-1].any():
                bad = _either(bad, found[-1])
            answers: dict[str, Values] = {}
            for name, make, places in plan.steps:
                answers[name], too_close = make([found[place] for place in places])
                bad = _either(bad, too_close)
        except ValueError as error:
            _log.info("the graph refused rows: %s", error)
            raise RowsRefused from error
        except Exception as error:
            raise ModelFailed from error
        for name, values in answers.items():
            if _n_rows(values) != n:
                _log.error("%s answered %d rows for %d", name, _n_rows(values), n)
                raise ModelFailed
        if bad is not None:
            raise CannotAnswer("a value that the graph cannot hold, or an answer too close to call", bad, answers)
        return answers

    def _plan(self, outputs: tuple[str, ...]) -> _Plan:
        try:
            fetch = list(dict.fromkeys(tensor for name in outputs for tensor in self._tensors[name]))
        except KeyError as error:
            _log.error("the graph has no output %s", error)
            raise ModelFailed from error
        if self._doubt is not None:
            fetch.append(self._doubt)
        steps = [(name, self._makers[name], [fetch.index(t) for t in self._tensors[name]]) for name in outputs]
        return self._plans.setdefault(outputs, _Plan(fetch, steps))

    def _in_slices(self, fetch: list[str], feed: Mapping[str, NDArray[Any]], n: int) -> list[NDArray[Any]]:
        parts = []
        for start in range(0, n, self._slice_rows):
            rows = slice(start, start + self._slice_rows)
            some = {name: values[:, rows] if name == CODES else values[rows] for name, values in feed.items()}
            parts.append(self._call(fetch, some, self._run_options))
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


class _Plan:
    """What to fetch for a set of outputs, and how each is made of it."""

    __slots__ = ("fetch", "steps")

    def __init__(self, fetch: list[str], steps: list[tuple[str, Maker, list[int]]]) -> None:
        self.fetch = fetch
        self.steps = steps


def _either(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return one if other is None else other if one is None else one | other


def _n_rows(values: Values) -> int:
    if isinstance(values, SparseRows):
        return len(values.indptr) - 1
    return len(values[0]) if isinstance(values, list) else len(values)
