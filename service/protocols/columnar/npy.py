"""Arrays as numpy saves them (.npy, versions 1 to 3): a header in Python's notation, then the bytes of the array.

Source: numpy.lib.format. Nothing is unpickled, and no value is copied.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, NotAcceptable, UnreadableRequest
from service.core.messages import InferReply
from service.core.signature import Signature
from service.core.table import SparseRows, Table, Values
from service.protocols.arrays import MOMENT_UNITS, decode_arrays, decode_matrix
from service.protocols.v2.tables import dense

_MAGIC: Final = b"\x93NUMPY"
# Where the header begins, by version, and how it is coded.
_HEADERS: Final[Mapping[tuple[int, ...], tuple[int, str]]] = {
    (1, 0): (10, "latin-1"), (2, 0): (12, "latin-1"), (3, 0): (12, "utf-8"),
}  # fmt: skip
# As numpy itself: the parser of Python is not made for more from strangers.
_HEADER_BYTES: Final = 10_000


def read_npy(body: bytes, signature: Signature, parameters: Mapping[str, str], limit: int) -> Table:
    """A matrix of shape (rows, columns), of one column also (rows,), or a structured array by field name.

    Raises:
        UnreadableRequest: not .npy, of another length than its header says, or of Python objects.
        InvalidRequest: another shape, or values that the columns do not take.
    """
    array = parse_npy(body)
    if array.dtype.names is None:
        return decode_matrix(array, signature)
    if array.ndim != 1:
        raise InvalidRequest(f"expected a structured array of shape (rows,); got {array.shape}")
    return decode_arrays({name: array[name] for name in array.dtype.names}, signature)


def parse_npy(body: bytes) -> NDArray[Any]:
    """The array, as a read-only view of `body`. Raises UnreadableRequest."""
    start, encoding = _HEADERS.get(tuple(body[6:8]), (0, ""))
    if not body.startswith(_MAGIC) or not start or len(body) < start:
        raise UnreadableRequest("the body is not .npy: it does not begin as one of version 1 to 3")
    end = start + int.from_bytes(body[8:start], "little")
    if end > min(len(body), start + _HEADER_BYTES):
        raise UnreadableRequest(f"the body is not .npy: its header of {end - start} bytes is too long, or cut off")
    try:
        array = _view(ast.literal_eval(body[start:end].decode(encoding).strip()), memoryview(body)[end:])
    except Exception as error:  # whatever Python's notation can say instead of a header, and a header of an array
        raise UnreadableRequest(f"the body is not .npy: {error!s:.100}") from None
    dtype = array.dtype
    if not all(map(_is_read, _leaves(dtype))):
        raise UnreadableRequest(f"the array is of {dtype!s:.60}; numbers, truths, dates and fixed-width texts are read")
    if not all(map(_is_unicode, [array] if dtype.names is None else [array[name] for name in dtype.names])):
        raise UnreadableRequest("the array holds texts with code points that Unicode does not have")
    return array


def _view(header: Any, content: memoryview) -> NDArray[Any]:
    """Raises all kinds of errors where the header is none, or the content is not what it says."""
    shape = header["shape"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r:.60} is no shape")
    dtype = np.lib.format.descr_to_dtype(header["descr"])
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    return np.frombuffer(content, np.uint8).view(dtype).reshape(shape, order="F" if header["fortran_order"] else "C")


def _is_unicode(texts: NDArray[Any]) -> bool:
    """Whether an array of texts can be made texts; numpy itself does not look at what is in it."""
    if texts.dtype.kind != "U" or not texts.size:
        return True
    points = np.ascontiguousarray(texts).view("<u4" if texts.dtype.byteorder in "<=" else ">u4")
    return not bool(((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any())


def _leaves(dtype: np.dtype[Any]) -> list[np.dtype[Any]]:
    return [dtype] if dtype.names is None else [dtype[name] for name in dtype.names]


def _is_read(dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "M":
        return np.datetime_data(dtype)[0] in MOMENT_UNITS
    return dtype.kind in "biufSU"


def write_npy(reply: InferReply) -> bytes:
    """The only output, as `numpy.load` reads it without pickle.

    Raises:
        NotAcceptable: several outputs, or one that is no single array of numbers or texts.
    """
    if len(reply.outputs) > 1:
        raise NotAcceptable(f"npy holds one output; {', '.join(reply.outputs)} were asked for")
    ((name, values),) = reply.outputs.items()
    content = io.BytesIO()
    np.lib.format.write_array(content, _one_array(name, values), allow_pickle=False)
    return content.getvalue()


def _one_array(name: str, values: Values) -> NDArray[Any]:
    if isinstance(values, list):
        raise NotAcceptable(f"{name} is one array per target, and npy holds one; ask for another form")
    array = dense(values) if isinstance(values, SparseRows) else values
    if array.dtype.kind == "O":
        if not all(isinstance(value, str) for value in array.flat):
            raise NotAcceptable(f"{name} holds values of several kinds, and npy one; ask for another form")
        array = array.astype(np.str_)
    return array
