"""From files on disk to a version that can answer: digests, engines, golden rows, trust, estimator, in this order."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.artefact_errors import (
    ArtefactError,
    EngineMissing,
    ManifestInvalid,
    SignatureMissing,
)
from service.core.contracts import Engine
from service.core.errors import TandemError
from service.core.rules import ModelRules
from service.core.signature import Signature
from service.loading.elsewhere import Elsewhere
from service.loading.golden import Asked, Golden, read_golden
from service.loading.independence import row_by_row
from service.loading.lazy import LazyEngine
from service.loading.options import ESTIMATOR, MEASURE_S, Trial, check_estimator, open_compiled, option
from service.loading.sandbox import Sandbox
from service.protocols.native import first_record, write_columns
from service.repository.manifest import (
    GOLDEN,
    DroppedEngine,
    Manifest,
    check_files,
    check_libraries,
    file_entry,
    installed_libraries,
    new_manifest,
    other_libraries,
    read_file,
)
from service.repository.model_file import model_file, open_estimator, required_model_file
from service.repository.reading import require_private
from service.repository.signing import TrustedKey, read_signed_manifest
from service.repository.sources import Found
from service.scheduling.routing import Option, Router

_log = logging.getLogger(__name__)

_RULES = ModelRules(fidelity="close", pickle="lazy")
_NEVER = "model files are not opened (pickle: never)"
_COMPILED = "the version was exported without it (format: compiled)"


@dataclass(frozen=True, slots=True)
class Checked:
    """A version that may be served.

    `merges` says that rows may be asked together, `dropped` which compiled engines do not answer here,
    and `example` is one record, for documents. `close` lets go of engines in other processes. `differences` says
    which libraries are others than those of the export.
    """

    manifest: Manifest
    engine: Router
    example: dict[str, Any]
    merges: bool
    rules: ModelRules
    dropped: tuple[DroppedEngine, ...] = ()
    close: Callable[[], None] = lambda: None
    differences: tuple[str, ...] = ()

    def about(self) -> dict[str, Any]:
        """For people: which engines may answer which outputs, how closely and at what cost, and which may not."""
        agreement = {entry.name: entry.agreement for entry in self.manifest.engines}
        return {
            "rules": self.rules.model_dump(exclude_none=True),
            "merges_requests": self.merges,
            "engines": [
                {**row, **({"agreement": agreement[row["name"]]} if agreement.get(row["name"]) else {})}
                for row in self.engine.describe()
            ],
            "dropped_engines": [drop.model_dump(exclude_none=True) for drop in self.dropped],
            **({"library_differences": list(self.differences)} if self.differences else {}),
        }


class Loader:
    """Called with what was found on disk; returns it loaded and checked.

    Args:
        trust: names beyond the allow-list that model files may use.
        allow_version_mismatch: try models of another minor version of scikit-learn.
        rules: what the operator has said of a model, by its name; all of it said.
        elsewhere: the processes beside this one that engines may run in.
        sandbox: tries model files out before they are opened here; None where that is somebody else's business.
        keys: one of them must have signed a version; with none, whoever can write the folder is trusted so far.
        allow_shared_files: open model files that other users of this machine can change.
        measure_s: seconds that timing an engine may take.
    """

    def __init__(
        self,
        *,
        trust: Collection[str] = (),
        allow_version_mismatch: bool = False,
        rules: Callable[[str], ModelRules] = lambda name: _RULES,
        elsewhere: Elsewhere | None = None,
        sandbox: Sandbox | None = None,
        keys: Sequence[TrustedKey] = (),
        allow_shared_files: bool = False,
        measure_s: float = MEASURE_S,
    ) -> None:
        self._trust = tuple(trust)
        self._allow_version_mismatch = allow_version_mismatch
        self._rules = rules
        self._elsewhere = elsewhere or Elsewhere()
        self._measure_s = measure_s
        # A trusted key answers for the bytes, whoever can change the file: others have another digest.
        self._keys = tuple(keys)
        self._sandbox = sandbox if not keys else None
        self._needs_private_files = not keys and not allow_shared_files

    def __call__(self, found: Found) -> Checked:
        """Raises ArtefactError, of the kind that says why the version cannot be served."""
        if found.is_bare:
            return self._bare(found)
        return self.load(found, read_signed_manifest(found.path, found.name, found.version, self._keys))

    def load(self, found: Found, manifest: Manifest) -> Checked:
        """The version whose manifest is known to be fine. Raises as a call does."""
        rules = self._rules(found.name)
        needed = {file for entry in manifest.engines for file in entry.files}
        files = check_files(found.path, manifest, {GOLDEN, *needed})
        golden = _golden(files[GOLDEN], manifest)
        spec = {
            "trust": list(self._trust),
            "allow_version_mismatch": self._allow_version_mismatch,
            "allow_shared_files": not self._needs_private_files,
            "rules": rules.model_dump(exclude_none=True),
            "measure_s": self._measure_s,
            "sandbox": None if self._sandbox is None else self._sandbox.limits,
        }
        if self._elsewhere.isolates(found.name):
            trials = [self._elsewhere.whole(found, manifest, golden, spec)]
            options = tuple(trial.option for trial in trials if trial.option is not None)
            covered = {name for some in options for name in some.outputs}
            manifest = _without(manifest, [n for n in manifest.signature.output_names if n not in covered], _NEVER)
        else:
            trials = [
                *self._elsewhere.on_gpu(found, manifest, golden, spec),
                *open_compiled(
                    manifest, files, golden, rules.fidelity or "close", self._sandbox, measure_s=self._measure_s
                ),
            ]
            compiled = tuple(trial.option for trial in trials if trial.option is not None)
            options, manifest = self._with_estimator(found, manifest, golden, compiled, rules)
        return _checked(manifest, options, golden, rules, trials)

    def _with_estimator(
        self, found: Found, manifest: Manifest, golden: Golden, compiled: tuple[Option, ...], rules: ModelRules
    ) -> tuple[tuple[Option, ...], Manifest]:
        """The options with the estimator among them, open, still closed, or not at all, as the rules have it."""
        names = manifest.signature.output_names
        covered = {name for some in compiled for name in some.outputs}

        def open_() -> Engine:
            engine = engine_of(self.open_estimator(manifest, found), manifest.signature)
            check_estimator(engine, manifest, golden)
            return engine

        if rules.pickle == "never" or model_file(manifest) is None:
            why = _NEVER if rules.pickle == "never" else _COMPILED
            return compiled, _without(manifest, [name for name in names if name not in covered], why)
        # The estimator answers what nothing else does while the GPU is away, or where an engine passed every row of the
        # sample on (so it has no curve): no request is to wait for its file.
        here = {n for some in compiled if some.curve is not None and not some.may_be_away for n in some.outputs}
        if rules.pickle == "always" or not here.issuperset(names) or rules.engine == ESTIMATOR:
            return (*compiled, option(ESTIMATOR, open_(), names, golden, measure_s=self._measure_s)), manifest
        closed = Option(
            name=ESTIMATOR,
            engine=LazyEngine(open_, f"{manifest.name}/{manifest.version}"),
            outputs=frozenset(names),
            is_estimator=True,
        )
        return (*compiled, closed), manifest

    def _bare(self, found: Found) -> Checked:
        """A file with no manifest: the schema comes from the estimator, and there is nothing to compare with."""
        from service.runtimes.describe import describe
        from service.runtimes.structure import estimator_name
        from service.runtimes.threads import set_jobs

        rules = self._rules(found.name)
        if rules.pickle == "never":
            raise ArtefactError(f"{found.path.name} is a model file, and none may be opened (pickle: never)")
        if self._keys:
            raise SignatureMissing(f"{found.path.name} is a bare file, which nobody can have signed; export it")
        content = found.path.read_bytes()
        if self._sandbox is not None:
            self._sandbox.try_out(found.path.name, content, self._trust)
        estimator = self._open(found.path.name, content)
        set_jobs(estimator, 1)
        described = describe(estimator)
        signature = described.signature
        files = {found.path.name: file_entry(content)}
        manifest = new_manifest(found.name, found.version, estimator_name(estimator), signature, files)
        example = first_record(write_columns(described.sample, signature))
        golden = Golden(Asked(described.sample, {}), None, example)
        engine, names = engine_of(estimator, signature), signature.output_names
        options = (option(ESTIMATOR, engine, names, golden, measure_s=self._measure_s),)
        return _checked(manifest, options, golden, rules, [])

    def open_estimator(self, manifest: Manifest, found: Found) -> Any:
        """The estimator of a version, once its libraries, its digest and every name in it are known to be fine."""
        if not self._allow_version_mismatch:
            check_libraries(manifest.libraries, installed_libraries())
        for difference in other_libraries(manifest):
            _log.warning("version %d of %s: %s", manifest.version, manifest.name, difference)
        name = required_model_file(manifest)
        if self._needs_private_files:
            require_private(found.path, name)
        content = read_file(found.path, manifest, name)
        if self._sandbox is not None:
            self._sandbox.try_out(name, content, self._trust, (manifest, read_file(found.path, manifest, GOLDEN)))
        return self._open(name, content)

    def _open(self, name: str, content: bytes) -> Any:
        with warnings.catch_warnings():
            # scikit-learn warns of every estimator in a file of another version; check_libraries said it once.
            warnings.simplefilter("ignore")
            return open_estimator(name, content, self._trust)


def engine_of(estimator: Any, signature: Signature) -> Engine:
    """The estimator as an engine that keeps to the thread budget."""
    from service.runtimes.estimator import EstimatorEngine
    from service.runtimes.threads import limit_libraries, set_jobs

    set_jobs(estimator, 1)
    limit_libraries(1)  # the libraries that came with the estimator, too
    return EstimatorEngine(estimator, signature)


def _golden(content: bytes, manifest: Manifest) -> Golden:
    try:
        return read_golden(content, manifest.signature)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, TandemError) as error:
        where = f"{manifest.name}/{manifest.version}/{GOLDEN}"
        raise ManifestInvalid(f"{where} does not fit the signature: {error!r:.200}") from error


def _without(manifest: Manifest, outputs: list[str], why: str) -> Manifest:
    """The manifest without outputs that only the estimator computes, where `why` says that there is none.

    Raises:
        EngineMissing: then nothing is left.
    """
    if not outputs:
        return manifest
    kept = tuple(output for output in manifest.signature.outputs if output.name not in outputs)
    reason = f"only the estimator computes it, and {why}"
    if not kept:
        raise EngineMissing(f"version {manifest.version} of {manifest.name} has no compiled engine: {reason}")
    left_out = {**(manifest.signature.left_out or {}), **dict.fromkeys(outputs, reason)}
    signature = manifest.signature.model_copy(update={"outputs": kept, "left_out": left_out})
    return manifest.model_copy(update={"signature": signature})


def _checked(
    manifest: Manifest, options: tuple[Option, ...], golden: Golden, rules: ModelRules, trials: list[Trial]
) -> Checked:
    names = [some.name for some in options]
    if rules.engine is not None and rules.engine not in names and "isolated" not in names:
        raise EngineMissing(
            f"version {manifest.version} of {manifest.name} has no engine {rules.engine!r}; it has {', '.join(names)}"
        )
    merges = all(
        row_by_row(some.engine, golden.sample.rows, sorted(some.outputs))
        for some in options
        if not isinstance(some.engine, LazyEngine)
    )
    closes = [trial.close for trial in trials]

    def close() -> None:
        for each in closes:
            each()

    return Checked(
        manifest=manifest,
        engine=Router(options, prefer=rules.engine if rules.engine in names else None),
        example=golden.example,
        merges=merges,
        rules=rules,
        dropped=(*manifest.dropped, *(drop for trial in trials for drop in trial.dropped)),
        close=close,
        differences=tuple(other_libraries(manifest)),
    )
