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

# Below it, the long way takes no longer (600 bytes are one row of 30 numbers).
LEAST_BYTES: Final = 1000
_KEYS: Final = ({"instances"}, {"instances", "outputs"})


def read_number_rows(body: bytes, signature: Signature) -> tuple[NDArray[Any], Any] | None:
    """Rows of shape (rows, columns), and the content of "outputs", or None where the long way must look."""
    dtype = signature.matrix_dtype
    if simdjson is None or dtype is None or dtype.kind != "f" or len(body) < LEAST_BYTES or not body.startswith(b"{"):
        return None
    try:
        content = simdjson.Parser().parse(body)
        keys = list(content)
        # Of a key that comes twice the last counts, and the parser finds the first. What is nested is not for here.
        if len(keys) != len(set(keys)) or set(keys) not in _KEYS or body.count(b"{") > 1:
            return None
        rows = content["instances"]
        outputs = content["outputs"] if "outputs" in keys else None
        if isinstance(outputs, simdjson.Array):
            outputs = outputs.as_list()
        # Arrays within rows would be flattened: then there are more brackets than rows.
        brackets = len(rows) + 1 + isinstance(outputs, list)
        width = len(signature.columns)
        if set(map(len, rows)) != {width} or body.count(b"[") != brackets:
            return None
        flat = np.frombuffer(rows.as_buffer(of_type="d"))
    # Every kind of malformed body and of value that is no number has an error of its own.
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError):
        return None
    # Beyond the mantissa an integer may have lost digits, and nothing tells integers from floats here.
    largest = min(exact_integers(dtype), signature.max_abs)
    if not (flat.size and np.abs(flat).max() <= largest):
        return None
    return flat.reshape(-1, width).astype(dtype), outputs
