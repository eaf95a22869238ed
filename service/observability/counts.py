"""Numbers by metric and labels: how they are counted, added up over processes, and written to a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from service.observability.families import FAMILIES

Labels = tuple[str, ...]
# By name and labels. A gauge or counter is one number; a histogram is how many lie in each bucket, the last one
# without an upper bound, and then their sum.
Gauges = dict[tuple[str, Labels], float]
Histogram = list[float]

# Every label has few values. Should one have many after all, they share a series: a scrape must stay a scrape.
MOST: Final = 2000
OTHER: Final = "other"


class Counts:
    """Counters and histograms, which only grow. One thread at a time."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Histogram]] = {}

    def add(self, name: str, labels: Labels = (), amount: float = 1.0) -> None:
        series = self.counters.get(name)
        if series is None:
            series = self.counters[name] = {}
        if labels not in series:
            labels = _within(labels, series)
        series[labels] = series.get(labels, 0.0) + amount

    def histogram(self, name: str, labels: Labels) -> Histogram:
        """The one of these labels, for `observe`."""
        series = self.histograms.get(name)
        if series is None:
            series = self.histograms[name] = {}
        found = series.get(labels)
        if found is None:
            labels = _within(labels, series)
            found = series.setdefault(labels, [0.0] * (len(FAMILIES[name].buckets) + 2))
        return found

    def include(self, other: Counts) -> None:
        """Add what `other` has counted."""
        for name, counters in other.counters.items():
            for labels, amount in counters.items():
                self.add(name, labels, amount)
        for name, histograms in other.histograms.items():
            series = self.histograms.setdefault(name, {})
            for labels, histogram in histograms.items():
                labels = labels if labels in series else _within(labels, series)
                before = series.get(labels, [0.0] * len(histogram))
                series[labels] = [a + b for a, b in zip(before, histogram, strict=True)]

    def forget(self, live: set[str]) -> None:
        """Let go of series of models that are not `live`, once there are many of them."""
        kinds: tuple[dict[str, dict[Labels, Any]], ...] = (self.counters, self.histograms)
        for name, series in (pair for kind in kinds for pair in kind.items()):
            if FAMILIES[name].per_model and len(series) > MOST // 2:
                for labels in [labels for labels in series if labels[0] not in live]:
                    del series[labels]


def observe(histogram: Histogram, buckets: Sequence[float], value: float) -> None:
    histogram[bisect_left(buckets, value)] += 1
    histogram[-1] += value


def _within(labels: Labels, series: dict[Labels, Any]) -> Labels:
    return labels if len(series) < MOST else (OTHER,) * len(labels)


def add_gauges(some: Iterable[Gauges]) -> Gauges:
    """The gauges of several processes as one."""
    total: Gauges = {}
    for gauges in some:
        for (name, labels), value in gauges.items():
            before = total.get((name, labels))
            if before is None:
                total[name, labels] = value
            else:
                total[name, labels] = max(before, value) if FAMILIES[name].is_shared else before + value
    return total


def write(counts: Counts, gauges: Gauges | None = None) -> bytes:
    return orjson.dumps(
        {
            "counters": [[name, *pair] for name, series in counts.counters.items() for pair in series.items()],
            "histograms": [[name, *pair] for name, series in counts.histograms.items() for pair in series.items()],
            "gauges": [[name, labels, value] for (name, labels), value in (gauges or {}).items()],
        }
    )


def read(content: bytes) -> tuple[Counts, Gauges]:
    """What `write` wrote, less what this version of the service does not know.

    Raises:
        ValueError, LookupError, TypeError: something else.
    """
    found = orjson.loads(content)
    counts = Counts()
    for name, labels, value in found["counters"]:
        if name in FAMILIES:
            counts.counters.setdefault(name, {})[tuple(labels)] = value
    for name, labels, histogram in found["histograms"]:
        if name in FAMILIES and len(histogram) == len(FAMILIES[name].buckets) + 2:
            counts.histograms.setdefault(name, {})[tuple(labels)] = histogram
    gauges = {(name, tuple(labels)): value for name, labels, value in found["gauges"] if name in FAMILIES}
    return counts, gauges
