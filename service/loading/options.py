"""The engines of a version that may answer on this host: opened, asked the golden rows, and timed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.core.artefact_errors import GoldenDisagrees
from service.core.contracts import Engine
from service.core.errors import TandemError
from service.core.rules import Fidelity
from service.core.table import Table, copied, take
from service.loading.engines import CRASHING, NOT_HERE, open_engine
from service.loading.golden import CLOSE_RTOL, EXACT_RTOL, Golden, answered, compare
from service.loading.sandbox import Sandbox
from service.repository.manifest import GOLDEN, DroppedEngine, EngineEntry, Manifest
from service.scheduling.cost import CostCurve, measure
from service.scheduling.routing import Option

_log = logging.getLogger(__name__)

# Another machine's linear algebra may round the last digits differently; a wrong model is
# wrong by far more. Outputs of float32 carry seven digits, of which sums lose some.
GOLDEN_RTOL: Final = 1e-6
GOLDEN_RTOL_FLOAT32: Final = 1e-3
# What finding out an engine's cost may cost, where nobody says otherwise.
MEASURE_S: Final = 0.15
ESTIMATOR: Final = "estimator"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of an engine: an option, if it passed for any output, and what was dropped, with the reasons.

    `close` lets go of the engine, where it is in another process.
    """

    option: Option | None
    dropped: tuple[DroppedEngine, ...] = ()
    close: Callable[[], None] = lambda: None


def open_compiled(
    manifest: Manifest,
    files: Mapping[str, bytes],
    golden: Golden,
    fidelity: Fidelity,
    sandbox: Sandbox | None = None,
    *,
    measure_s: float = MEASURE_S,
) -> Iterator[Trial]:
    """The compiled engines of the manifest, for the outputs that they repeat on this host, too.

    `files` hold the golden rows as well. Engines whose library is known to crash go through the sandbox first.
    `measure_s` are the seconds that timing each may take.
    """

    def open_(entry: EngineEntry) -> Engine:
        content = {name: files[name] for name in entry.files}
        if sandbox is not None and entry.runtime in CRASHING:
            sandbox.try_out_engine(entry, manifest, content, files[GOLDEN])
        return open_engine(entry.runtime, content, manifest.signature, entry.options)

    for entry in manifest.engines:
        if entry.runtime in NOT_HERE:
            continue
        yield try_out(
            entry.name,
            lambda entry=entry: open_(entry),  # type: ignore[misc]
            tuple(output for output in entry.agreement if fidelity == "close" or output in entry.exact),
            frozenset(entry.exact),
            manifest,
            golden,
            measure_s=measure_s,
        )


def try_out(
    name: str,
    open_: Callable[[], Engine],
    outputs: Sequence[str],
    exact: frozenset[str],
    manifest: Manifest,
    golden: Golden,
    *,
    measure_s: float = MEASURE_S,
) -> Trial:
    """Open an engine, ask it the golden rows for `outputs`, and time it for those that it repeats.

    `exact` are the outputs that it computes in full precision: there it must come as close as that.
    """
    dropped: list[DroppedEngine] = []

    def drop(output: str | None, reason: str) -> None:
        dropped.append(DroppedEngine(name=name, output=output, reason=f"on this host, {reason}"))
        _log.warning("version %d of %s: engine %s: %s", manifest.version, manifest.name, name, reason)

    if not outputs:
        return Trial(None, ())
    try:
        engine = open_()
    except TandemError as error:
        drop(None, str(error))
        return Trial(None, tuple(dropped))
    passed = []
    for output in outputs:
        try:
            found = compare(engine, golden, manifest.signature, output)
        except TandemError as error:
            drop(output, f"it fails on the golden rows: {error.__cause__ or error}")
            continue
        # What was exact at export must be so here, or else another engine would be trusted beyond its due.
        if found.size <= (EXACT_RTOL if output in exact else CLOSE_RTOL):
            passed.append(output)
        else:
            drop(output, f"it does not repeat the golden rows: {found.where}")
    if not passed:
        return Trial(None, tuple(dropped))
    timed = option(name, engine, passed, golden, exact=exact.intersection(passed), measure_s=measure_s)
    return Trial(timed, tuple(dropped))


def option(
    name: str,
    engine: Engine,
    outputs: Sequence[str],
    golden: Golden,
    *,
    exact: frozenset[str] = frozenset(),
    measure_s: float = MEASURE_S,
) -> Option:
    """An engine with its cost on this host; without a cost, where it does not answer any number of rows."""
    rows = _answerable(engine, golden, outputs[0])
    curve = None
    if rows is not None:
        with contextlib.suppress(TandemError):  # SparsePCA gives two answers for one row
            curve = cost(engine, rows, outputs[0], measure_s)
    return Option(
        name=name,
        engine=engine,
        outputs=frozenset(outputs),
        exact=exact,
        curve=curve,
        is_estimator=name == ESTIMATOR,
    )


def _answerable(engine: Engine, golden: Golden, output: str) -> Table | None:
    """Rows of the sample that `engine` does not pass on, for timing it."""
    rows = golden.sample.rows
    try:
        kept, _ = answered(engine, rows, output)
    except TandemError:
        return None
    return take(rows, kept) if kept.size else None


def cost(engine: Engine, rows: Table, output: str, measure_s: float = MEASURE_S) -> CostCurve:
    """The time that `engine` takes for 1, 8, 64, 512 and 4096 rows like these, found out within so many seconds."""
    made: dict[int, Table] = {}

    def run(count: int) -> None:
        if count not in made:
            made[count] = take(rows, np.arange(count) % rows.n_rows)
        # A reentrant engine writes to nobody's rows; another may work in place on them.
        engine.run(made[count] if engine.is_reentrant else copied(made[count]), (output,))

    return measure(run, budget_s=measure_s)


def check_estimator(engine: Engine, manifest: Manifest, golden: Golden) -> None:
    """Ask the estimator the rows of the sample again.

    Raises:
        GoldenDisagrees: an answer differs from the recorded one, or does not come.
    """
    where = f"version {manifest.version} of {manifest.name}"
    for output in manifest.signature.outputs:
        try:
            found = compare(engine, golden, manifest.signature, output.name, sample_only=True)
        except TandemError as error:
            cause = error.__cause__ or error
            raise GoldenDisagrees(f"{where} fails on its golden rows: {output.name}: {cause}") from error
        if found.size > (GOLDEN_RTOL_FLOAT32 if output.dtype == "float32" else GOLDEN_RTOL):
            raise GoldenDisagrees(f"{where} does not repeat its golden rows: {output.name}: {found.where}")
