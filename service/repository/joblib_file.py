"""How joblib lays a model out in a file: compression around pickles with raw arrays between their opcodes.

`JoblibUnpickler` reads that layout without joblib, so that one set of rules holds for the
whole file. joblib reads object arrays with an unpickler of its own, which in joblib 1.5
ignores the `find_class` of the outer one. Subclasses say what a global resolves to.

Source: `NumpyArrayWrapper.write_array` in joblib 0.10 to 1.6, and PEP 3154 for pickles.
"""

from __future__ import annotations

import _compat_pickle
import bz2
import copy
import importlib
import inspect
import io
import lzma
import math
import pickle
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from service.core.artefact_errors import ModelFileUnreadable

# Far above real models (a forest of 1 000 deep trees is about 1 GiB), below what would take a
# server down. Smaller: large models are refused. Larger: so is the memory one bad file can take.
MAX_BYTES: Final = 4 << 30

# LZMA decoders allocate the dictionary that the header asks for; level 9 asks for 64 MiB.
_LZMA_MEMORY_BYTES: Final = 256 << 20

_MAX_DIMENSIONS: Final = 64  # of numpy itself

_DECOMPRESSORS: Final[dict[bytes, Callable[[], Any]]] = {
    b"\x78": zlib.decompressobj,
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS),
    b"BZ": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES),
    b"\x5d\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES),
    b"\x04\x22\x4d\x18": lambda: _lz4_decompressor(),
}


