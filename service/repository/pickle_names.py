"""Which code does a model file name? Answered by a dry run that imports and calls none of it."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, ClassVar, Final

import numpy as np

from service.core.artefact_errors import ModelFileUnreadable
from service.repository.joblib_file import MAX_BYTES, JoblibUnpickler, decompressed

PARTIAL: Final = "functools.partial"
CHECK_ARRAY: Final = "sklearn.utils.validation.check_array"

# Pickles nest tuples directly in tuples a handful deep and share few of them.
_MAX_TUPLE_DEPTH: Final = 32
_MAX_TUPLE_WEIGHT: Final = 1_000_000


def global_names(data: bytes, *, max_bytes: int = MAX_BYTES) -> frozenset[str]:
    """Every global that opening the joblib or pickle file `data` would look up, wherever it hides.

    Spelt "package.module.Name", and "package.module:Outer.Inner" if the name itself has dots, as
    the two are not the same question. Python 2 and numpy 1 spellings are brought up to date.
    Not listed is what belongs to the format, and is never looked up: joblib's array wrapper,
    `numpy.dtype`, and `_codecs.encode` for bytes; nor is `functools.partial` over scikit-learn's
    `check_array`, the only call that it may stand for.

    Raises:
        ModelFileUnreadable: cut, corrupt, more than one pickle, an array larger than the file, or
            unpacking to more than `max_bytes`.
    """
    return names_in(decompressed(data, max_bytes=max_bytes))


def names_in(pickled: bytes) -> frozenset[str]:
    """`global_names` of a file that is not, or no longer, compressed."""
    names: set[str] = set()
    try:
        _DryRun(io.BytesIO(pickled), names).load_whole()
    # Garbage read as opcodes can raise anything: IndexError, struct.error, RecursionError, MemoryError, …
    except Exception as error:
        raise ModelFileUnreadable(f"the model file is cut, corrupt, or not a joblib file: {error!r:.200}") from error
    return frozenset(names)


def spelling(module: str, name: str) -> str:
    return f"{module}:{name}" if "." in name else f"{module}.{name}"


class _StandIn:
    """In place of whatever the file names: it takes everything and does nothing.

    The class stands for the name, an instance for what came of calling it. Instances cannot be
    called in turn: pickles call only what they name.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return object.__new__(_StandIn)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def add(self, item: Any) -> None: ...


class _CheckArray(_StandIn):
    """In place of `sklearn.utils.validation.check_array`, so that a partial over it can be told from others."""


def _partial_noting(names: set[str]) -> type[_StandIn]:
    """In place of `functools.partial`: named only where it would call something other than `check_array`.

    Histogram boosting on pandas categories keeps such a partial, and checks its input with it.
    """

    class Partial(_StandIn):
        def __new__(cls, function: Any = None, *args: Any) -> Partial:
            if function is not _CheckArray:
                names.add(PARTIAL)
            return object.__new__(Partial)

        def __setstate__(self, state: Any) -> None:
            if not isinstance(state, tuple) or not state or state[0] is not _CheckArray:
                names.add(PARTIAL)

    return Partial


def _reconstructor(cls: type, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, by which protocols 0 and 1 make objects, array wrappers among them."""
    return cls()


class _Tuple(tuple[Any, ...]):
    """A tuple that knows what hashing it would cost.

    Hashing walks through tuples in tuples without a limit: nested a million deep they overflow the
    stack of C, and shared thirty deep they take for ever. Real unpickling would do it, so we refuse.
    """

    depth: int
    weight: int

    def __init__(self, items: Any) -> None:
        inner = [item for item in self if isinstance(item, _Tuple)]
        self.depth = 1 + max((item.depth for item in inner), default=0)
        self.weight = sum(1 + item.weight for item in inner)
        if self.depth > _MAX_TUPLE_DEPTH or self.weight > _MAX_TUPLE_WEIGHT:
            raise UnpicklingError("it nests tuples too deep")


class _DryRun(JoblibUnpickler):
    """Walks the file and notes the names. The objects it makes are dtypes, containers and stand-ins."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(JoblibUnpickler.dispatch)

    def __init__(self, file: io.BytesIO, names: set[str]) -> None:
        super().__init__(file)
        self._names = names

    def resolve(self, module: str, name: str) -> Any:
        if spelling(module, name) == PARTIAL:
            return _partial_noting(self._names)
        self._names.add(spelling(module, name))
        if spelling(module, name) == CHECK_ARRAY:
            return _CheckArray
        return _reconstructor if (module, name) == ("copyreg", "_reconstructor") else _StandIn

    def read_array(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Any:
        self._file.seek(math.prod(shape) * dtype.itemsize, io.SEEK_CUR)
        return _StandIn()

    def nested(self) -> _DryRun:
        return _DryRun(self._file, self._names)


def _weighed(opcode: bytes) -> Callable[[_DryRun], None]:
    load: Callable[[Any], None] = JoblibUnpickler.dispatch[opcode[0]]

    def load_tuple(run: _DryRun) -> None:
        load(run)
        run.stack[-1] = _Tuple(run.stack[-1])

    return load_tuple


for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _DryRun.dispatch[_opcode[0]] = _weighed(_opcode)
