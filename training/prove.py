"""Which compiled engines give the estimator's own answers, for which outputs, and how closely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.core.errors import TandemError
from service.core.rules import Fidelity
from service.core.signature import Signature
from service.loading.engines import NOT_HERE, open_engine, unproven
from service.loading.golden import CLOSE_RTOL, EXACT_RTOL, Golden, compare
from service.repository.manifest import DroppedEngine, EngineEntry
from training.compile.candidate import Candidate, Compiled

RTOL: Final[dict[Fidelity, float]] = {"exact": EXACT_RTOL, "close": CLOSE_RTOL}


@dataclass(frozen=True, slots=True)
class Proven:
    """What was kept, with its files, and what was not, with the reason."""

    engines: tuple[EngineEntry, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    dropped: tuple[DroppedEngine, ...] = ()


def prove(compiled: Mapping[str, Compiled], golden: Golden, signature: Signature, fidelity: Fidelity) -> Proven:
    """Ask each candidate the golden rows, and keep each output that agrees within the fidelity.

    `compiled` is what each compiler made, by its name, in the order of preference.
    Of candidates with one name, the one that keeps most outputs stays, the first among equals.
    What runs on a GPU alone is kept unproven (`service.loading.engines.unproven`), unless only the exact is wanted.
    """
    best: dict[str, tuple[EngineEntry, Candidate, list[DroppedEngine]]] = {}
    reasons: list[DroppedEngine] = []
    for compiler, some in compiled.items():
        for candidate in some.candidates:
            if candidate.runtime in NOT_HERE:
                entry, dropped = _postpone(candidate, fidelity)
            else:
                entry, dropped = _try(candidate, golden, signature, fidelity)
            before = best.get(candidate.name)
            if before is None or len(entry.agreement) > len(before[0].agreement):
                best[candidate.name] = entry, candidate, dropped
        reasons += [
            DroppedEngine(name=compiler, output=output or None, reason=why) for output, why in some.reasons.items()
        ]
    kept = [(entry, candidate) for entry, candidate, _ in best.values() if entry.agreement or unproven(entry)]
    return Proven(
        engines=tuple(entry for entry, _ in kept),
        files={file: content for _, candidate in kept for file, content in candidate.files.items()},
        dropped=(*reasons, *(drop for _, _, dropped in best.values() for drop in dropped)),
    )


def _try(
    candidate: Candidate, golden: Golden, signature: Signature, fidelity: Fidelity
) -> tuple[EngineEntry, list[DroppedEngine]]:
    agreement: dict[str, float] = {}
    dropped: list[DroppedEngine] = []

    def drop(output: str | None, reason: str) -> None:
        dropped.append(DroppedEngine(name=candidate.name, output=output, reason=reason[:300]))

    try:
        engine = open_engine(candidate.runtime, candidate.files, signature, candidate.options)
    except TandemError as error:
        drop(None, str(error))
        return _entry(candidate, agreement), dropped
    for output in candidate.outputs:
        try:
            found = compare(engine, golden, signature, output)
        except TandemError as error:
            drop(output, f"it fails on the golden rows: {error.__cause__ or error}")
            continue
        if found.size <= RTOL[fidelity]:
            agreement[output] = found.size
        else:
            drop(output, f"it disagrees with the estimator by {found.size:.1g}: {found.where}")
    return _entry(candidate, agreement), dropped


def _postpone(candidate: Candidate, fidelity: Fidelity) -> tuple[EngineEntry, list[DroppedEngine]]:
    """What only a GPU can be asked: its outputs stand in its options, for the service that will prove it.

    Under `exact` it names none, and so is not kept: nobody may call it exact before it was asked.
    """
    if fidelity == "exact":
        reason = "only a GPU can prove it, and until then it is not exact"
        return _entry(candidate, {}), [DroppedEngine(name=candidate.name, reason=reason)]
    return _entry(candidate, {}, outputs=list(candidate.outputs)), []


def _entry(candidate: Candidate, agreement: dict[str, float], **more: Any) -> EngineEntry:
    return EngineEntry(
        name=candidate.name,
        runtime=candidate.runtime,
        files=tuple(candidate.files),
        agreement=agreement,
        exact=tuple(name for name, size in agreement.items() if candidate.is_double and size <= EXACT_RTOL),
        options={**candidate.options, **more},
    )
