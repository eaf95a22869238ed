"""TensorFlow's tensors and examples: from the messages to values, and back.

The values are read by the decoders of `v2/tensors.py` and `v1/rows.py`; only their wrapping differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from service.core.errors import InvalidRequest
from service.protocols.protos import tensorflow_pb as tf
from service.protocols.v1.model import DATA_TYPES
from service.protocols.v2.tables import TensorAbout
from service.protocols.v2.tensors import Tensor, read_list, read_raw, text_of, write_raw

_DATATYPES: Final = {tf.DataType[name]: datatype for datatype, name in DATA_TYPES.items()}

# The field of a TensorProto that holds the elements of each datatype.
_VALUES: Final = {
    "FP16": "half_val", "FP32": "float_val", "FP64": "double_val",
    "INT8": "int_val", "INT16": "int_val", "INT32": "int_val", "INT64": "int64_val",
    "UINT8": "int_val", "UINT16": "int_val", "UINT32": "uint32_val", "UINT64": "uint64_val",
    "BOOL": "bool_val", "BYTES": "string_val",
}  # fmt: skip

# The last element of a tensor may stand for all that follow. No more than these are made of the elements that a
# request holds: a few bytes would take any amount of memory.
REPEATED: Final = 1_000_000


def read_tensors(messages: Mapping[str, Any]) -> list[Tensor]:
    """The inputs of a request by name. Raises what `read_tensor` does, and InvalidRequest beyond REPEATED."""
    repeated = sum(_missing(message) for message in messages.values())
    if repeated > REPEATED:
        raise InvalidRequest(f"the inputs leave out {repeated} elements that repeat their last; at most {REPEATED} may")
    return [read_tensor(name, message) for name, message in messages.items()]


def _missing(message: Any) -> int:
    """How many elements of the shape the last one stands for."""
    datatype = _DATATYPES.get(message.dtype)
    sizes = [dim.size for dim in message.tensor_shape.dim]
    held = len(getattr(message, _VALUES[datatype])) if datatype and not message.tensor_content else 0
    return max(0, math.prod(sizes) - held) if held and min(sizes, default=0) >= 0 else 0


def read_tensor(name: str, message: Any) -> Tensor:
    """A TensorProto with its elements as raw bytes or in the field of their type; raw numbers are not copied.

    However large the shape is, the last element fills it: `read_tensors` looks at that first.

    Raises:
        InvalidRequest: another type than those of `v2/tensors.py`, no shape, or elements that do not fill it.
    """
    what = f"input {name[:60]!r}"
    datatype = _DATATYPES.get(message.dtype)
    if datatype is None:
        raise InvalidRequest(f"{what}: unknown dtype {message.dtype}; known are {', '.join(DATA_TYPES.values())}")
    if message.tensor_shape.unknown_rank:
        raise InvalidRequest(f"{what}: its shape is unknown")
    shape = [dim.size for dim in message.tensor_shape.dim]
    if message.tensor_content and datatype == "BYTES":
        raise InvalidRequest(f"{what}: expected the elements of DT_STRING in string_val; got tensor_content")
    if message.tensor_content:
        return read_raw(name, datatype, shape, message.tensor_content)
    values = list(getattr(message, _VALUES[datatype]))
    values += values[-1:] * _missing(message)
    if datatype == "FP16":  # as the 16 bits that it has, in an integer
        if not all(0 <= bits < 2**16 for bits in values):
            raise InvalidRequest(f"{what}: expected half_val to hold 16 bits each")
        return read_raw(name, datatype, shape, np.array(values, dtype="<u2").tobytes())
    if datatype in ("FP32", "FP64"):
        values = [None if value != value else value for value in values]
    elif datatype == "BYTES":
        values = [text_of(value) for value in values]
    return read_list(name, datatype, shape, values, exact=True)


def write_tensor(tensor: Tensor) -> Any:
    """Numbers as raw bytes, texts in their field: what `tf.make_ndarray` reads."""
    message = tf.TensorProto(dtype=dtype_of(tensor.datatype), tensor_shape=shape_of(tensor.shape))
    if tensor.datatype == "BYTES":
        elements = tensor.values.ravel().tolist()
        message.string_val.extend(value if isinstance(value, bytes) else value.encode() for value in elements)
    else:
        message.tensor_content = write_raw(tensor.values, tensor.datatype)
    return message


def info_of(about: TensorAbout) -> Any:
    """A TensorInfo: how metadata describe a tensor."""
    return tf.TensorInfo(name=about.name, dtype=dtype_of(about.datatype), tensor_shape=shape_of(about.shape))


def dtype_of(datatype: str) -> int:
    return int(tf.DataType[DATA_TYPES[datatype]])


def shape_of(shape: tuple[int, ...]) -> Any:
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in shape])


def read_example(example: Any) -> dict[str, list[Any]]:
    """An Example as JSON would have it: a list of values per feature, without those that hold none."""
    features: dict[str, list[Any]] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if kind == "bytes_list":
            values = [text_of(value) for value in values]
        elif kind == "float_list":
            values = [None if value != value else value for value in values]
        if values:
            features[name] = values
    return features
