"""A model file of skops: a zip archive of a JSON document and arrays, read by skops under rules of our own.

skops refuses types that nobody trusts before it builds anything. What it leaves to its caller is done here: which
types are trusted (the allow-list and the operator's names, as for joblib files), what may be called with arguments of
the file's choice, and how much the archive may unpack to.

Source: `skops/io/_general.py`, `_numpy.py`, `_scipy.py` and `_sklearn.py` of skops 0.13 to 0.16, protocols 0 to 2.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Collection, Iterator
from typing import Any, Final

import numpy as np

from service.core.artefact_errors import ArtefactError, ModelFileUnreadable, UntrustedNames
from service.repository.allowlist import check_importable, refused_names
from service.repository.joblib_file import MAX_BYTES


def _names(module: str, names: str) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for name in names.split())


MAGIC: Final = b"PK\x03\x04"
# What skops calls its members: a plain name, so that nothing can lie outside of the archive.
_MEMBER: Final = re.compile(r"schema\.json|[A-Za-z0-9_-]{1,64}\.(npy|npz|bin)")
# The decoders of the others allocate what the archive asks for.
_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# A large forest takes about 10 MiB; a document of Python objects takes some ten times its size in memory.
_SCHEMA_BYTES: Final = 256 << 20

# Types that skops asks about although they hold nothing but what an array is of.
_TAME: Final = frozenset({"numpy.dtype"})
_SCALARS: Final = _names(
    "numpy",
    "bool bool_ int8 int16 int32 int64 intc intp uint8 uint16 uint32 uint64 float16 float32 float64 longdouble"
    " complex64 complex128 object_ str_ bytes_ datetime64 timedelta64",
)
_PLAIN: Final = _names("builtins", "bool bytes complex dict float int list NoneType object set str tuple")
# By the kind of node that calls what it names: the names that models have there. Whatever else such a node names would
# be called with arguments of the file's choice, and must be trusted by name.
_CALLED: Final[dict[str, frozenset[str]]] = {
    "ConstructorFromReduceNode": _names("builtins", "complex frozenset range")
    | _names("datetime", "date datetime time timedelta timezone")
    | {"zoneinfo.ZoneInfo"},
    "DictNode": frozenset({"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"}),
    "ListNode": frozenset({"builtins.list"}),
    "MethodNode": frozenset(),
    "NdArrayNode": _SCALARS | {"numpy.ndarray"},
    "OperatorFuncNode": frozenset(),
    "PartialNode": frozenset(),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "SetNode": frozenset({"builtins.set"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    # Keys of dictionaries are made by calling the type that is named for them.
    "TypeNode": _SCALARS | _PLAIN,
}


def open_skops(data: bytes, *, trusted: Collection[str] = (), max_bytes: int = MAX_BYTES) -> Any:
    """The object in the skops file `data`, once all the types it names are known to be fine.

    `trusted` is what the operator adds to the allow-list; it must never come from beside the model.

    Raises:
        ModelFileUnreadable: not one whole skops file, or it unpacks to more than `max_bytes`.
        UntrustedNames: it names other types. None of them was made.
        ArtefactError: skops is not installed.
    """
    skops = _skops()
    if refused := _refused(data, trusted, max_bytes):
        raise UntrustedNames(refused)
    try:
        return skops.loads(data, trusted=skops.get_untrusted_types(data=data))
    # Whatever a constructor or `__setstate__` makes of a state it did not write.
    except Exception as error:
        raise ModelFileUnreadable(f"the skops file cannot be rebuilt: {error!r:.200}") from error


def needed_skops_trust(data: bytes) -> list[str]:
    """The names that a server must be told to trust before it opens `data`, sorted.

    Raises:
        EstimatorUnusable: the model uses something defined in a script or notebook.
        ModelFileUnreadable, ArtefactError: as for `open_skops`.
    """
    refused = _refused(data, (), MAX_BYTES)
    check_importable(refused)
    return refused


def dump_skops(estimator: Any) -> bytes:
    """The estimator as a skops file.

    Raises:
        ArtefactError: skops is not installed, or has no form for a part of the estimator.
    """
    skops = _skops()
    try:
        written: bytes = skops.dumps(estimator)
    except Exception as error:  # skops calls into every object it meets
        raise ArtefactError(f"skops cannot write the estimator: {error!r:.200}; use --format joblib") from error
    return written


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise ArtefactError("the model is a skops file: pip install 'tandem-serving[skops]'") from None
    return skops.io


def _refused(data: bytes, trusted: Collection[str], max_bytes: int) -> list[str]:
    """Types that are neither allowed nor trusted, and what the file would have called and the operator did not name.

    The latter are looked for in the document, wherever in it they stand, not in the tree that skops makes of it.
    """
    called = set()
    for node in _nodes(_schema(data, max_bytes)):
        name = f"{node.get('__module__')}.{node.get('__class__')}"
        allowed = _CALLED.get(str(node["__loader__"]))
        if allowed is not None and name not in allowed:
            called.add(name)
    try:
        named = set(_skops().get_untrusted_types(data=data)) - _TAME
    except Exception as error:
        raise ModelFileUnreadable(f"the skops file is corrupt: {error!r:.200}") from error
    # Names end up in messages and in the options that these propose, so they must look like names.
    if odd := [name for name in called | named if not all(part.isidentifier() for part in name.split("."))]:
        raise ModelFileUnreadable(f"the skops file names something that cannot be a name: {min(odd)[:60]!r}")
    # The allow-list speaks of names that are kept, or made without arguments; it is not asked about calls.
    return sorted({*refused_names(named, trusted), *refused_names(called, trusted, allowed=())})


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("__loader__"), str):
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _schema(data: bytes, max_bytes: int) -> Any:
    """The document of the archive, after every member was found to be no larger than it may be."""
    if not data.startswith(MAGIC):
        raise ModelFileUnreadable("the model file is not a skops file")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, max_bytes)
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        _check_array(file, member.file_size)
                elif member.filename.endswith(".npz"):
                    _check_arrays(archive.read(member), max_bytes)
            return json.loads(archive.read("schema.json"))
    except ModelFileUnreadable:
        raise
    # zipfile and numpy raise what they like of bytes they did not write.
    except Exception as error:
        raise ModelFileUnreadable(f"the skops file is corrupt: {error!r:.200}") from error


def _check_members(archive: zipfile.ZipFile, max_bytes: int) -> None:
    members = archive.infolist()
    called = [member.filename for member in members]
    if odd := [name for name in called if not _MEMBER.fullmatch(name)]:
        raise ModelFileUnreadable(f"the skops file has a member called {odd[0][:60]!r}")
    if len(called) != len(set(called)):
        raise ModelFileUnreadable("the skops file has two members of one name")
    _check_sizes(members, max_bytes)
    if archive.getinfo("schema.json").file_size > _SCHEMA_BYTES:
        raise ModelFileUnreadable(f"the document of the skops file is larger than {_SCHEMA_BYTES} bytes")


def _check_arrays(content: bytes, max_bytes: int) -> None:
    """A sparse matrix: an archive in the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_sizes(archive.infolist(), max_bytes)
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_array(file, member.file_size)


def _check_sizes(members: Collection[zipfile.ZipInfo], max_bytes: int) -> None:
    """`zipfile` reads no more of a member than the size that its entry claims."""
    if sum(member.file_size for member in members) > max_bytes:
        raise ModelFileUnreadable(f"the skops file unpacks to more than {max_bytes} bytes")
    if any(member.compress_type not in _COMPRESSIONS or member.flag_bits & 1 for member in members):
        raise ModelFileUnreadable("the skops file is encrypted, or compressed by something else than deflate")


def _check_array(file: Any, size: int) -> None:
    """numpy makes room for what the header claims before it reads the values."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or dtype.itemsize == 0 or any(length < 0 for length in shape):
        raise ModelFileUnreadable(f"the skops file holds an array of shape {shape} and dtype {str(dtype)[:40]}")
    if math.prod(shape) * dtype.itemsize > size:
        raise ModelFileUnreadable(
            f"an array claims {math.prod(shape) * dtype.itemsize} bytes, the skops file has {size} for it"
        )
