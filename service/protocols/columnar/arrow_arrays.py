"""Between the buffers of Arrow's arrays and numpy, without a copy where both have the same layout.

pyarrow has conversions of its own; they import pandas, which takes most of a second and 40 MB. Here nothing is read
outside of a buffer, whatever its neighbours say. Source: the columnar format of Arrow.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# By Arrow's names, arrays whose buffers are numpy's.
DTYPES: Final = {
    "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
    "halffloat": "<f2", "float": "<f4", "double": "<f8",
    "timestamp[s]": "<M8[s]", "timestamp[ms]": "<M8[ms]", "timestamp[us]": "<M8[us]", "timestamp[ns]": "<M8[ns]",
    "date64[ms]": "<M8[ms]", "date32[day]": "<i4",
}  # fmt: skip
_TEXTS: Final = {"string": "<i4", "binary": "<i4", "large_string": "<i8", "large_binary": "<i8"}
_VIEWS: Final = ("string_view", "binary_view")
# A view: its length, and either so many bytes or four of them, the buffer that holds all, and where they begin there.
_VIEW_BYTES: Final = 16
_INLINE_BYTES: Final = 12
_ARROW: Final = {np.dtype(name): kind for kind, name in DTYPES.items() if not kind.startswith("date")}


def is_plain(kind: Any) -> bool:
    """Whether an array of this type has one value per row, and is read here."""
    if hasattr(kind, "index_type"):  # a dictionary
        kind = kind.value_type
        return is_text(kind) or _name(kind) in DTYPES or _name(kind) == "bool"
    return is_text(kind) or _name(kind) in DTYPES or _name(kind) in ("bool", "null")


def is_moment(kind: Any) -> bool:
    return _name(kind).startswith(("timestamp", "date"))


def is_text(kind: Any) -> bool:
    return _name(kind) in _TEXTS or _name(kind) in _VIEWS


def numpy_array(array: Any) -> NDArray[Any]:
    """An array of shape (rows,) for `arrays.decode_array`: missing is NaN, NaT, None in objects, or masked.

    `array` is a pyarrow.Array that was validated in full, of a type that `is_plain`.
    """
    if hasattr(array, "dictionary"):
        return _decoded(numpy_array(array.dictionary), numpy_array(array.indices))
    name, rows = _name(array.type), len(array)
    if name == "null":
        return np.full(rows, None, dtype=object)
    holes = _holes(array)
    if name in _VIEWS:
        return _viewed(array, name, holes)
    if name in _TEXTS:
        return _texts(array, name, holes)
    if name == "bool":
        return _masked(_bits(array.buffers()[1], array.offset, rows).view(bool), holes)
    dtype = np.dtype(DTYPES[name])
    values = np.frombuffer(_content(array.buffers()[1]), dtype, rows, array.offset * dtype.itemsize)
    if name.startswith("date32"):
        values = values.astype("<M8[D]")
    if holes is None or values.dtype.kind in "iu":
        return _masked(values, holes)
    return np.where(holes, np.array("NaT" if values.dtype.kind == "M" else np.nan, values.dtype), values)


def viewed_bytes(array: Any) -> int:
    """How long the texts of an array of views are together, which may all be of the same text; of any other 0."""
    if hasattr(array, "dictionary"):
        return viewed_bytes(array.dictionary)
    if _name(array.type) not in _VIEWS or not len(array):
        return 0
    sizes, holes = _views(array)[:, 0], _holes(array)
    return int(sizes.sum(dtype=np.int64, where=True if holes is None else ~holes))


def arrow_array(pa: Any, values: NDArray[Any]) -> Any:
    """A pyarrow.Array of `values`, of shape (rows,): of numbers, moments and truths as they are, else of texts.

    Those are str, or in an array of objects also None.
    """
    dtype = values.dtype.newbyteorder("=")
    kind = _ARROW.get(dtype)
    if kind is not None:
        content = np.ascontiguousarray(values, dtype)
        holes = np.isnat(content) if content.dtype.kind == "M" else None
        return _from_buffers(pa, kind, content, holes)
    if values.dtype.kind == "b":
        return _from_buffers(pa, "bool", np.packbits(values, bitorder="little"), None, len(values))
    texts = values.tolist()
    coded = [b"" if text is None else text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, coded)], dtype=np.int64)
    holes = np.array([text is None for text in texts])
    kind, offsets = (pa.string(), np.int32) if ends[-1] < 2**31 else (pa.large_string(), np.int64)
    buffers = [_packed(pa, holes), pa.py_buffer(ends.astype(offsets)), pa.py_buffer(b"".join(coded))]
    return pa.Array.from_buffers(kind, len(texts), buffers)


def has_layout(dtype: np.dtype[Any]) -> bool:
    """Whether Arrow has a type for an array of this dtype."""
    return dtype.newbyteorder("=") in _ARROW or dtype.kind in "bU"


def _name(kind: Any) -> str:
    """What Arrow calls a type, without its time zone."""
    name = str(kind)
    return f"{name.partition(',')[0]}]" if name.startswith("timestamp") and "," in name else name


def _content(buffer: Any) -> Any:
    return b"" if buffer is None else buffer


def _bits(buffer: Any, start: int, count: int) -> NDArray[np.uint8]:
    """Bits, the least significant first, as 0 and 1."""
    first = start // 8
    content = np.frombuffer(_content(buffer), np.uint8, (start + count + 7) // 8 - first, first)
    return np.unpackbits(content, bitorder="little")[start - 8 * first :][:count]


def _holes(array: Any) -> NDArray[np.bool_] | None:
    validity = array.buffers()[0]
    if validity is None or not array.null_count:
        return None
    return ~_bits(validity, array.offset, len(array)).view(bool)


def _masked(values: NDArray[Any], holes: NDArray[np.bool_] | None) -> NDArray[Any]:
    return values if holes is None else np.ma.MaskedArray(values, holes)


def _texts(array: Any, name: str, holes: NDArray[np.bool_] | None) -> NDArray[Any]:
    _, offsets, content = array.buffers()
    dtype = np.dtype(_TEXTS[name])
    if not len(array):
        return np.empty(0, dtype=object)
    ends = np.frombuffer(offsets, dtype, len(array) + 1, array.offset * dtype.itemsize)
    coded = bytes(memoryview(_content(content))[int(ends[0]) : int(ends[-1])])
    cuts = (ends - ends[0]).tolist()
    texts = np.empty(len(array), dtype=object)
    if coded.isascii() and name.endswith("string"):
        text = coded.decode("ascii")
        texts[:] = [text[start:end] for start, end in pairwise(cuts)]
    else:  # bytes stay what they are: whether they are texts is asked where they are decoded
        parts = [coded[start:end] for start, end in pairwise(cuts)]
        # What is no UTF-8 was refused, but where a value is missing: there anything may stand.
        texts[:] = [part.decode(errors="replace") for part in parts] if name.endswith("string") else parts
    if holes is not None:
        texts[holes] = None
    return texts


def _views(array: Any) -> NDArray[np.int32]:
    """The four numbers of each view."""
    numbers: NDArray[np.int32] = np.frombuffer(array.buffers()[1], "<i4", 4 * len(array), _VIEW_BYTES * array.offset)
    return numbers.reshape(-1, 4)


def _viewed(array: Any, name: str, holes: NDArray[np.bool_] | None) -> NDArray[Any]:
    # pyarrow's own conversions follow the views of missing values, which nothing has validated.
    texts = np.empty(len(array), dtype=object)
    if not len(array):
        return texts
    views = _views(array)
    inline = views.tobytes()
    contents = [memoryview(buffer) for buffer in array.buffers()[2:]]
    missing = np.zeros(len(array), dtype=bool) if holes is None else holes
    for row in np.flatnonzero(~missing).tolist():
        size, _, place, start = views[row].tolist()
        at = row * _VIEW_BYTES + 4
        part = inline[at : at + size] if size <= _INLINE_BYTES else bytes(contents[place][start : start + size])
        texts[row] = part.decode() if name == "string_view" else part
    return texts


def _decoded(dictionary: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Values by their codes: each text is one object, however many rows hold it."""
    if not len(dictionary):  # then all codes are null
        return np.full(len(codes), None, dtype=object)
    holes = np.ma.getmaskarray(codes)
    places = np.ma.filled(codes, 0)
    holes = holes | np.ma.getmaskarray(dictionary)[places]
    values: NDArray[Any] = np.ma.getdata(dictionary)[places]
    if values.dtype.kind == "O":
        values[holes] = None
        return values
    return _masked(values, holes if holes.any() else None)


def _from_buffers(
    pa: Any, kind: str, content: NDArray[Any], holes: NDArray[np.bool_] | None, rows: int | None = None
) -> Any:
    buffers = [None if holes is None else _packed(pa, holes), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.type_for_alias(kind), len(content) if rows is None else rows, buffers)


def _packed(pa: Any, holes: NDArray[np.bool_]) -> Any:
    """A bitmap of what is there, None where nothing is missing."""
    return pa.py_buffer(np.packbits(~holes, bitorder="little")) if holes.any() else None
