"""How far two answers lie apart: nothing but numbers may differ, and those by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

# A number far smaller than the others of its answer is often what is left of their difference, and
# carries their rounding: below this share of the largest, numbers are measured against the largest.
SMALL: Final = 0.01


@dataclass(frozen=True, slots=True)
class Difference:
    """`size` is relative: 0 is equal, infinity means another label, length or type. `where` says where, in words."""

    size: float
    where: str = ""


def largest_difference(expected: Any, got: Any) -> Difference:
    """The place where two JSON values differ most.

    Floats are measured relative to the larger of the two, but to no less than SMALL of the largest float
    in `expected`; everything else, lengths and keys among it, must be equal.
    """
    pairs = list(_pairs(expected, got, ""))
    floats = [abs(a) for _, a, _ in pairs if type(a) is float]
    least = SMALL * max(floats, default=0.0)
    worst = Difference(0.0)
    for place, a, b in pairs:
        size = _size(a, b, least)
        if size > worst.size:
            worst = Difference(size, f"{place or 'the answer'} is {b!r} where {a!r} was recorded")
    return worst


def _pairs(expected: Any, got: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf with its place; of parts that differ in shape, the shape."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            yield f"keys of {where or 'the answer'}", " ".join(sorted(expected)), " ".join(sorted(got))
            return
        for key in expected:
            yield from _pairs(expected[key], got[key], f"{where}.{key}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            yield f"number of values of {where or 'the answer'}", len(expected), len(got)
            return
        for index, (a, b) in enumerate(zip(expected, got, strict=True)):
            yield from _pairs(a, b, f"{where}[{index}]")
    else:
        yield where, expected, got


def _size(a: Any, b: Any, least: float) -> float:
    if type(a) is float and type(b) is float:
        return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b), least)
    # True == 1 and 1 == 1.0, and yet they are other answers.
    return 0.0 if type(a) is type(b) and a == b else math.inf
