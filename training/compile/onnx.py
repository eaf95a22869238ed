"""ONNX: one graph in double precision for all that has a formula, and one by skl2onnx for what has none."""

from __future__ import annotations

import functools
import logging
import operator
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from service.core.plain import plain_label
from service.core.signature import Output, Signature
from service.core.table import Table
from training.compile.candidate import Candidate, Compiled

_log = logging.getLogger(__name__)

RUNTIME: Final = "onnx"
# Beyond this the file takes longer to open than the first thousand answers of the estimator.
MOST_BYTES: Final = 100 * 2**20
# What a run may hold in between; larger batches are cut into slices of rows.
SLICE_BYTES: Final = 2**24
LABEL_TYPES: Final = frozenset({"int64", "int32", "float64", "float32", "bool", "string", "object"})
# Labels are called only where the two best scores of single precision differ by more than its error.
MARGIN: Final = 1e-5
# float32 ends at 3e38; the rest is room for what the steps before make of a number.
LIMIT: Final = 1e30


def compile_onnx(estimator: Any, signature: Signature, sample: Table) -> Compiled:
    """Candidates for the outputs of `signature`: `onnx` in double precision, `onnx-single` for the others.

    `sample` are rows as the signature has them; tables of categories are made by asking the estimator about
    changed copies of the first. Nothing is fitted, and the estimator is not changed.
    """
    candidates: list[Candidate] = []
    reasons: dict[str, str] = {}
    wanted = list(signature.outputs)
    for name, converts in (("onnx", False), ("onnx-single", True)):
        if not wanted:
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidate, told = _compile(name, estimator, signature, sample, wanted, converts=converts)
        reasons |= told
        if candidate is not None:
            candidates.append(candidate)
            wanted = [output for output in wanted if output.name not in candidate.outputs]
    covered = {output for candidate in candidates for output in candidate.outputs}
    return Compiled(tuple(candidates), {name: why for name, why in reasons.items() if name not in covered})


def _compile(
    name: str, estimator: Any, signature: Signature, sample: Table, wanted: list[Output], *, converts: bool
) -> tuple[Candidate | None, dict[str, str]]:
    from training.compile import onnx_families  # noqa: F401  -- registers the formulas
    from training.compile.onnx_formulas import NoFormula
    from training.compile.onnx_graph import Graph, TooLarge
    from training.compile.onnx_inputs import Inputs

    graph = Graph(converts=converts)
    inputs = Inputs(graph, signature, sample)
    rows = inputs.everything()
    recipes: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for output in wanted:
        try:
            way, tensors, more = _recipe(estimator, output, rows)
            recipes[output.name] = {"as": way, "tensors": [graph.output(tensor) for tensor in tensors], **more}
        except (NoFormula, TooLarge) as error:
            reasons[output.name] = str(error)
        except Exception as error:  # a version of scikit-learn that a formula does not know
            _log.debug("no graph for %s", output.name, exc_info=True)
            reasons[output.name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if not recipes:
        return None, reasons
    options: dict[str, Any] = {"outputs": recipes, "codes": inputs.codes}
    if graph.doubts:
        options["doubt"] = graph.output(functools.reduce(operator.or_, graph.doubts))
    inputs.finish()
    try:
        content = graph.model()
    except ValueError as error:  # protobuf takes no message of more than 2 GB
        return None, reasons | {"": f"the graph cannot be written: {error}"[:200]}
    if len(content) > MOST_BYTES:
        return None, reasons | {"": f"the graph takes {len(content) >> 20} MB; at most {MOST_BYTES >> 20} are offered"}
    if not inputs.is_matrix:
        options["numbers"] = [signature.columns[position].name for position in inputs.number_columns]
    if graph.is_narrowed:
        options["margin"] = MARGIN
    if graph.is_narrowed or graph.casts_computed:
        options["limit"] = LIMIT
    if graph.row_bytes:
        options["slice_rows"] = max(SLICE_BYTES // graph.row_bytes, 1)
    file = f"{name}.onnx"
    return Candidate(name, RUNTIME, tuple(recipes), {file: content}, options, is_double=not graph.is_narrowed), reasons


def _recipe(estimator: Any, output: Output, rows: Any) -> tuple[str, list[Any], Mapping[str, Any]]:
    """How the runtime makes an output: the way, the tensors it needs, and what else."""
    from training.compile.onnx_formulas import NoFormula, answering, ask, computes, has_formula, labels

    if output.name == "predict" and not computes(estimator):
        if output.dtype not in LABEL_TYPES:
            raise NoFormula(f"labels of type {output.dtype}")
        found = labels(estimator, rows)
        more = {
            "classes": [[plain_label(label) for label in np.asarray(one.classes)] for one in found],
            "inclusive": [one.is_inclusive for one in found],
        }
        return "labels", [one.scores for one in found], more
    if output.name == "predict_log_proba" and not has_formula(answering(estimator), output.name):
        way, result = "logarithms", ask(estimator, "predict_proba", rows)
    else:
        way, result = "sparse" if output.sparse else "values", ask(estimator, output.name, rows)
    return (way, result, {"list": True}) if isinstance(result, list) else (way, [result], {})
