"""docs/protocols.md is held to the route table, docs/metrics.md to that of the metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.observability.families import FAMILIES
from service.protocols.routes import DIALECTS

PAGE: Final = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text()
METRICS: Final = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()


def told(dialect: str) -> set[tuple[str, str]]:
    """The routes in the section of a dialect, its optional parts written out."""
    section = re.search(rf"^## [^\n]*\(`{dialect}`\)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None, dialect
    found = re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", section[1])
    return {(method, path) for method, pattern in found for path in written_out(pattern.replace("\\|", "|"))}


def written_out(pattern: str) -> Iterator[str]:
    optional = re.search(r"\[(.*?)\]", pattern)
    if optional is None:
        yield pattern
        return
    for part in ("", *optional[1].split("|")):
        yield from written_out(pattern[: optional.start()] + part + pattern[optional.end() :])


def test_every_route_of_a_dialect_is_told_and_no_other() -> None:
    routes = {name: {(route.method, route.path) for route in table} for name, table in DIALECTS.items()}

    assert {name: told(name) for name in DIALECTS} == routes


def test_every_metric_is_told_with_its_type_labels_and_unit_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (\w*) \| ", METRICS, re.MULTILINE)

    found = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), unit) for name, kind, labels, unit in rows}
    assert found == {family.name: (family.kind, family.labels, family.unit) for family in FAMILIES.values()}
