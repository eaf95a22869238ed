"""Model files that would run a command if opened carelessly, and the pieces to write more of them."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.preprocessing import StandardScaler

_FLOAT: Final = np.dtype("f8")
COMPRESSIONS: Final = ("zlib", "gzip", "bz2", "lzma", "xz")


class Command:
    """Runs `touch path` when unpickled without care."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


def dumped(value: Any, compress: Any = 0, protocol: int | None = None) -> bytes:
    file = io.BytesIO()
    joblib.dump(value, file, compress=compress, protocol=protocol)
    return file.getvalue()


def text(value: str) -> bytes:
    """Pushes `value`."""
    return pickle.BINUNICODE + len(value).to_bytes(4, "little") + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def model() -> StandardScaler:
    return StandardScaler().fit(np.arange(8.0).reshape(4, 2))


def array_file(shape: Any, dtype: Any = _FLOAT, content: bytes = bytes(64)) -> bytes:
    """A joblib file of one array that claims `shape`, whatever follows it."""
    wrapper = NumpyArrayWrapper(np.ndarray, shape, "C", dtype, numpy_array_alignment_bytes=None)
    return pickle.dumps(wrapper, protocol=2)[:-1] + content + pickle.STOP


def attacks(canary: str) -> dict[str, bytes]:
    """By name, files that mention `os.system` (spelt `posix.system` by the pickler) in every way."""
    command = Command(canary)
    system = stack_global("os", "system")
    run = called(system, text(f"touch {canary}"))
    proto = pickle.PROTO + b"\x04"
    shell = f"touch {canary}".encode()
    files = {
        "at the start": dumped([command, model()]),
        "after an array": dumped([np.arange(3.0), model(), command]),
        "inside an object array": dumped(np.array([1, command], dtype=object)),
        "object array in an object array": dumped(np.array([np.array([command], object), 1], dtype=object)),
        "as a parameter of a model": dumped(StandardScaler(copy=command)),
        "as a key": dumped({(1, 2): {frozenset([1]): command}}),
        "popped again": proto + run + pickle.POP + pickle.NONE + pickle.STOP,
        "by way of the memo": proto + system + pickle.MEMOIZE + pickle.POP + b"h\x00"
        + pickle.MARK + text(shell.decode()) + pickle.TUPLE + pickle.REDUCE + pickle.STOP,
        "names from the memo": proto + text("system") + b"\x94" + text("os") + b"\x940" + b"0"
        + b"h\x01h\x00" + pickle.STACK_GLOBAL
        + pickle.MARK + text(shell.decode()) + pickle.TUPLE + pickle.REDUCE + pickle.STOP,
        "Python 2 spelling": b"c__builtin__\neval\n(S'1'\ntR.",
        "dotted name": proto + called(stack_global("sklearn.base", "clone.__globals__"), b"N") + pickle.STOP,
        "module through a module": proto
        + called(stack_global("sklearn.base", "warnings.sys.modules"), text("x")) + pickle.STOP,
        "dotted module": proto
        + called(stack_global("joblib.numpy_pickle", "os.system"), text(shell.decode())) + pickle.STOP,
        "getattr": proto + called(stack_global("builtins", "getattr"), system, text("x")) + pickle.STOP,
        "memory-mapped file": proto + called(stack_global("numpy", "load"), text(canary)) + pickle.STOP,
    }  # fmt: skip
    files |= {f"protocol {number}": dumped([command], protocol=number) for number in range(6)}
    files |= {f"compressed by {how}": dumped([command], compress=(how, 3)) for how in COMPRESSIONS}
    return files


def unreadable(canary: str) -> dict[str, bytes]:
    """By name, files that no exporter writes, or that ask for more than they hold."""
    shell = f"touch {canary}".encode()
    proto = pickle.PROTO + b"\x04"
    good = dumped(model())
    nested = pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000
    damaged = (
        proto + called(stack_global("numpy", "dtype"), text("V8"))
        + pickle.MARK + b"K\x03" + text("|") + b"N" + pickle.MARK + text("a") + pickle.TUPLE
        + pickle.EMPTY_DICT + text("a") + called(stack_global("numpy", "dtype"), text("O8")) + b"K\x00"
        + pickle.TUPLE2 + pickle.SETITEM + b"K\x08" + b"K\x01" + b"K\x00" + pickle.TUPLE + pickle.BUILD
        + pickle.STOP
    )  # fmt: skip
    return {
        "INST": b"(S'" + shell + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + shell + b"'\no.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x01.",
        "EXT4": b"\x80\x02\x84\x01\x01\x01\x01.",
        "persistent id": b"Pcanary\n.",
        "binary persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "two pickles": good + dumped(Command(canary)),
        "trailing byte": good + b"\x00",
        "trailing byte in a frame": b"\x80\x04\x95\x03\x00\x00\x00\x00\x00\x00\x00N.N",
        "trailing after compression": dumped(model(), compress=3) + b"x",
        "compressed twice": dumped(model(), compress=("gzip", 3)) * 2,
        "side file": proto + stack_global("joblib.numpy_pickle", "NDArrayWrapper") + b")\x81.",
        "compressed side file": proto
        + stack_global("joblib.numpy_pickle_compat", "ZNDArrayWrapper") + b")\x81.",
        "joblib 0.9": b"ZF0x10" + bytes(40),
        "empty": b"",
        "text": b"this is not a model",
        "zip": b"PK\x03\x04" + bytes(100),
        "4 GB array": array_file((2**29,)),
        "overflowing array": array_file((2**62, 8)),
        "negative shape": array_file((-1,)),
        "two negatives": array_file((-4, -2)),
        "shape of bools": array_file((True,)),
        "shape of text": array_file("8"),
        "65 dimensions": array_file((1,) * 65),
        "zero-size values": array_file((8,), np.dtype("V0")),
        "dtype of text": array_file((8,), "f8"),
        "4 GB bytearray": b"\x80\x05\x96" + (2**32).to_bytes(8, "little") + b"x.",
        "endless bytearray": b"\x80\x05\x96" + b"\xff" * 8 + b"x.",
        "state of a class": proto + stack_global("sklearn.base", "BaseEstimator")
        + b"N}" + text("predict") + b"Ns\x86b.",
        "deep tuple as a key": proto + b"}" + nested + b"Ns.",
        "shared tuple as a key": proto + b"})" + b"2\x86" * 60 + b"Ns.",
        "object dtype in disguise": damaged,
        "dtype that grows": proto + called(stack_global("numpy", "dtype"), text("V8"))
        + b"(K\x03" + text("|") + b"NNNM\xff\xffK\x01K\x00tb.",
        "call of an instance": proto
        + called(called(stack_global("sklearn.gaussian_process.kernels", "RBF")), b"]") + b".",
        "structured text dtype": proto + called(stack_global("numpy", "dtype"), text("f8,O")) + b".",
    }  # fmt: skip


@contextmanager
def registered_extension(code: int) -> Iterator[None]:
    """While open, the extension `code` means `os.system`."""
    copyreg.add_extension("os", "system", code)
    try:
        yield
    finally:
        copyreg.remove_extension("os", "system", code)
