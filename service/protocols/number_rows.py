"""The short way for `{"instances": [[…], …]}` of many numbers: from the body to one array, without Python objects.

It reads what the long way (`native.py`) would read, to the same bits, or declines: whatever is unusual, wrong
or in need of a word is left to the long way. A property test holds the two together.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.core.signature import Signature
from service.protocols.values import exact_integers

simdjson: Any
try:
    simdjson = import_module("simdjson")
except ImportError:  # no wheel for this platform: the long way is the only one
    simdjson = None

# Below it, only what begins in the usual way is worth a look: records would be parsed for nothing.
LEAST_BYTES: Final = 1000
_USUAL: Final = b'{"instances"'
_KEYS: Final = ({"instances"}, {"instances", "outputs"})


def read_number_rows(body: bytes, signature: Signature) -> tuple[NDArray[Any], Any] | None:
    """Rows of shape (rows, columns), and the content of "outputs", or None where the long way must look."""
    dtype = signature.matrix_dtype
    if simdjson is None or dtype is None or dtype.kind != "f":
        return None
    if not body.startswith(_USUAL if len(body) < LEAST_BYTES else b"{"):
        return None
    try:
        content = simdjson.Parser().parse(body)
        rows = content["instances"]
        # With no other text than this key, there is nothing beside the rows.
        is_alone = body.startswith(_USUAL) and body.find(b'"', len(_USUAL)) < 0
        outputs = None if is_alone else _outputs(content, body)
        # Arrays within rows would be flattened: then there are more brackets than rows.
        brackets = len(rows) + 1 + isinstance(outputs, list)
        width = len(signature.columns)
        if set(map(len, rows)) != {width} or count_bytes(body, b"[") != brackets:
            return None
        flat = np.frombuffer(rows.as_buffer(of_type="d"))
    # Every kind of malformed body and of value that is no number has an error of its own.
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError):
        return None
    # Beyond the mantissa an integer may have lost digits, and nothing tells integers from floats here.
    largest = min(exact_integers(dtype), signature.max_abs)
    if not (flat.size and np.abs(flat).max() <= largest):
        return None
    return flat.astype(dtype).reshape(-1, width), outputs


def count_bytes(body: bytes, byte: bytes) -> int:
    """`body.count(byte)`, which looks at many bytes one by one."""
    if len(body) < LEAST_BYTES:
        return body.count(byte)
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == byte[0]))


def _outputs(content: Any, body: bytes) -> Any:
    """What "outputs" holds. Raises ValueError where there is anything else beside the rows."""
    keys = list(content)
    # Of a key that comes twice the last counts, and the parser finds the first. What is nested is not for here.
    if len(keys) != len(set(keys)) or set(keys) not in _KEYS or count_bytes(body, b"{") > 1:
        raise ValueError
    outputs = content["outputs"] if "outputs" in keys else None
    return outputs.as_list() if isinstance(outputs, simdjson.Array) else outputs
