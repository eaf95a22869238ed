"""Tensors as the Open Inference Protocol has them: a name, a datatype, a shape, and values in JSON or raw bytes.

REST and gRPC read and write the same ones. What a model makes of them, and of its answers, is in
`v2/tables.py`.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, shorten
from service.core.signature import Column
from service.protocols.values import Problems, decode_column, decode_numbers

# Little-endian, as they travel. BYTES are arrays of objects: str, or bytes where it is not UTF-8.
DATATYPES: Final = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}  # fmt: skip
_NAMES: Final = {dtype: name for name, dtype in DATATYPES.items()}

# Not of a model, but of what came: how large a number of a datatype may be, and what is missing, is asked later.
_COLUMNS: Final = {
    name: Column.model_validate(
        {"name": name, "dtype": "string" if name == "BYTES" else "bool" if name == "BOOL" else dtype.name,
         "nullable": True}
    )
    for name, dtype in DATATYPES.items()
}  # fmt: skip

# Before each element of BYTES stands how long it is.
_SIZE: Final = struct.Struct("<I")

# numpy has no arrays of more dimensions.
_DIMENSIONS: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """`values` has the tensor's shape. Where JSON brought null, floats are NaN and everything else an object
    None. `content_type` says how to take them: pd, np, str, base64, datetime, or as they are.
    """

    name: str
    datatype: str
    values: NDArray[Any]
    content_type: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The datatype of an array; whatever holds no numbers and no truths travels as BYTES."""
    return _NAMES.get(dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype, "BYTES")


def read_raw(name: str, datatype: str, shape: Sequence[int], content: memoryview | bytes) -> Tensor:
    """A tensor out of its raw bytes: little-endian, row by row. Of numbers nothing is copied.

    Raises:
        InvalidRequest: an unknown datatype, an impossible shape, or another number of bytes than they need.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    if datatype == "BYTES":
        values = _split(name, count, content)
    else:
        if len(content) != count * dtype.itemsize:
            raise InvalidRequest(
                f"input {name[:60]!r}: shape {list(shape)} of {datatype} needs {count * dtype.itemsize} bytes; "
                f"got {len(content)}"
            )
        values = np.frombuffer(content, dtype=dtype)
        if datatype == "BOOL" and values.size and values.view(np.uint8).max() > 1:
            raise InvalidRequest(f"input {name[:60]!r}: expected each byte of BOOL to be 0 or 1")
    return Tensor(name, datatype, values.reshape(tuple(shape)))


def _split(name: str, count: int, content: memoryview | bytes) -> NDArray[Any]:
    """Elements of BYTES: a length of four bytes, little-endian, before each."""
    if count * 4 > len(content):
        raise InvalidRequest(
            f"input {name[:60]!r}: {count} elements need {count * 4} bytes or more; got {len(content)}"
        )
    content = bytes(content)
    values = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        size = _SIZE.unpack_from(content, at)[0] if at + 4 <= len(content) else 0
        end = at + 4 + size
        if end > len(content):
            raise InvalidRequest(f"input {name[:60]!r}: its bytes end within element {index} of {count}")
        values[index] = text_of(content[at + 4 : end])
        at = end
    if at != len(content):
        raise InvalidRequest(f"input {name[:60]!r}: {len(content) - at} bytes are left after {count} elements")
    return values


def text_of(value: bytes) -> str | bytes:
    """UTF-8 as text, anything else as it is."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def write_raw(values: NDArray[Any], datatype: str) -> bytes:
    """What `read_raw` reads."""
    if datatype != "BYTES":
        return values.astype(DATATYPES[datatype], copy=False).tobytes()
    parts: list[bytes] = []
    for value in values.ravel().tolist():
        content = value if isinstance(value, bytes) else str(value).encode()
        parts += (_SIZE.pack(len(content)), content)
    return b"".join(parts)