def decompressed(data: bytes, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The pickle inside `data`, which may be compressed in any way joblib offers.

    The first bytes decide, never a file name.

    Raises:
        ModelFileUnreadable: cut, corrupt, followed by other bytes, or larger than `max_bytes`.
    """
    if data.startswith(b"ZF"):
        raise ModelFileUnreadable("the model file was written by joblib before 0.10; save the model again")
    if data.startswith(b"PK\x03\x04"):
        raise ModelFileUnreadable("the model file is a zip archive, not a joblib file (skops writes such archives)")
    magic = next((magic for magic in _DECOMPRESSORS if data.startswith(magic)), None)
    if magic is None:
        return data
    try:
        decompressor = _DECOMPRESSORS[magic]()
        pickled: bytes = decompressor.decompress(data, max_bytes + 1)
    # Each library has an error of its own (zlib.error, OSError, LZMAError, RuntimeError, EOFError).
    except Exception as error:
        raise ModelFileUnreadable(f"the compressed model file is corrupt: {error!r:.200}") from error
    if len(pickled) > max_bytes:
        raise ModelFileUnreadable(f"the model file unpacks to more than {max_bytes} bytes")
    if not decompressor.eof:
        raise ModelFileUnreadable("the compressed model file is cut short")
    if decompressor.unused_data:
        raise ModelFileUnreadable("the compressed model file is followed by other bytes")
    return pickled


def _lz4_decompressor() -> Any:
    try:
        return importlib.import_module("lz4.frame").LZ4FrameDecompressor()
    except ImportError:
        raise ModelFileUnreadable("the model file is compressed with lz4, which is not installed") from None


class ArrayOnDisk:
    """What joblib pickles in place of an array; the array's bytes follow in the file.

    The attributes are put there by the pickle: `shape`, `order`, `dtype`, and since joblib 1.2
    `numpy_array_alignment_bytes`.
    """

    shape: Any
    order: Any
    dtype: Any
    numpy_array_alignment_bytes: Any = None


class JoblibUnpickler(pickle._Unpickler, ABC):
    """Reads one decompressed joblib file; `find_class` is left to subclasses, by way of `resolve`.

    Refused here, because no model needs them: extension codes (they bypass `find_class`), side
    files, opcodes of Python 1, state set on a class or function (it would change the whole
    process), damaged dtypes, and sizes that the file is too short for. `pickle` itself refuses
    persistent ids.
    """

    # Declared for the type checker; `pickle._Unpickler.load` creates them.
    proto: int
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._file = file

    @abstractmethod
    def resolve(self, module: str, name: str) -> Any:
        """What the global `name` of `module` stands for. Both are spelt as in Python 3."""

    @abstractmethod
    def read_array(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str) -> Any:
        """The array whose bytes start here. They are known to fit into what is left of the file."""

    @abstractmethod
    def nested(self) -> JoblibUnpickler:
        """An unpickler like this one, for the pickle of an object array in the same file."""

    def load_whole(self) -> Any:
        """The object in the file, which must end where its pickle ends."""
        value = self.load()
        if self.read(1):
            raise UnpicklingError("the pickle is followed by other bytes")
        return value

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # Python 3, too, writes Python 2 spellings into these
            module, name = _compat_pickle.NAME_MAPPING.get(
                (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
            )
        if module.startswith("numpy.core."):  # the spelling of numpy 1
            module = module.replace("numpy.core.", "numpy._core.", 1)
        # Names end up in messages and in the options that these propose, so they must look like names.
        if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
            raise UnpicklingError("it names something that cannot be a name")
        match module, name:
            case "joblib.numpy_pickle", "NumpyArrayWrapper":
                return ArrayOnDisk
            case "joblib.numpy_pickle" | "joblib.numpy_pickle_compat", "NDArrayWrapper" | "ZNDArrayWrapper":
                raise UnpicklingError("it refers to side files, as before joblib 0.10; save the model again")
            case "numpy", "dtype":
                return _dtype
            case "_codecs", "encode":
                return _encode
        return self.resolve(module, name)

    def get_extension(self, code: int) -> NoReturn:
        raise UnpicklingError(f"it uses the extension code {code}")

    def load_build(self) -> None:
        target, state = self.stack[-2:]
        if isinstance(target, type) or inspect.isroutine(target):
            raise UnpicklingError("it sets the state of a class or function")
        if isinstance(target, np.dtype):
            _check_dtype(target, state)
        _BUILD(self)
        if isinstance(target, ArrayOnDisk):
            self.stack[-1] = self._array(target)

    def load_bytearray8(self) -> None:
        """As in `pickle`, but the bytes are read before they are given room, not after."""
        size = int.from_bytes(self.read(8), "little")
        content = bytearray(self.read(size))
        if len(content) < size:
            raise EOFError(f"{size} bytes announced, {len(content)} left")
        self.append(content)

    def load_old_instance(self) -> NoReturn:
        raise UnpicklingError("it uses the opcodes INST or OBJ, which Python 3 never writes")

    dispatch[pickle.INST[0]] = dispatch[pickle.OBJ[0]] = load_old_instance
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _array(self, array: ArrayOnDisk) -> Any:
        shape, dtype = array.shape, array.dtype
        if not isinstance(dtype, np.dtype):
            raise UnpicklingError("it holds an array without a dtype")
        sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not sizes or len(shape) > _MAX_DIMENSIONS:
            raise UnpicklingError("it holds an array whose shape is not made of sizes")
        if dtype.hasobject:
            return self.nested().load()
        if dtype.itemsize == 0:
            raise UnpicklingError("it holds an array of zero-size values")
        if array.numpy_array_alignment_bytes is not None:
            self._file.read(self._file.read(1)[0])
        here = self._file.tell()
        needed, left = math.prod(shape) * dtype.itemsize, self._file.seek(0, io.SEEK_END) - here
        self._file.seek(here)
        if needed > left:
            raise EOFError(f"an array claims {needed} bytes, the file has {left} left")
        return self.read_array(shape, dtype, array.order)


_BUILD: Final[Callable[[Any], None]] = pickle._Unpickler.dispatch[pickle.BUILD[0]]


def _dtype(code: str, *_: Any) -> np.dtype[Any]:
    """`numpy.dtype`, for the codes that numpy pickles; never the shared one, as BUILD will change it."""
    if not re.fullmatch("[biufcmMOSUV][0-9]+", code):
        raise UnpicklingError(f"it holds a dtype of code {code[:20]!r}")
    return np.dtype(code, copy=True)


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, by which protocols 0 to 2 write bytes; other codecs would be imported."""
    if encoding != "latin1":
        raise UnpicklingError("it asks for another codec than latin1")
    return text.encode("latin1")


def _check_dtype(dtype: np.dtype[Any], state: Any) -> None:
    """Try `state` on a copy of `dtype`, which arrays may already use.

    `dtype.__setstate__` believes what it is told: a dtype of objects that is not marked as such
    makes numpy take bytes of the file for pointers, and one that grows reaches beyond its arrays.
    Sound is what numpy builds as well from the public description, without objects in fields.
    """
    trial = copy.copy(dtype)
    trial.__setstate__(state)  # type: ignore[attr-defined]
    parts: list[np.dtype[Any]] = []
    if trial.subdtype is not None:
        parts = [trial.base]
        rebuilt = np.dtype((trial.base, trial.shape))
    elif trial.fields is not None and trial.names is not None:
        parts = [trial.fields[name][0] for name in trial.names]
        offsets = [trial.fields[name][1] for name in trial.names]
        layout = {"names": trial.names, "formats": parts, "offsets": offsets, "itemsize": trial.itemsize}
        rebuilt = np.dtype(layout, align=trial.isalignedstruct)  # type: ignore[call-overload]
    else:
        rebuilt = np.dtype(trial.str)
    sound = (trial, trial.itemsize, trial.flags, trial.alignment) == (
        rebuilt, dtype.itemsize, rebuilt.flags, rebuilt.alignment,
    )  # fmt: skip
    if not sound or any(part.hasobject for part in parts):
        raise UnpicklingError("it holds a damaged dtype")
