"""Which estimators cuML could answer for on a GPU.

Nothing is compiled and no GPU is asked: the engine is made from the estimator's own file by the service
that has a GPU, which proves it there on the golden rows before it answers anybody.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from service.core.signature import Signature
from service.core.table import Table
from service.runtimes.cuml import TWINS, prepared, refusal, split
from training.compile.candidate import Candidate, Compiled

# nvForest computes them from Treelite's file, to the last digits and with the model file closed.
FORESTS: Final = ("RandomForestClassifier", "RandomForestRegressor")


def compile_cuml(estimator: Any, signature: Signature, sample: Table) -> Compiled:
    """One candidate without files, `cuml`, or the reason why there is none. It cannot be proven here.

    `options` name the cuML class, for people. Where cuML is installed it is asked about the settings
    too, which needs no GPU. `sample` is not looked at.
    """
    _, last = split(estimator)
    if (reason := refusal(last) or _left_to_nvforest(last) or _refused_by_cuml(last)) is not None:
        return Compiled(reasons={"": reason})
    twin = TWINS[type(last).__name__]
    offered = signature.output_names
    reasons = {name: f"{twin.path} does not give it" for name in offered if name not in twin.outputs}
    outputs = tuple(name for name in offered if name in twin.outputs)
    if not outputs:
        return Compiled(reasons=reasons)
    return Compiled((Candidate("cuml", "cuml", outputs, files={}, options={"class": twin.path}),), reasons)


def _left_to_nvforest(estimator: Any) -> str | None:
    return "nvForest computes forests on a GPU" if type(estimator).__name__ in FORESTS else None


def _refused_by_cuml(estimator: Any) -> str | None:
    """What cuML itself says of the settings. Whatever keeps it from being asked is no refusal."""
    if find_spec("cuml") is None:
        return None
    module, _, name = TWINS[type(estimator).__name__].path.rpartition(".")
    try:
        getattr(import_module(module), name)._params_from_cpu(prepared(estimator))
    except ValueError as error:  # UnsupportedOnGPU is one
        return f"cuML: {error}"
    except Exception:  # a broken installation raises what it likes, and the private way in may be gone
        return None
    return None
