"""Engines of a version that run in another process: on the GPU, or apart because they may crash."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Final

from service.core.artefact_errors import GoldenDisagrees
from service.core.contracts import Engine
from service.loading.engines import NOT_HERE, unproven
from service.loading.golden import CLOSE_RTOL, EXACT_RTOL, Golden, compare
from service.loading.hosted import ON_GPU, WHOLE
from service.loading.independence import row_by_row
from service.loading.options import Trial, try_out
from service.repository.manifest import DroppedEngine, Manifest, digest
from service.repository.sources import Found
from service.runtimes.remote import DeviceClient, RemoteEngine
from service.scheduling.routing import Option

ISOLATED: Final = "isolated"


class Elsewhere:
    """The processes beside this one, as a loader sees them.

    Args:
        gpu: the process that owns the GPU; None where there is none.
        apart: the process for models that are isolated; None where none are.
        isolated: their names; `*` is every model.
        is_strict: the GPU must answer what it can, or nobody (`--device gpu`).
        answer_s: how long to wait for an answer.
    """

    def __init__(
        self,
        gpu: DeviceClient | None = None,
        apart: DeviceClient | None = None,
        *,
        isolated: Collection[str] = (),
        is_strict: bool = False,
        answer_s: float = 30.0,
    ) -> None:
        self._gpu = gpu
        self._apart = apart
        self._isolated = frozenset(isolated)
        self._is_strict = is_strict
        self._answer_s = answer_s

    def isolates(self, model: str) -> bool:
        return self._apart is not None and ("*" in self._isolated or model in self._isolated)

    def whole(self, found: Found, manifest: Manifest, golden: Golden, rules: dict[str, Any]) -> Trial:
        """The version as a whole, with all of its engines over there; it is tried out as one engine."""
        assert self._apart is not None
        outputs = manifest.signature.output_names
        spec = _spec(found, manifest, WHOLE, rules, merges=False)
        trial = self._try(ISOLATED, self._apart, spec, outputs, frozenset(), manifest, golden)
        if trial.option is None:
            raise GoldenDisagrees(
                f"version {manifest.version} of {manifest.name} does not run in a process of its own: "
                + "; ".join(drop.reason for drop in trial.dropped)
            )
        return replace(trial, option=replace(trial.option, is_estimator=True, may_be_away=False))

    def on_gpu(self, found: Found, manifest: Manifest, golden: Golden, rules: dict[str, Any]) -> Iterator[Trial]:
        """What of the manifest's engines runs on the GPU, and repeats the golden rows there.

        Of engines that only a GPU runs, a trial without an option says why they are not tried here.
        """
        for entry in manifest.engines:
            name = ON_GPU.get(entry.runtime)
            if name is None:
                continue
            outputs = tuple(entry.agreement) or unproven(entry)
            if rules["rules"].get("fidelity") == "exact":
                outputs = tuple(output for output in outputs if output in entry.exact)
            if (reason := self._not_tried(name, outputs, rules["rules"])) is not None:
                if entry.runtime in NOT_HERE:
                    yield Trial(None, (DroppedEngine(name=name, reason=reason),))
                continue
            assert self._gpu is not None
            spec = _spec(found, manifest, entry.name, rules, merges=True)
            trial = self._try(name, self._gpu, spec, outputs, frozenset(entry.exact), manifest, golden)
            some = trial.option
            if some is not None and not row_by_row(some.engine, golden.sample.rows, sorted(some.outputs)):
                trial.close()
                reason = "on the GPU, a row's answer depends on the rows beside it"
                trial = Trial(None, (*trial.dropped, DroppedEngine(name=name, reason=reason)))
            yield trial

    def _not_tried(self, name: str, outputs: tuple[str, ...], said: dict[str, Any]) -> str | None:
        """Why an engine is not even opened on the GPU, where the rules have `said` this; None where it is."""
        if self._gpu is None:
            return "it needs a GPU, and must repeat the golden rows there before it answers"
        if name == "cuml" and said.get("pickle") == "never":
            return "it is made from the model file, and none may be opened (pickle: never)"
        return None if outputs else "none of its outputs is exact (fidelity: exact)"

    def _try(
        self,
        name: str,
        client: DeviceClient,
        spec: dict[str, Any],
        outputs: tuple[str, ...],
        exact: frozenset[str],
        manifest: Manifest,
        golden: Golden,
    ) -> Trial:
        opened: list[RemoteEngine] = []

        def open_() -> Engine:
            engine = RemoteEngine(client, spec, answer_timeout_s=self._answer_s)
            engine.open()
            opened.append(engine)
            return engine

        trial = try_out(name, open_, outputs, exact, manifest, golden, measure_s=spec["measure_s"])
        if trial.option is None:
            for engine in opened:
                engine.close()
            return trial
        # From now on, whenever it is opened again.
        opened[0].check_with(_check(manifest, golden, trial.option))
        option = replace(trial.option, may_be_away=not self._is_strict)
        return replace(trial, option=option, close=opened[0].close)


def _spec(found: Found, manifest: Manifest, engine: str, rules: dict[str, Any], *, merges: bool) -> dict[str, Any]:
    """What to ask the other process for; see `hosted.open_hosted`."""
    return {
        "folder": str(found.path.resolve()),
        "name": manifest.name,
        "version": manifest.version,
        # Another export under the same number is another engine.
        "manifest": digest(manifest.model_dump_json().encode()),
        "engine": engine,
        "merges": merges,
        **rules,
    }


def _check(manifest: Manifest, golden: Golden, option: Option) -> Callable[[Engine], None]:
    """Asks the golden rows again whenever the engine of `option` was opened anew, as strictly as the first time."""

    def check(engine: Engine) -> None:
        for output in sorted(option.outputs):
            found = compare(engine, golden, manifest.signature, output)
            if found.size > (EXACT_RTOL if output in option.exact else CLOSE_RTOL):
                raise GoldenDisagrees(f"{manifest.name}/{manifest.version}: {output}: {found.where}")

    return check
