"""What a call costs, by its number of rows: measured on this host, read off between the measurements."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (1, 8, 64, 512, 4096)

# Calls of one size that are timed. The best of them counts: whatever else runs on the host only adds to a
# time, and the best of a few small calls is repeatable where their mean is not.
REPEATS: Final = 7

# Rows cost much the same each. Whoever takes so many times as long for them as for fewer was interrupted, perhaps at
# every call so far, and is timed again while there is any time left.
DOUBTFUL: Final = 3


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Seconds by rows: `points` are (rows, seconds), rows ascending, at least one."""

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        rows = [n for n, _ in self.points]
        if not rows or rows != sorted(set(rows)) or rows[0] < 1:
            raise ValueError(f"expected points of ascending rows, from 1 on, got {rows}")

    def seconds(self, rows: int) -> float:
        """Linear between two points, proportional to the rows beyond the last, and never less than the first."""
        points = self.points
        right = bisect_left(points, (rows,))
        if right == 0:
            return points[0][1]
        x, y = points[right - 1]
        if right == len(points):
            return y * rows / x
        beyond, more = points[right]
        return y + (more - y) * (rows - x) / (beyond - x)


def measure(
    run: Callable[[int], object],
    *,
    sizes: Sequence[int] = SIZES,
    budget_s: float = 0.25,
    clock: Callable[[], float] = time.perf_counter,
) -> CostCurve:
    """Time `run(rows)` for each of `sizes`, ascending.

    The first size is always measured. A further one is, if by the measurements so far it fits into what is
    left of the budget. What `run` raises is raised.
    """
    end = clock() + budget_s
    points: list[tuple[int, float]] = []
    for size in sizes:
        expected = CostCurve(tuple(points)).seconds(size) if points else math.inf
        # One call to warm up, and one to time.
        if points and clock() + 2 * expected > end:
            break
        until = clock() + budget_s / len(sizes)
        points.append((size, _best(run, size, clock, until=until, end=end, doubtful=DOUBTFUL * expected)))
    return CostCurve(tuple(points))


def _best(
    run: Callable[[int], object],
    size: int,
    clock: Callable[[], float],
    *,
    until: float,
    end: float,
    doubtful: float,
) -> float:
    """The shortest of some calls, at least one; as many as there is time for `until` then, to the `end` where even the
    shortest is doubtful."""
    begun = clock()
    run(size)
    now = clock()
    if now >= end:
        return now - begun
    # The first call may have loaded, compiled or allocated, so it counts only where there is no other.
    times: list[float] = []
    while not times or (len(times) < REPEATS and now < (end if min(times) > doubtful else until)):
        begun = clock()
        run(size)
        now = clock()
        times.append(now - begun)
    return min(times)
