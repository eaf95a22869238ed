"""Which module opens which compiled engine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, cast

from service.core.artefact_errors import EngineUnusable
from service.core.contracts import Engine
from service.core.signature import Signature
from service.repository.manifest import EngineEntry

# Imported when a model needs them: onnxruntime and treelite cost memory and time to start.
RUNTIMES: Final = {
    "onnx": "service.runtimes.onnx:open_onnx",
    "treelite": "service.runtimes.treelite:open_treelite",
    "nvforest": "service.runtimes.nvforest:open_nvforest",
}
# Runtimes that need a GPU, and so run in the process that owns it.
NOT_HERE: Final = ("nvforest", "cuml")
# Runtimes that believe their files. Of 120 checkpoints of a forest with four bytes changed, Treelite 4.8 crashed on 11
# and never came back from 3; onnxruntime 1.31 refused all of 120 graphs.
CRASHING: Final = ("treelite",)


def unproven(entry: EngineEntry) -> tuple[str, ...]:
    """The outputs that an engine could answer and that export could not prove, for want of a GPU.

    A service that has one proves them when it loads the version. Empty for every other engine.
    """
    if entry.agreement or entry.runtime not in NOT_HERE:
        return ()
    return tuple(entry.options.get("outputs", ()))


def open_engine(
    runtime: str, files: Mapping[str, bytes], signature: Signature, options: Mapping[str, Any], *, threads: int = 1
) -> Engine:
    """The engine in `files`, as its compiler described it in `options`.

    Raises:
        EngineUnusable: this service does not know the runtime, or its library is missing or refuses the files.
    """
    if runtime not in RUNTIMES:
        raise EngineUnusable(f"no runtime {runtime!r} in this version of Tandem")
    module, _, function = RUNTIMES[runtime].partition(":")
    try:
        opened = getattr(import_module(module), function)(files, signature, options, threads=threads)
    except Exception as error:  # native libraries raise what they like
        raise EngineUnusable(f"{runtime} cannot open it: {error!r:.200}") from error
    return cast(Engine, opened)
