"""How many of scikit-learn's estimators are served without unpickling. `python -m benchmarks.coverage`

Each one of `tests/estimators.py` is exported to a folder, and loaded from it under the rule `pickle: never`:
it counts when every output it offers is still there. The loader has then asked the golden rows of each engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.report import machine, table

RESULTS: Final = Path(__file__).parent / "results" / "coverage.json"
LEAST: Final = 95


@dataclass(frozen=True, slots=True)
class Covered:
    """An estimator that is servable. `engines` by output without unpickling, `why` by output that has none."""

    name: str
    engines: dict[str, list[str]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        return bool(self.engines) and not self.why


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", help="an estimator; again for more; writes no results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found, refused = look(arguments.only)
    print(as_text(found, refused))
    if not arguments.only:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(content(found, refused), indent=1) + "\n")


def look(only: Sequence[str] | None) -> tuple[list[Covered], dict[str, str]]:
    """What is servable, and by name what cannot be exported at all, with the reason."""
    from service.core.artefact_errors import EstimatorUnusable
    from tests.estimators import fitted_estimators

    found, refused = [], {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator, rows in fitted_estimators():
            if only and name not in only:
                continue
            try:
                found.append(cover(name, estimator, rows, Path(folder)))
            except EstimatorUnusable as error:
                refused[name] = str(error)
            except Exception as error:  # a bug of an exporter: it is told, and the others are counted
                refused[name] = f"FAILS: {error!r}"
            print(f"\r{len(found)} of {len(found) + len(refused)}  {name:40}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found, refused


def cover(name: str, estimator: Any, rows: Any, repository: Path) -> Covered:
    """Raises EstimatorUnusable where there is nothing to export."""
    from service.core.artefact_errors import ArtefactError
    from service.core.rules import ModelRules
    from service.loading.loader import Loader
    from service.repository.sources import Found
    from training import export

    started = time.perf_counter()
    exported = export(estimator, rows, name=name, repository=repository)
    seconds = time.perf_counter() - started
    outputs = exported.signature.output_names
    load = Loader(rules=lambda _: ModelRules(fidelity="close", pickle="never"))
    try:
        checked = load(Found(name, exported.version, exported.path, ()))
    except ArtefactError as error:
        kept, dropped, fallback = set[str](), exported.manifest.dropped, str(error)
    else:
        kept, dropped, fallback = set(checked.manifest.signature.output_names), checked.dropped, "no engine"
    engines = {
        output: [entry.name for entry in exported.manifest.engines if output in entry.agreement] for output in kept
    }
    why = {output: reasons(output, dropped) or fallback for output in outputs if output not in kept}
    return Covered(name, {output: engines[output] for output in outputs if output in kept}, why, round(seconds, 2))


def reasons(output: str, dropped: Sequence[Any]) -> str:
    """What was said of this output, or of all, by each engine that was dropped (`DroppedEngine`)."""
    return "; ".join(f"{drop.name}: {drop.reason}" for drop in dropped if drop.output in (output, None))


def as_text(found: Sequence[Covered], refused: Mapping[str, str]) -> str:
    whole = [one for one in found if one.is_whole]
    first = Counter(one.engines[output][0] for one in whole for output in one.engines if one.engines[output])
    lines = [
        f"| {one.name} | {', '.join(one.engines) or '—'} | {output} | {why.replace('|', '/')[:160]} |"
        for one in found
        for output, why in one.why.items()
    ]
    return "\n\n".join(
        part
        for part in (
            f"{len(whole)} of {len(found)} servable estimators answer every output without unpickling "
            f"(at least {LEAST}); outputs by first engine: {dict(first)}",
            table("estimator | covered | not covered | why", lines),
            table("not servable | why", [f"| {name} | {why[:160]} |" for name, why in refused.items()]),
        )
        if part
    )


def content(found: Sequence[Covered], refused: Mapping[str, str]) -> dict[str, Any]:
    return {
        "benchmark": "coverage",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "servable": len(found),
        "without_unpickling": sum(one.is_whole for one in found),
        "at_least": LEAST,
        "estimators": [{**asdict(one), "is_whole": one.is_whole} for one in found],
        "not_servable": dict(refused),
    }


if __name__ == "__main__":
    main()
