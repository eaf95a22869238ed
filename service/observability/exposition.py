"""Figures as Prometheus reads them: its text format, or OpenMetrics where the scraper asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import accumulate
from typing import Any, cast

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.observability.counts import Counts, Gauges, Histogram, Labels
from service.observability.families import FAMILIES, Family


def expose(accept: str, counts: Counts, gauges: Gauges, models: Collection[str]) -> tuple[bytes, str]:
    """All metrics as `accept` has them, and their content type.

    Of metrics by model only those of `models` are shown, and what was asked of unknown ones.
    """
    encode, content_type = choose_encoder(accept)
    return encode(cast(Collector, _Figures(counts, gauges, frozenset(models)))), content_type


class _Figures:
    """What the library takes for a registry."""

    def __init__(self, counts: Counts, gauges: Gauges, models: frozenset[str]) -> None:
        self._counts = counts
        self._models = models
        self._gauges: dict[str, dict[Labels, float]] = {}
        for (name, labels), value in gauges.items():
            self._gauges.setdefault(name, {})[labels] = value

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES.values():
            metric = Metric(family.name.removesuffix("_total"), family.help, family.kind, family.unit)
            if family.kind == "histogram":
                for labels, histogram in self._shown(family, self._counts.histograms):
                    _add_histogram(metric, family, labels, histogram)
            else:
                source = self._counts.counters if family.kind == "counter" else self._gauges
                for labels, value in self._shown(family, source):
                    metric.add_sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
            yield metric

    def _shown(self, family: Family, source: Mapping[str, Mapping[Labels, Any]]) -> list[tuple[Labels, Any]]:
        series = sorted(source.get(family.name, {}).items())
        return [pair for pair in series if pair[0][0] in self._models] if family.per_model else series


def _add_histogram(metric: Metric, family: Family, labels: Labels, histogram: Histogram) -> None:
    named = dict(zip(family.labels, labels, strict=True))
    *buckets, total = histogram
    counts = list(accumulate(buckets))
    for bound, count in zip((*family.buckets, float("inf")), counts, strict=True):
        edge: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
        metric.add_sample(f"{family.name}_bucket", {**named, "le": edge}, count)
    metric.add_sample(f"{family.name}_count", named, counts[-1])
    metric.add_sample(f"{family.name}_sum", named, total)
