"""Treelite's own shared library, called through its documented C interface.

The Python package is not imported: it brings scipy.sparse along (16 MiB and a tenth of a second
that a service without pickles has no other use for), and its `predict` builds a configuration
as JSON and asks for the output's shape on every call, which is half the time of one row.

Source: treelite/c_api.h, https://treelite.readthedocs.io/en/latest/treelite-c-api.html
"""

from __future__ import annotations

import ctypes
import json
import weakref
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.artefact_errors import ModelFileUnreadable
from service.core.errors import ModelFailed

_FUNCTIONS: Final[dict[str, list[Any]]] = {
    "TreeliteDeserializeModelFromBytes": [c_char_p, c_size_t, POINTER(c_void_p)],
    "TreeliteFreeModel": [c_void_p],
    "TreeliteGetInputType": [c_void_p, POINTER(c_char_p)],
    "TreeliteQueryNumFeature": [c_void_p, POINTER(c_size_t)],
    "TreeliteGTILParseConfig": [c_char_p, POINTER(c_void_p)],
    "TreeliteGTILDeleteConfig": [c_void_p],
    "TreeliteGTILGetOutputShape": [c_void_p, c_uint64, c_void_p, POINTER(POINTER(c_uint64)), POINTER(c_uint64)],
    "TreeliteGTILPredict": [c_void_p, c_void_p, c_char_p, c_uint64, c_void_p, c_void_p],
}


class Trees:
    """A tree ensemble in native memory. Reentrant: nothing in it changes after it is opened.

    `width` is the number of features, `dtype` that of rows and scores (float32 or float64), and
    `shape` that of one row's scores: (targets, classes).
    """

    def __init__(self, checkpoint: bytes, threads: int) -> None:
        """Raises ModelFileUnreadable where the bytes are no checkpoint that this Treelite can read."""
        self._library = library = _library()
        self._model = c_void_p()
        if library.TreeliteDeserializeModelFromBytes(checkpoint, len(checkpoint), byref(self._model)):
            raise ModelFileUnreadable(f"the Treelite checkpoint cannot be read: {_last_error(library)}")
        _free(self, library.TreeliteFreeModel, self._model)
        self._config = c_void_p()
        # Raw scores: GTIL's own softmax works in single precision, whatever the model's type is.
        config = json.dumps({"predict_type": "raw", "nthread": threads}).encode()
        self._check(library.TreeliteGTILParseConfig(config, byref(self._config)))
        _free(self, library.TreeliteGTILDeleteConfig, self._config)
        self._kind = c_char_p()
        self._check(library.TreeliteGetInputType(self._model, byref(self._kind)))
        # The name is in a buffer of the library's that its next call may overwrite.
        self._kind = c_char_p(bytes(self._kind.value or b""))
        self.dtype = np.dtype((self._kind.value or b"").decode())
        features = c_size_t()
        self._check(library.TreeliteQueryNumFeature(self._model, byref(features)))
        self.width = int(features.value)
        self.shape = self._shape()
        self._predict = library.TreeliteGTILPredict

    def scores(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The sums over all trees, of shape (rows, targets, classes), in `dtype`.

        Args:
            rows: C-contiguous, of shape (rows, width), in `dtype`; missing is NaN. The library reads
                that many numbers from where they begin, so nothing else must be passed.

        Raises:
            ModelFailed: the library refused.
        """
        n = len(rows)
        scores = np.zeros((n, *self.shape), dtype=self.dtype)
        # The interpreter lock is open meanwhile.
        failed = self._predict(self._model, rows.ctypes.data, self._kind, n, scores.ctypes.data, self._config)
        if failed:
            raise ModelFailed from RuntimeError(_last_error(self._library))
        return scores

    def _shape(self) -> tuple[int, ...]:
        sizes, count = POINTER(c_uint64)(), c_uint64()
        ask = self._library.TreeliteGTILGetOutputShape
        self._check(ask(self._model, 1, self._config, byref(sizes), byref(count)))
        return tuple(int(sizes[axis]) for axis in range(1, count.value))

    def _check(self, failed: int) -> None:
        if failed:
            raise ModelFileUnreadable(f"Treelite refuses the model: {_last_error(self._library)}")


@cache
def _library() -> ctypes.CDLL:
    """The library of the installed package, with functions of our own: their types are nobody else's business.

    Raises:
        ModuleNotFoundError: treelite is not installed.
    """
    found = _locator().find_lib_path()
    library = ctypes.CDLL(str(found[0]))
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int
    library.TreeliteGetLastError.restype = c_char_p
    return library


def _locator() -> ModuleType:
    """The package's module that knows where its library lies, loaded without the package around it."""
    package = find_spec("treelite")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("treelite is not installed", name="treelite")
    spec = spec_from_file_location("treelite_libpath", Path(package.submodule_search_locations[0]) / "libpath.py")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("treelite is incomplete: it has no libpath.py", name="treelite.libpath")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _free(owner: Trees, release: Any, handle: c_void_p) -> None:
    """Release `handle` with its owner, but not at the end of the process: another thread may still be inside."""
    weakref.finalize(owner, release, handle).atexit = False


def _last_error(library: ctypes.CDLL) -> str:
    """The first line, without the place in Treelite's source that it begins with."""
    text = (library.TreeliteGetLastError() or b"").decode(errors="replace")
    return text.partition("\n")[0].rpartition("Check failed: ")[2].strip()[:300]
