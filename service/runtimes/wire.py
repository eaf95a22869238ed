"""Tables and answers ↔ one block of memory and a description of it, without pickle.

A description is plain JSON: what each array is and where it lies in the block.

    numbers, datetimes, booleans, fixed-width text   their own bytes
    objects (None, str, bool, int, float)            a tag per element, ends of the texts, the texts in UTF-8

Arrays start at multiples of 64 bytes, so that a reader may use them where they are. The block is
filled in by whoever sends it (`Packing.parts`), straight from the arrays: nothing is copied here that
lies in one piece. Objects follow Arrow's layout for strings, with ends counted in characters, not bytes:
one decoding of the whole text, then slices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.table import Frame, Matrix, SparseRows, Table, Values

# A cache line, and more than any instruction set asks for.
ALIGNMENT: Final = 64

Spec = dict[str, Any]
Block = memoryview
A = TypeVar("A")

# Only these dtypes are ever made from a description: nothing that holds references or fields.
_DTYPE: Final = re.compile(r"[<>|][biufcMmUS]\d{1,9}(\[\d{0,9}[A-Za-z]{1,2}\])?")
_MAX_DIMENSIONS: Final = 16
_MAX_ITEM_BYTES: Final = 1 << 20  # numpy makes room for one item even where there are none

_NONE, _STR, _FALSE, _TRUE, _INT, _FLOAT = range(6)


class WireError(Exception):
    """A description and its block do not fit together, or a value has no place in one."""


class Packing:
    """Arrays on their way into one block: `parts` are the pieces with their padding, `size` is their sum in bytes.

    The pieces are views of the arrays, which must not change until they are sent.
    """

    def __init__(self) -> None:
        self.parts: list[memoryview] = []
        self.size = 0

    def add(self, array: NDArray[Any]) -> Spec:
        """Raises WireError where an object in it is not of a kind that travels."""
        if array.dtype.kind == "O":
            return self._objects(array)
        if _DTYPE.fullmatch(array.dtype.str) is None or not 0 < array.dtype.itemsize <= _MAX_ITEM_BYTES:
            raise WireError(f"an array of dtype {array.dtype} cannot travel")
        spec: Spec = {"dtype": array.dtype.str, "shape": list(array.shape)}
        if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous:
            spec["order"] = "F"  # sent as it lies: the other order would be a copy, and other last digits further on
            array = array.T
        spec["at"] = self._bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return spec

    def _objects(self, array: NDArray[Any]) -> Spec:
        values = array.reshape(-1).tolist()
        texts = values
        if not all(type(value) is str for value in values):
            tags, texts = _tags_and_texts(values)
            tagged = {"tags": self._bytes(tags)}
        else:
            tagged = {}  # all strings, the most frequent case
        ends = np.fromiter(map(len, texts), np.int64, len(texts)).cumsum()
        # Lone surrogates are legal in a Python string, and a caller's JSON may hold them.
        text = np.frombuffer("".join(texts).encode("utf-8", "surrogatepass"), np.uint8)
        return {
            "objects": list(array.shape),
            **tagged,
            "ends": self._bytes(ends.view(np.uint8)),
            "text": self._bytes(text),
            "bytes": len(text),
        }

    def _bytes(self, raw: NDArray[np.uint8]) -> int:
        padding = -self.size % ALIGNMENT
        if padding:
            self.parts.append(memoryview(bytes(padding)))
        at = self.size + padding
        if len(raw):
            self.parts.append(raw.data)
        self.size = at + len(raw)
        return at


def pack_table(packing: Packing, table: Table) -> Spec:
    if isinstance(table, Matrix):
        return {"matrix": packing.add(table.values)}
    return {"columns": [[name, packing.add(values)] for name, values in table.columns.items()]}


def unpack_table(spec: Any, block: Block) -> Table:
    """The table, in views of `block` where it holds numbers: writable if the block is.

    Raises:
        WireError: they do not fit together.
    """
    return _cleanly(_table, spec, block)


def pack_answers(packing: Packing, answers: Mapping[str, Values]) -> Spec:
    return {name: _pack_values(packing, values) for name, values in answers.items()}


def unpack_answers(spec: Any, block: Block) -> dict[str, Values]:
    """As `unpack_table`."""
    return _cleanly(_answers, spec, block)


def unpack_array(spec: Any, block: Block) -> NDArray[Any]:
    """As `unpack_table`."""
    return _cleanly(_array, spec, block)


def _tags_and_texts(values: Iterable[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    tags, texts = bytearray(), []
    for value in values:
        tag, text = _tag_and_text(value)
        tags.append(tag)
        texts.append(text)
    return np.frombuffer(tags, np.uint8), texts


def _tag_and_text(value: Any) -> tuple[int, str]:
    match value.item() if isinstance(value, np.generic) else value:
        case None:
            return _NONE, ""
        case str() as text:
            return _STR, str(text)
        case bool() as truth:
            return _TRUE if truth else _FALSE, ""
        case int() as number:
            return _INT, format(number, "x")  # decimal digits are limited to 4300
        case float() as number:
            return _FLOAT, number.hex()
    raise WireError(f"an object of type {type(value).__name__} cannot travel")


_FROM_TEXT: Final[Mapping[int, Callable[[str], Any]]] = {
    _NONE: lambda text: None,
    _STR: lambda text: text,
    _FALSE: lambda text: False,
    _TRUE: lambda text: True,
    _INT: lambda text: int(text, 16),
    _FLOAT: float.fromhex,
}


def _pack_values(packing: Packing, values: Values) -> Spec:
    if isinstance(values, SparseRows):
        return {
            "width": values.width,
            "indptr": packing.add(values.indptr),
            "indices": packing.add(values.indices),
            "data": packing.add(values.data),
        }
    if isinstance(values, list):
        return {"targets": [packing.add(target) for target in values]}
    return packing.add(values)


def _cleanly(read: Callable[[Any, Block], A], spec: Any, block: Block) -> A:
    """Whatever is wrong with a description becomes one kind of error."""
    try:
        return read(spec, block)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WireError(f"a description that does not fit its block: {error}") from error


def _table(spec: Any, block: Block) -> Table:
    if "matrix" in spec:
        matrix = _array(spec["matrix"], block)
        if matrix.ndim != 2:
            raise WireError("a matrix without rows and columns")
        return Matrix(matrix)
    columns = {_text(name): _array(column, block) for name, column in spec["columns"]}
    if not columns or len({len(values) for values in columns.values()}) != 1:
        raise WireError("columns of different lengths, or none")
    return Frame(columns)


def _answers(spec: Any, block: Block) -> dict[str, Values]:
    return {_text(name): _values(values, block) for name, values in spec.items()}


def _values(spec: Any, block: Block) -> Values:
    if "targets" in spec:
        return [_array(target, block) for target in spec["targets"]]
    if "width" in spec:
        parts = (_array(spec[part], block) for part in ("indptr", "indices", "data"))
        return SparseRows(_count(spec["width"]), *parts)
    return _array(spec, block)


def _array(spec: Any, block: Block) -> NDArray[Any]:
    if "objects" in spec:
        return _object_array(spec, block)
    name = spec["dtype"]
    if _DTYPE.fullmatch(name) is None:
        raise WireError("a dtype that does not travel")
    dtype = np.dtype(name)
    if not 0 < dtype.itemsize <= _MAX_ITEM_BYTES:
        raise WireError("a dtype that does not travel")
    shape = _shape(spec["shape"])
    size = math.prod(shape)
    raw = _piece(block, spec["at"], size * dtype.itemsize)
    if size == 0:
        return np.zeros(shape, dtype)
    array: NDArray[Any] = np.frombuffer(raw, dtype)
    if dtype.kind == "U" and array.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() > 0x10FFFF:
        raise WireError("text beyond the end of Unicode")
    return array.reshape(shape[::-1]).T if spec.get("order") == "F" else array.reshape(shape)


def _object_array(spec: Any, block: Block) -> NDArray[Any]:
    shape = _shape(spec["objects"])
    size = math.prod(shape)
    # Eight bytes for each end lie in the block, so a size that is made up is noticed before anything is made.
    ends = np.frombuffer(_piece(block, spec["ends"], size * 8), np.int64) if size else np.zeros(0, np.int64)
    text = str(_piece(block, spec["text"], _count(spec["bytes"])), "utf-8", "surrogatepass")
    stops = ends.tolist()
    if size and (stops[-1] != len(text) or stops[0] < 0 or (ends[1:] < ends[:-1]).any()):
        raise WireError("texts that end outside of their block")
    values: list[Any] = [text[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    if "tags" in spec:
        tags = bytes(_piece(block, spec["tags"], size))
        values = [_FROM_TEXT[tag](value) for tag, value in zip(tags, values, strict=True)]
    array = np.empty(size, dtype=object)
    array[:] = values
    return array.reshape(shape)


def _piece(block: Block, at: Any, size: int) -> memoryview:
    start = _count(at)
    if start + size > len(block):
        raise WireError(f"an array of {size} bytes at {start} in a block of {len(block)}")
    return block[start : start + size]


def _shape(spec: Any) -> tuple[int, ...]:
    if not isinstance(spec, list) or len(spec) > _MAX_DIMENSIONS:
        raise WireError("a shape that is none")
    return tuple(map(_count, spec))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise WireError("a size or place that is no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WireError("a name that is no text")
    return value
