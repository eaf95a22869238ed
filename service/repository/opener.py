"""The one place where a model file is opened."""

from __future__ import annotations

import copyreg
import functools
import importlib
import inspect
import io
import math
import pickle
from collections.abc import Callable, Collection
from pickle import UnpicklingError
from typing import Any, ClassVar, Final

import numpy as np

from service.core.artefact_errors import ArtefactError, ModelFileUnreadable, UntrustedNames
from service.repository.allowlist import ALLOWED, check_importable, refused_names
from service.repository.joblib_file import MAX_BYTES, JoblibUnpickler, decompressed
from service.repository.pickle_names import CHECK_ARRAY, PARTIAL, global_names, names_in, spelling


def open_model(data: bytes, *, trusted: Collection[str] = (), max_bytes: int = MAX_BYTES) -> Any:
    """The object in the joblib or pickle file `data`, once all the code it names is known to be fine.

    `trusted` is what the operator adds to the allow-list (see `refused_names`); it must never come
    from beside the model. Warnings of the libraries, such as scikit-learn's about another version,
    are left to the caller. An allow-list keeps foreign code out; it cannot keep a crafted tree or
    booster from crashing native code, so the file's digest and owner still matter.

    Raises:
        ModelFileUnreadable: not one whole joblib file, or it unpacks to more than `max_bytes`.
        UntrustedNames: it names other code. Nothing was imported or executed.
        ArtefactError: a trusted module, or a class in it, is not installed here.
    """
    pickled = decompressed(data, max_bytes=max_bytes)
    if refused := refused_names(names_in(pickled), trusted):
        raise UntrustedNames(refused)
    try:
        return _Opener(io.BytesIO(pickled), trusted).load_whole()
    except (ArtefactError, Warning):
        raise
    except ModuleNotFoundError as error:
        raise ArtefactError(f"the model needs the module {error.name!r}, not installed here") from error
    except ImportError as error:
        raise ArtefactError(f"the model needs the module {error.name!r}, which fails to import") from error
    # Whatever a constructor or `__setstate__` makes of a state it did not write.
    except Exception as error:
        raise ModelFileUnreadable(f"the model file cannot be rebuilt: {error!r:.200}") from error


def needed_trust(data: bytes) -> list[str]:
    """The names that a server must be told to trust before it opens `data`, sorted.

    Raises:
        EstimatorUnusable: the model uses something defined in a script or notebook, which no
            server can import.
        ModelFileUnreadable: as for `open_model`.
    """
    refused = refused_names(global_names(data), ())
    check_importable(refused)
    return refused


