"""The short way for a V2 body of many numbers in one tensor: from the body to an array, without Python objects.

It reads what the long way (`v2/body.py`) would read, to the same bits, or declines: whatever is unusual, wrong
or in need of a word is left to the long way. A property test holds the two together.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from service.protocols.json_body import MAX_DEPTH
from service.protocols.number_rows import LEAST_BYTES, count_bytes, simdjson
from service.protocols.v2.tensors import DATATYPES
from service.protocols.values import exact_integers

_FLOATS: Final = ("FP32", "FP64")


def read_number_body(body: bytes) -> dict[str, Any] | None:
    """The body as JSON, but for the data of its input, which is an array; or None where the long way must look."""
    if simdjson is None or len(body) < LEAST_BYTES or not body.startswith(b"{"):
        return None
    # Several tensors, and what may be nested too deep, found without a parser.
    if body.count(b'"datatype"') != 1 or count_bytes(body, b"{") > MAX_DEPTH:
        return None
    try:
        parsed = simdjson.Parser().parse(body)
        content = {key: parsed[key] for key in parsed if key != "inputs"}
        (entry,) = parsed["inputs"]
        tensor = {key: entry[key] for key in entry if key != "data"}
        data = entry["data"]
        rows = len(data) if isinstance(data[0], simdjson.Array) else 0
        # Lists within rows would be flattened, and of a key that comes twice it is the last that counts.
        brackets = 3 + rows + isinstance(content.get("outputs"), simdjson.Array)
        if (count_bytes(body, b"["), len(parsed), len(entry)) != (brackets, len(content) + 1, len(tensor) + 1):
            return None
        content, tensor = _plain(content), _plain(tensor)
        if tensor["datatype"] not in _FLOATS or (rows and tensor["shape"] != [rows, *set(map(len, data))]):
            return None
        flat = np.frombuffer(data.as_buffer(of_type="d"))
    # Every kind of malformed body and of value that is no number has an error of its own.
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):
        return None
    dtype = DATATYPES[tensor["datatype"]]
    # Beyond the mantissa an integer may have lost digits, and nothing tells integers from floats here.
    if not (flat.size and np.abs(flat).max() <= exact_integers(dtype)):
        return None
    return {**content, "inputs": [{**tensor, "data": flat.astype(dtype)}]}


def _plain(members: dict[str, Any]) -> dict[str, Any]:
    """The members without what belongs to the parser, which is gone with the body."""
    return {
        key: value.as_dict() if isinstance(value, simdjson.Object)
        else value.as_list() if isinstance(value, simdjson.Array) else value
        for key, value in members.items()
    }  # fmt: skip
