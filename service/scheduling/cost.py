"""What a call costs, by its number of rows: measured on this host, read off between the measurements."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

SIZES: Final = (1, 8, 64, 512, 4096)

# Calls of one size that are timed. The best of them counts: whatever else runs on the host only adds to a
# time, and the best of a few small calls is repeatable where their mean is not.
REPEATS: Final = 7

# Rows cost much the same each. Whoever takes so many times as long for them as for fewer was interrupted, perhaps at
# every call so far, and is timed again while there is any time left.
DOUBTFUL: Final = 3


if sys.platform == "linux":
    import resource

    def own_time() -> tuple[float, int]:
        """Of the calling thread: seconds of processor time, and how often it has waited for anything."""
        return time.thread_time(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

else:

    def own_time() -> tuple[float, int]:
        """As if it had always waited."""
        return 0.0, time.perf_counter_ns()


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
    own: Callable[[], tuple[float, int]] = own_time,
) -> CostCurve:
    """Time `run(rows)` for each of `sizes`, ascending.

    The first size is always measured. A further one is, if by the measurements so far it fits into what is
    left of the budget. What `run` raises is raised.

    A call that waits for nothing takes the processor time of its thread: what `clock` shows beyond that, others had of
    the core. One that waits, for another process or thread, takes what `clock` shows.
    """
    end = clock() + budget_s
    points: list[tuple[int, float]] = []
    for size in sizes:
        expected = CostCurve(tuple(points)).seconds(size) if points else math.inf
        # One call to warm up, and one to time.
        if points and clock() + 2 * expected > end:
            break
        until = clock() + budget_s / len(sizes)
        points.append((size, _best(run, size, clock, own, until=until, end=end, doubtful=DOUBTFUL * expected)))
    # Fewer rows never take longer than more: whoever did was interrupted at every call.
    seconds = reversed(list(accumulate((seconds for _, seconds in reversed(points)), min)))
    return CostCurve(tuple(zip((size for size, _ in points), seconds, strict=True)))


def _best(
    run: Callable[[int], object],
    size: int,
    clock: Callable[[], float],
    own: Callable[[], tuple[float, int]],
    *,
    until: float,
    end: float,
    doubtful: float,
) -> float:
    """The shortest of some calls, at least one; as many as there is time for `until` then, to the `end` where even the
    shortest is doubtful."""

    def timed() -> float:
        spent, waits = own()
        begun = clock()
        run(size)
        took = clock() - begun
        spent_then, waits_then = own()
        return min(took, spent_then - spent) if waits_then == waits else took

    first = timed()
    if clock() >= end:
        return first
    # The first call may have loaded, compiled or allocated, so it counts only where there is no other.
    times: list[float] = []
    while not times or (len(times) < REPEATS and clock() < (end if min(times) > doubtful else until)):
        times.append(timed())
    return min(times)