class _Opener(JoblibUnpickler):
    """Opens a file that passed the dry run. It checks each name again, and each call."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(JoblibUnpickler.dispatch)

    def __init__(self, file: io.BytesIO, trusted: Collection[str]) -> None:
        super().__init__(file)
        self._trusted = trusted

    def resolve(self, module: str, name: str) -> Any:
        wanted = spelling(module, name)
        if wanted == PARTIAL:
            return self._partial
        self._require(wanted)
        if wanted in _TAME:
            return _TAME[wanted]
        home = importlib.import_module(module)
        try:
            found = functools.reduce(getattr, name.split("."), home)
        except AttributeError as error:
            raise ArtefactError(
                f"the model needs {name!r} of the module {module!r}, which the version installed here lacks"
            ) from error
        # "package.*" means what the package defines, not what it imports from elsewhere.
        if wanted not in ALLOWED and wanted not in self._trusted and _root(found) != module.partition(".")[0]:
            raise UntrustedNames([wanted])
        return found

    def _require(self, wanted: str) -> None:
        if refused_names([wanted], self._trusted):
            raise UntrustedNames([wanted])

    def _partial(self, function: Any) -> functools.partial[Any]:
        """`functools.partial`: over `check_array`, which has no side effects; over others where it is trusted."""
        if function is not self.resolve(*CHECK_ARRAY.rsplit(".", 1)):
            self._require(PARTIAL)
        return functools.partial(function)

    def read_array(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Any:
        flat: np.ndarray[Any, Any] = np.empty(math.prod(shape), dtype)
        self._file.readinto(flat.view(np.uint8))  # type: ignore[arg-type]
        array = flat.reshape(shape[::-1]).T if order == "F" else flat.reshape(shape)
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))

    def nested(self) -> _Opener:
        return _Opener(self._file, self._trusted)

    def load_reduce(self) -> None:
        if _is_only_kept(self.stack[-2]):
            raise UnpicklingError(f"it calls {self.stack[-2].__name__}, which no model is built with")
        _REDUCE(self)

    def load_build(self) -> None:
        target, state = self.stack[-2:]
        if isinstance(target, functools.partial) and state[0] is not target.func:
            self._require(PARTIAL)
        super().load_build()

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


_REDUCE: Final[Callable[[Any], None]] = pickle._Unpickler.dispatch[pickle.REDUCE[0]]


def _is_only_kept(value: Any) -> bool:
    """Whether models hold `value` as a parameter, or make it without `__init__`, but never call it.

    Metrics, ufuncs and dtypes are the former, Python estimators the latter. Called with chosen
    arguments they could still start processes (`n_jobs`), open a file (`Booster(model_file=…)`) or
    take all memory (`numpy.float64` of nested lists).
    """
    ours = _root(value) in {"lightgbm", "scipy", "sklearn", "xgboost"}
    if isinstance(value, type):
        plain = value in {bool, int, float, str, list, tuple, dict} or issubclass(value, np.generic)
        return plain or (ours and inspect.isfunction(value.__init__))  # type: ignore[misc]
    return isinstance(value, np.ufunc) or value in _NUMPY_FUNCTIONS or (ours and inspect.isfunction(value))


def _root(value: Any) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]


_NUMPY_FUNCTIONS: Final = frozenset(
    getattr(np, name.removeprefix("numpy."))
    for name in ALLOWED
    if name.startswith("numpy.") and inspect.isroutine(getattr(np, name.removeprefix("numpy."), None))
)


class _ArrayType:
    """Stands for `numpy.ndarray` and its kin: files mention them, joblib's format has no use for them."""


def _empty_array(*_: Any) -> np.ndarray[Any, Any]:
    """For `_reconstruct`, which would also make arrays of any size and of any class."""
    return np.empty(0, "b")


def _empty_masked_array(*_: Any) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.MaskedArray(np.empty(0, "b"), mask=np.empty(0, "?"))


def _bytes(content: bytes = b"") -> bytes:
    """For `bytes`, which would also make zeros of any number."""
    return bytes(memoryview(content))


def _bytearray(content: bytes = b"") -> bytearray:
    return bytearray(memoryview(content))


def _range(*limits: int) -> range:
    """For `range` in parameter grids; a longer one is only good for filling the memory."""
    if len(values := range(*limits)) > 1_000_000:
        raise UnpicklingError("it holds a range of more than a million values")
    return values


def _reconstructor(cls: type, base: type, state: Any) -> Any:
    """By which protocols 0 and 1 make objects; another base would have its `__init__` called."""
    if base not in (object, dict, tuple):
        raise UnpicklingError(f"it makes a {cls.__name__} out of a {base.__name__}")
    return copyreg._reconstructor(cls, base, state)  # type: ignore[attr-defined]


# Names that real models need, with just as much power as they need.
_TAME: Final[dict[str, Any]] = {
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.range": _range,
    "copyreg._reconstructor": _reconstructor,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy.ma.MaskedArray": _ArrayType,
    "numpy.ma.core.MaskedArray": _ArrayType,
    "numpy.ma.core._mareconstruct": _empty_masked_array,
    "numpy.matrix": _ArrayType,
    "numpy.memmap": _ArrayType,
    "numpy.ndarray": _ArrayType,
}
