"""Tree ensembles on a GPU: nvForest sums the trees, `treelite_recipe` makes the outputs from the sums.

It reads the very files and options of the Treelite engine, so nothing is unpickled and nothing is
exported twice. Imported in the process that owns the GPU; `device="cpu"` needs no GPU and no driver.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import ModelFileUnreadable
from service.core.signature import Signature
from service.runtimes.treelite import FRONT, TREES, TreeliteEngine, front_signature
from service.runtimes.treelite_recipe import Recipe

Device = Literal["gpu", "cpu"]

# nvForest adds up trees in groups of 64, scikit-learn one after the other: a label that the last digits of a
# sum decide is left to an engine that adds in the estimator's own order. Exact ties are among these.
MARGIN: Final = {"float64": 1e-12, "float32": 1e-5}


def open_nvforest(
    files: Mapping[str, bytes],
    signature: Signature,
    options: Mapping[str, Any],
    threads: int = 1,
    device: Device = "gpu",
) -> NvForestEngine:
    """The engine of a Treelite checkpoint (`model.tl`), after an ONNX model (`front.onnx`) where there is one.

    `threads` are those of the CPU: of the ONNX part, and of the trees with `device="cpu"`.

    Raises:
        ModelFileUnreadable: a file or an option is not understood, or nvForest cannot evaluate such trees.
        ImportError: nvforest is not installed.
        What CUDA raises where there is no GPU.
    """
    recipe = Recipe.read(options)
    if TREES not in files:
        raise ModelFileUnreadable(f"an nvForest engine needs the file {TREES!r}")
    forest = Forest(files[TREES], device, threads)
    recipe = recipe.model_copy(update={"margin": max(recipe.margin, MARGIN[str(forest.dtype)])})
    front = None
    if recipe.front is not None:
        from service.runtimes.onnx import open_onnx

        front = open_onnx({FRONT: files[FRONT]}, front_signature(signature, forest.width), recipe.front, threads)
    elif (width := len(recipe.order or signature.columns)) != forest.width:
        raise ModelFileUnreadable(f"the trees have {forest.width} features, and the table makes {width}")
    return NvForestEngine(cast(Any, forest), recipe, signature, front)


class NvForestEngine(TreeliteEngine):
    """See `core.contracts.Engine`.

    Its calls come one by one: they would wait for the device anyhow, and what arrives meanwhile is
    merged. What CUDA raises is raised as it is, for the process that owns the GPU must tell being out of
    memory from being lost.
    """

    @property
    def is_reentrant(self) -> bool:
        return False


class Forest:
    """A tree ensemble in the memory of a device, with the face of `treelite_library.Trees`.

    `width` is the number of features, `dtype` that of rows and scores, and `shape` that of one row's
    scores: (1, classes).
    """

    def __init__(self, checkpoint: bytes, device: Device, threads: int) -> None:
        """Raises ModelFileUnreadable where nvForest cannot evaluate it."""
        import nvforest
        import treelite

        with warnings.catch_warnings():
            # nvForest has a Treelite of its own built in and says so at each file of a newer one. The golden
            # rows say whether it matters.
            warnings.filterwarnings("ignore", message=".*newer Treelite version", category=UserWarning)
            try:
                model = treelite.Model.deserialize_bytes(checkpoint)
                header = model.get_header_accessor()
                # The sums are wanted: links and labels are made on the host as the estimator makes them.
                header.set_field("postprocessor", "identity")
                if (targets := int(header.get_field("num_target")[0])) != 1:
                    raise ModelFileUnreadable(f"nvForest evaluates one target, and the trees have {targets}")
                self._forest = nvforest.load_from_treelite_model(model, device=device)
            except (treelite.TreeliteError, ValueError) as error:
                raise ModelFileUnreadable(f"nvForest cannot read the trees: {error!r:.200}") from error
        # For a classifier `predict` gives labels and `predict_proba` the sums, whatever they are.
        self._sums = self._forest.predict_proba if self._forest.is_classifier else self._forest.predict
        self.width = int(self._forest.num_features)
        self.dtype = np.dtype(str(model.input_type))
        self.shape = (1, int(self._forest.num_outputs))
        self._limited = _openmp_limit(threads) if device == "cpu" else nullcontext

    def scores(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The sums over all trees, of shape (rows, 1, classes), in `dtype`.

        The interpreter lock is held until the device is done.
        """
        with self._limited():
            sums = self._sums(rows)
        # Of cupy on a GPU; `get` waits for the device and copies.
        host = np.asarray(sums.get() if hasattr(sums, "get") else sums)
        return host.reshape(len(rows), *self.shape)


def _openmp_limit(threads: int) -> Any:
    """A function that gives a context in which nvForest's CPU code uses that many threads."""
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController().select(user_api="openmp")

    def limit() -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = controller.limit(limits=threads)
        return context

    return limit
