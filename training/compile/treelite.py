"""Tree ensembles for the service's Treelite engine, alone or as the last step of a pipeline.

The steps before the trees become an ONNX model in double precision (`front.onnx`), so that what the
trees compare with their thresholds is what the estimator's own steps would have made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from service.core.signature import Output, Signature
from service.core.table import Table, copied, take
from service.runtimes.estimator_input import input_builder
from service.runtimes.structure import is_search, shared_steps
from service.runtimes.treelite import FRONT, TRANSFORMED, TREES, front_signature
from service.runtimes.treelite_recipe import Recipe
from training.compile.candidate import Candidate, Compiled
from training.compile.treelite_boosters import read_lightgbm, read_xgboost
from training.compile.treelite_sklearn import read_sklearn
from training.compile.treelite_trees import Ensemble, NotCompiled

# What each kind of sums gives. `predict` needs labels that JSON carries as they are.
_OUTPUTS: Final = {
    "votes": ("predict", "predict_proba", "predict_log_proba"),
    "margins": ("predict", "predict_proba", "predict_log_proba", "decision_function"),
    "values": ("predict",),
    "depths": ("predict", "decision_function", "score_samples"),
}
# Enough to see what the steps before the trees make.
_SAMPLE_ROWS: Final = 5


def compile_treelite(estimator: Any, signature: Signature, sample: Table) -> Compiled:
    """One candidate, `treelite`, or the reason why there is none. `sample` fits the signature."""
    try:
        candidate = _compile(estimator, signature, sample)
    except NotCompiled as why:
        return Compiled(reasons={"": str(why)})
    except Exception as error:  # the inside of three libraries is read, and any of them may have changed
        return Compiled(reasons={"": f"reading its trees raised {type(error).__name__}: {error}"[:300]})
    lacking = {
        name: "the trees alone do not give it" for name in signature.output_names if name not in candidate.outputs
    }
    return Compiled((candidate,), lacking)


def _compile(estimator: Any, signature: Signature, sample: Table) -> Candidate:
    steps, trees = _split(estimator)
    if steps is None:
        ensemble = read_trees(trees, signature)
        _check_columns(signature, ensemble)
        files: dict[str, bytes] = {}
        recipe, is_double = ensemble.recipe, ensemble.is_double
    else:
        ensemble, files, recipe, is_double = _with_front(steps, trees, signature, sample)
    outputs = _outputs(signature, ensemble, trees)
    if not outputs:
        raise NotCompiled("none of its outputs can be made from the sums of its trees")
    content = ensemble.model.serialize_bytes()
    return Candidate("treelite", "treelite", outputs, {TREES: content, **files}, recipe.options(), is_double)


def read_trees(estimator: Any, signature: Signature) -> Ensemble:
    """The trees of a fitted estimator whose rows are those of `signature`.

    Raises:
        NotCompiled: it has none that Treelite takes.
    """
    library = type(estimator).__module__.partition(".")[0]
    if library == "xgboost":
        return read_xgboost(estimator, signature)
    if library == "lightgbm":
        return read_lightgbm(estimator, signature)
    return read_sklearn(estimator)


def _split(estimator: Any) -> tuple[Any | None, Any]:
    """The steps before the trees, None where there are none, and the trees."""
    if is_search(estimator):
        return _split(estimator.best_estimator_)
    shared = shared_steps(estimator)
    if shared is None:
        steps = getattr(estimator, "steps", None)
        return None, steps[0][1] if steps and len(steps) == 1 else estimator
    before, last = shared
    if all(step is None or step == "passthrough" for _, step in before.steps):
        return None, last
    return before, last


def _with_front(
    steps: Any, trees: Any, signature: Signature, sample: Table
) -> tuple[Ensemble, dict[str, bytes], Recipe, bool]:
    from training.compile.onnx import compile_onnx

    rows = take(sample, np.arange(min(sample.n_rows, _SAMPLE_ROWS)))
    made = steps.transform(input_builder(signature)(copied(rows)))
    inner = _inner_signature(made)
    ensemble = read_trees(trees, inner)
    compiled = compile_onnx(steps, front_signature(signature, ensemble.width), sample)
    fronts = [candidate for candidate in compiled.candidates if TRANSFORMED in candidate.outputs]
    if not fronts:
        why = compiled.reasons.get(TRANSFORMED) or compiled.reasons.get("") or "no reason is known"
        raise NotCompiled(f"the steps before the trees have no ONNX form: {why}"[:300])
    front = next((candidate for candidate in fronts if candidate.is_double), fronts[0])
    (content,) = front.files.values()
    recipe = ensemble.recipe.model_copy(update={"front": dict(front.options)})
    return ensemble, {FRONT: content}, recipe, ensemble.is_double and front.is_double


def _inner_signature(made: Any) -> Signature:
    """Of the rows that the trees get from the steps before them, as far as reading trees depends on it."""
    from service.runtimes.sample import read_sample

    read = read_sample(None, made)
    return Signature(container=read.container, columns=read.columns, outputs=())


def _check_columns(signature: Signature, ensemble: Ensemble) -> None:
    coded = ensemble.recipe.codes or {}
    for index, column in enumerate(signature.columns):
        if column.dtype in ("string", "datetime") and index not in coded:
            raise NotCompiled(f"column {column.name!r} holds values of type {column.dtype}, and trees take numbers")
    if len(signature.columns) != ensemble.width:
        raise NotCompiled(f"the trees have {ensemble.width} features, the table {len(signature.columns)} columns")


def _outputs(signature: Signature, ensemble: Ensemble, estimator: Any) -> tuple[str, ...]:
    offered = _OUTPUTS[ensemble.recipe.scores]
    return tuple(
        output.name
        for output in signature.outputs
        if output.name in offered and (output.name != "predict" or _labels_survive(output, estimator))
    )


def _labels_survive(predict: Output, estimator: Any) -> bool:
    """Whether the classes in the signature are those of the estimator after a journey through JSON."""
    if predict.classes is None:
        return True
    own = estimator.classes_
    targets: Sequence[Any] = own if isinstance(own, list) else [own]
    listed = predict.classes if isinstance(own, list) else [predict.classes]
    return all(
        type(mine) is type(theirs) and mine == theirs
        for labels, known in zip(targets, listed, strict=True)
        for mine, theirs in zip(np.asarray(labels).tolist(), known, strict=True)
    )