def read_list(name: str, datatype: str, shape: Sequence[int], data: Any, *, exact: bool = False) -> Tensor:
    """A tensor out of JSON: `data` nested or flat, row by row. null is NaN, or a missing value.

    Numbers may have been read into a flat array of the datatype already.

    Raises:
        InvalidRequest: an unknown datatype, an impossible shape, another number of elements, or one that the
            datatype cannot hold.
        NeedsExactParse: not `exact`, and a float may be an integer that lost digits.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    if datatype == "FP16":
        raise InvalidRequest(f"input {name[:60]!r}: FP16 has no JSON form; send FP32, or its raw bytes")
    flat, sizes = (data, [len(data)]) if isinstance(data, np.ndarray) else _flat(name, data)
    if len(sizes) > 1 and _without_ones(sizes) != _without_ones(shape):
        raise InvalidRequest(f"input {name[:60]!r}: its lists are nested as {sizes}, but its shape is {list(shape)}")
    if len(flat) != count:
        raise InvalidRequest(f"input {name[:60]!r}: shape {list(shape)} holds {count} elements; got {len(flat)}")
    if isinstance(flat, np.ndarray):
        return Tensor(name, datatype, flat.reshape(tuple(shape)))
    values = None if flat else np.empty(0, dtype=dtype)
    if flat and dtype.kind in "fiub":
        values = decode_numbers(flat, dtype.newbyteorder("="), nullable=True, max_abs=math.inf)
    if values is None:
        problems = Problems()
        values = decode_column(flat, _COLUMNS[datatype], problems, exact=exact)
        if problems.count:
            problem = problems.first()
            raise InvalidRequest(
                f"input {name[:60]!r}, element {problem.row}: expected {problem.expected}, got {problem.got}"
            )
    return Tensor(name, datatype, values.reshape(tuple(shape)))


def _flat(name: str, data: Any) -> tuple[list[Any], list[int]]:
    """The elements of nested lists, and the shape that the lists have."""
    if not isinstance(data, list):
        raise InvalidRequest(f'input {name[:60]!r}: expected "data" to be a list; got {shorten(data)}')
    flat, sizes = data, [len(data)]
    for _ in range(_DIMENSIONS):
        if list not in set(map(type, flat)):
            return flat, sizes
        lengths = {len(part) if type(part) is list else -1 for part in flat}
        if len(lengths) > 1:
            raise InvalidRequest(f"input {name[:60]!r}: the lists of its data differ in length or depth")
        sizes += lengths
        flat = list(chain.from_iterable(flat))
    raise InvalidRequest(f"input {name[:60]!r}: its data is nested too deeply")


def _without_ones(shape: Sequence[int]) -> list[int]:
    """Shapes that differ in this only hold their elements in the same order."""
    return [size for size in shape if size != 1]


def write_list(values: NDArray[Any]) -> NDArray[Any]:
    """The numbers, flat, as an array that orjson writes. JSON has no NaN and no infinity: they become null."""
    flat = values.ravel()
    dtype = np.float64 if flat.dtype.kind == "f" else flat.dtype.newbyteorder("=")
    return np.ascontiguousarray(flat, dtype=dtype)


def write_texts(values: NDArray[Any]) -> tuple[list[str], str]:
    """The elements of BYTES, flat, as JSON holds them, and their content type: where one is no UTF-8, base64."""
    flat: list[str | bytes] = values.ravel().tolist()
    try:
        return [value.decode() if isinstance(value, bytes) else value for value in flat], "str"
    except UnicodeDecodeError:
        coded = [value if isinstance(value, bytes) else value.encode() for value in flat]
        return [base64.b64encode(value).decode() for value in coded], "base64"


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise InvalidRequest(
            f"input {name[:60]!r}: unknown datatype {shorten(datatype)}; known are {', '.join(DATATYPES)}"
        )
    return dtype


def _count(name: str, shape: Sequence[int]) -> int:
    """How many elements a shape has."""
    # Together the sizes must be ones that numpy can count by, even where one of them is zero.
    if (
        len(shape) > _DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
        or math.prod(size for size in shape if size) >= 2**40
    ):
        sizes = ", ".join(shorten(size, 20) for size in shape[: _DIMENSIONS + 1])
        raise InvalidRequest(f"input {name[:60]!r}: [{sizes}] is no shape")
    return math.prod(shape)
