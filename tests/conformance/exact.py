"""A reply read back to the numbers it stands for, and an estimator's answers in the same form.

Written without the service's own encoder, so that the two can disagree.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from scipy import sparse

KEYS: Final = {"predict": "predictions", "predict_proba": "probabilities"}


def answer(values: Any) -> Any:
    """What an estimator returned, as nested lists of exact values; a sparse matrix by its rows."""
    if isinstance(values, list) and all(isinstance(part, np.ndarray) for part in values):  # one array per target
        return [list(row) for row in zip(*map(answer, values), strict=True)]
    if sparse.issparse(values):
        rows = values.tocsr()
        parts = {"indptr": rows.indptr, "indices": rows.indices, "data": rows.data}
        return {"shape": list(rows.shape), **{name: answer(part) for name, part in parts.items()}}
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    return exact(np.asarray(values).tolist())


def replied(reply: dict[str, Any], output: str) -> Any:
    """An output of a reply to many rows, its nulls replaced by what `non_finite` says they are."""
    key = KEYS.get(output, output)
    content = reply[key]
    for lost in reply.get("non_finite", []):
        if lost["output"] == key:
            *path, last = lost["at"]
            place = content
            for step in path:
                place = place[step]
            assert place[last] is None
            place[last] = float(lost["value"].replace("Infinity", "inf"))
    return exact(content)


def exact(value: Any) -> Any:
    """Floats as hexadecimal text: 0.0 is not -0.0, NaN is NaN, and 1 is not 1.0 nor true."""
    match value:
        case dict():
            return {key: exact(item) for key, item in value.items()}
        case list():
            return [exact(item) for item in value]
        case float():
            return "NaN" if math.isnan(value) else f"float {value.hex()}"
        case bool():
            return f"bool {value}"
        case str():
            return str(value)
        case _:
            return value


def inexact(value: Any) -> Any:
    """`exact` undone: floats are numbers again, for a comparison that allows for rounding."""
    match value:
        case dict():
            return {key: inexact(item) for key, item in value.items()}
        case list():
            return [inexact(item) for item in value]
        case str() if value.startswith("float "):
            number = float.fromhex(value.removeprefix("float "))
            return number if math.isfinite(number) else str(number)
    return value
