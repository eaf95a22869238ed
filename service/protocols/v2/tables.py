"""Between tensors and a model: which rows the inputs of a request are, which tensors its outputs are.

A model of numbers is asked with one matrix of shape (rows, columns), or with a tensor per column; a table of
mixed columns with a tensor per column. Either way by name, in any order.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.errors import InvalidRequest, shorten
from service.core.messages import InferReply
from service.core.plain import plain_label
from service.core.signature import Output, Signature
from service.core.table import SparseRows, Table, Values
from service.protocols.arrays import decode_arrays, decode_matrix
from service.protocols.v2.tensors import Tensor, datatype_of, text_of

# The one input of a model of numbers, for clients that ask what it is called; any name will do.
MATRIX: Final = "input-0"

# A sparse output of more is not spread out: a request of kilobytes would answer gigabytes.
DENSE_BYTES: Final = 256 * 1024 * 1024

# How the elements of a tensor are to be taken. Only base64 changes any: moments are texts that the column itself
# reads, and the others say what the datatype says already.
CONTENT_TYPES: Final = ("np", "pd", "str", "base64", "datetime")


@dataclass(frozen=True, slots=True)
class TensorAbout:
    """A tensor as metadata describe it: -1 is the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(signature: Signature) -> list[TensorAbout]:
    if signature.matrix_dtype is not None:
        return [TensorAbout(MATRIX, datatype_of(signature.matrix_dtype), (-1, len(signature.columns)))]
    return [TensorAbout(column.name, _datatype(column.dtype), (-1, 1)) for column in signature.columns]


def outputs_of(signature: Signature) -> list[TensorAbout]:
    """One per output; of an output that differs in width from target to target, one per target."""
    return [
        TensorAbout(name, _datatype(output.dtype), (-1, *_shape(output, target)))
        for name, (output, target) in _by_tensor(signature).items()
    ]


def rows_of(tensors: Sequence[Tensor], signature: Signature, content_type: str | None = None) -> Table:
    """The rows that the tensors of a request hold. `content_type` is that of the request as a whole.

    Raises:
        InvalidRequest: an unknown content type, a shape that holds no rows of this model, a name twice.
        InvalidRows: values that the columns do not take.
    """
    if not tensors:
        raise InvalidRequest("the request has no inputs")
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise InvalidRequest("two inputs have the same name")
    arrays = [_content(tensor, content_type) for tensor in tensors]
    only = arrays[0] if len(arrays) == 1 else None
    by_column = content_type == "pd" or tensors[0].content_type == "pd" or (names <= set(signature.names))
    if only is not None and (not by_column or _is_matrix(only, signature)):
        return decode_matrix(only, signature)
    columns = {tensor.name: _column(tensor.name, array) for tensor, array in zip(tensors, arrays, strict=True)}
    return decode_arrays(columns, signature)


def _is_matrix(array: NDArray[Any], signature: Signature) -> bool:
    """Whether the one input is all columns side by side, whatever it is called."""
    return array.ndim == 2 and array.shape[1] == len(signature.columns) > 1


def _column(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise InvalidRequest(f"input {name[:60]!r}: expected shape [rows] or [rows, 1]; got {list(array.shape)}")
    return array


def _content(tensor: Tensor, content_type: str | None) -> NDArray[Any]:
    """The values of a tensor as its content type has them."""
    kind = tensor.content_type or content_type
    if kind not in (None, *CONTENT_TYPES):
        raise InvalidRequest(
            f"input {tensor.name[:60]!r}: unknown content type {shorten(kind)}; known are {', '.join(CONTENT_TYPES)}"
        )
    if kind != "base64":
        return tensor.values
    values = np.empty(tensor.values.size, dtype=object)
    try:
        values[:] = [_from_base64(value) for value in tensor.values.ravel().tolist()]
    except (ValueError, TypeError):
        raise InvalidRequest(f"input {tensor.name[:60]!r}: not every element is base64") from None
    return values.reshape(tensor.shape)


def _from_base64(value: str | bytes | None) -> str | bytes | None:
    return None if value is None else text_of(base64.b64decode(value, validate=True))


# -- outputs -------------------------------------------------------------------------------------


def choose_outputs(wanted: Sequence[str] | None, signature: Signature) -> tuple[str, ...]:
    """The outputs to compute for the tensors named; without names the model's default one.

    Raises:
        InvalidRequest: a name that this model does not offer.
    """
    if not wanted:
        return (signature.default_output,)
    known = _by_tensor(signature)
    for name in wanted:
        if name not in known:
            raise InvalidRequest(f"unknown output {shorten(name)}; this model offers {', '.join(known)}")
    return tuple(dict.fromkeys(known[name][0].name for name in wanted))


def tensors_of(reply: InferReply, wanted: Sequence[str] | None = None) -> list[Tensor]:
    """The answer as tensors: those named, in that order, or all that were computed."""
    known = _by_tensor(reply.signature)
    names = wanted or [name for name, (output, _) in known.items() if output.name in reply.outputs]
    return [_tensor(name, *known[name], reply.outputs[known[name][0].name]) for name in dict.fromkeys(names)]


def _by_tensor(signature: Signature) -> dict[str, tuple[Output, int | None]]:
    """The output, and of one with several arrays the target, that each tensor is."""
    found: dict[str, tuple[Output, int | None]] = {}
    for output in signature.outputs:
        if output.targets is None:
            found[output.name] = output, None
        else:
            found |= {f"{output.name}_{target}": (output, target) for target in range(output.targets)}
    return found


def _tensor(name: str, output: Output, target: int | None, values: Values) -> Tensor:
    if isinstance(values, list):
        values = values[target or 0]
    array = dense(values) if isinstance(values, SparseRows) else values
    datatype = datatype_of(array.dtype)
    return Tensor(name, datatype, array if datatype != "BYTES" else _texts(array))


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    """Labels as texts: what is none, as JSON writes it."""
    texts = np.empty(array.size, dtype=object)
    texts[:] = [_text(value) for value in (array.ravel().tolist() if array.dtype.kind != "M" else array.ravel())]
    return texts.reshape(array.shape)


def _text(label: Any) -> str | bytes:
    if isinstance(label, str | bytes):
        return label if isinstance(label, bytes) else str(label)
    written = plain_label(label)
    return written if isinstance(written, str) else orjson.dumps(written).decode()


def dense(rows: SparseRows) -> NDArray[Any]:
    """A sparse output spread out, for protocols that have no other form for it.

    Raises:
        InvalidRequest: it would be larger than DENSE_BYTES.
    """
    n_rows = len(rows.indptr) - 1
    if n_rows * rows.width * rows.data.itemsize > DENSE_BYTES:
        raise InvalidRequest(
            f"{n_rows} sparse rows of {rows.width} columns are too large when they are spread out; ask for fewer "
            "rows, or ask /models/{name}/predict in JSON, which answers them sparse"
        )
    spread = np.zeros((n_rows, rows.width), dtype=rows.data.dtype)
    spread[np.repeat(np.arange(n_rows), np.diff(rows.indptr)), rows.indices] = rows.data
    return spread


def _shape(output: Output, target: int | None) -> tuple[int, ...]:
    if target is None:
        return output.shape
    classes = (output.classes or [])[target : target + 1]
    return (len(classes[0]),) if classes else (-1,)


def _datatype(dtype: str) -> str:
    try:
        return datatype_of(np.dtype(dtype))
    except TypeError:  # string, bytes, object, datetime
        return "BYTES"
