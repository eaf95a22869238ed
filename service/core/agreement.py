"""Whether two answers are the same answer: labels equal, numbers within a tolerance."""

from __future__ import annotations

import math
from typing import Any


def disagreement(expected: Any, got: Any, rtol: float, where: str = "") -> str | None:
    """The first place where two JSON values differ, in words, or None where they agree.

    Floats agree within `rtol`, relative to the larger and absolute near zero; everything else,
    lengths and keys among it, must be equal.
    """
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return f"{where or 'the answer'} has {sorted(got)} where {sorted(expected)} was recorded"
        pairs = [(f"{where}.{key}".lstrip("."), expected[key], got[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return f"{where or 'the answer'} has {len(got)} values where {len(expected)} were recorded"
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(expected, got, strict=True))]
    else:
        same = _equal(expected, got, rtol)
        return None if same else f"{where or 'the answer'} is {got!r} where {expected!r} was recorded"
    return next((found for place, a, b in pairs if (found := disagreement(a, b, rtol, place)) is not None), None)


def _equal(expected: Any, got: Any, rtol: float) -> bool:
    numbers = (int, float)
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got  # True == 1, and yet another answer
    if not isinstance(expected, numbers) or not isinstance(got, numbers):
        return bool(expected == got)
    if isinstance(expected, int) and isinstance(got, int):
        return expected == got
    return math.isclose(expected, got, rel_tol=rtol, abs_tol=rtol)
