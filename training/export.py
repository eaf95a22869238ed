"""From a fitted estimator to a version that any Tandem service answers from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.core.artefact_errors import EstimatorUnusable, NameInvalid
from service.core.errors import TandemError
from service.core.names import check_model_name, parse_version
from service.core.rules import Fidelity
from service.core.signature import Container, Signature
from service.core.table import Table, Values, take
from service.loading.golden import Recorded, read_golden, write_golden
from service.protocols.native import Exchange, write_columns
from service.repository.manifest import (
    GOLDEN,
    LABELS,
    MANIFEST,
    MODEL,
    SIGNATURE,
    FileEntry,
    Manifest,
    new_manifest,
)
from service.repository.model_file import SKOPS, Format, open_estimator, trust_for
from service.repository.signing import Signer
from service.repository.skops_file import dump_skops
from service.runtimes.describe import Described, describe, same
from service.runtimes.estimator import EstimatorEngine, to_values
from service.runtimes.structure import estimator_name
from service.runtimes.threads import one_job, set_jobs
from training.compile.candidate import Compiled
from training.golden import choose_rows, hard_limit
from training.hard_rows import hard_rows
from training.prove import Proven, prove
from training.publish import publish

# Compilers whose engines open the model file where they run.
FROM_MODEL_FILE: Final = ("cuml",)


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What was exported, and where. `manifest` holds the signature and the outputs that are served."""

    name: str
    version: int
    path: Path
    manifest: Manifest

    @property
    def signature(self) -> Signature:
        return self.manifest.signature


def export(
    estimator: Any,
    X: Any,
    *,
    name: str,
    repository: str | Path = "models",
    y: Any = None,
    version: int | None = None,
    scores: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | Callable[[Described, Proven], Mapping[str, bytes]] | None = None,
    fidelity: Fidelity = "close",
    format: Format = "joblib",
    signer: Signer | None = None,
) -> ExportedModel:
    """Export a fitted estimator or pipeline as `repository/name/version`.

    Nothing is fitted and the estimator is not changed. The model is written only after the
    written bytes were opened again and gave, through the service's own decoding, exactly the
    estimator's answers on rows of `X`. What can be compiled is compiled, and kept for the outputs
    on which it agrees with the estimator. An engine for GPUs alone (cuML) is kept unproven: the service
    that has a GPU asks it the golden rows before it answers.

    Args:
        X: rows as the estimator takes them: a DataFrame, an array of shape (rows, columns), a CSR
            matrix or a list of texts. A few dozen suffice: names, types, categories and golden
            rows come from them.
        y: true targets of `X`; with them the estimator's own score on `X` is kept.
        version: None means the next free number.
        scores: measured elsewhere (on held-out data, say); kept in the manifest.
        files: further files for the version's folder, by name; or what makes them once the engines are proven.
        fidelity: which compiled engines are kept beside the estimator. `close`: labels equal, numbers within
            1e-5 relative; `exact`: within 1e-12. A server can be told to use only the exact ones.
        format: how the estimator itself is kept beside them: as a joblib file, as a skops file, or not at all, where
            compiled engines cover every output. Without it no server ever opens a model file.
        signer: signs the version, for servers that trust the key (`service.repository.signing.read_signer`).

    Raises:
        EstimatorUnusable: unfitted, nothing to serve, code that no other process can import, a
            sample that does not fit, or `compiled` of what does not compile.
        NameInvalid: a name that cannot stand in a URL, or is that of a route.
        VersionExists: somebody published this version before.
    """
    check_model_name(name)
    if version is not None and parse_version(str(version)) is None:
        raise NameInvalid(f"version {version!r}: expected a whole number from 1")
    file, content = (SKOPS, dump_skops(estimator)) if format == "skops" else (MODEL, dump(estimator))
    with one_job(estimator):
        described = describe(estimator, X)
        signature = described.signature
        trust = trust_for(file, content)
        reopened = open_estimator(file, content, trust)
        set_jobs(reopened, 1)
        golden = record(estimator, X, described, reopened)
        compiled = {
            name: compile_(estimator, signature, described.sample)
            for name, compile_ in compilers().items()
            if format != "compiled" or name not in FROM_MODEL_FILE
        }
    proven = prove(compiled, read_golden(golden, signature), signature, fidelity)
    kept = {file: content}
    if format == "compiled":
        require_cover(proven, signature)
        kept, trust = {}, []
    further = files(described, proven) if callable(files) else files or {}
    for more in further:
        if Path(more).name != more or more in (MODEL, SKOPS, GOLDEN, MANIFEST, SIGNATURE, LABELS, *proven.files):
            raise NameInvalid(f"{more!r} cannot be the name of a further file")
    kept_scores = dict(scores or {})
    if y is not None:
        if not hasattr(estimator, "score"):
            raise EstimatorUnusable(f"{type(estimator).__name__} has no score: leave y out")
        kept_scores["score_on_sample"] = float(estimator.score(deepcopy(X), y))

    def manifest(number: int, entries: dict[str, FileEntry]) -> Manifest:
        return new_manifest(
            name, number, estimator_name(estimator), signature, entries,
            scores=kept_scores, trust=trust, engines=proven.engines, dropped=proven.dropped,
        )  # fmt: skip

    contents = {**kept, GOLDEN: golden, **proven.files, **further}
    path, written = publish(Path(repository), name, version, contents, manifest, signer)
    return ExportedModel(name, written.version, path, written)


def require_cover(proven: Proven, signature: Signature) -> None:
    """Raises EstimatorUnusable where an output is left that only the estimator computes; the message says why."""
    covered = {output for entry in proven.engines for output in entry.agreement}
    missing = [output for output in signature.output_names if output not in covered]
    if missing:
        reasons = {drop.reason for drop in proven.dropped if drop.output in (None, *missing)}
        raise EstimatorUnusable(
            f"no compiled engine computes {', '.join(missing)}, so it cannot be exported without its model file: "
            + "; ".join(sorted(reasons))
        )


def compilers() -> dict[str, Callable[[Any, Signature, Table], Compiled]]:
    """The compilers by name, best first: of engines that are as fast, the first is as exact."""
    from training.compile.cuml import compile_cuml
    from training.compile.onnx import compile_onnx
    from training.compile.treelite import compile_treelite

    return {"onnx": compile_onnx, "treelite": compile_treelite, "cuml": compile_cuml}


def dump(estimator: Any) -> bytes:
    """The estimator as a joblib file.

    Raises:
        EstimatorUnusable: it holds a lambda, or whatever else has no name to be found under.
    """
    import joblib

    buffer = io.BytesIO()
    try:
        joblib.dump(estimator, buffer)
    except Exception as error:  # pickling calls into every object it meets
        raise EstimatorUnusable(
            f"the estimator cannot be written: {error}. Lambdas and functions defined inside other "
            "functions cannot be exported; define them in a module that the service can import"
        ) from error
    return buffer.getvalue()


def record(estimator: Any, sample: Any, described: Described, reopened: Any) -> bytes:
    """Golden rows with the estimator's answers, after the reopened model gave the same through JSON.

    The estimator is asked with rows of `sample` as they are; the reopened one with what the
    service makes of their JSON. If a bit differs, the schema or the file is wrong. Hard rows are
    no sample's, and are recorded as the reopened one answers them.
    """
    signature = described.signature
    chosen = choose_rows(signature, described.sample)
    if not chosen.size:
        raise EstimatorUnusable("no row of the sample can be sent as JSON: all have infinite or missing values")
    rows = take(described.sample, chosen)
    engine = EstimatorEngine(reopened, signature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own: dict[str, Values] = {
            name: to_values(getattr(estimator, name)(take_raw(sample, chosen, signature)))
            for name in signature.output_names
        }
        served = _ask(engine, rows, signature)
        made = hard_rows(estimator, signature, described.sample, limit=hard_limit(signature))
        hard = Recorded(made, _ask(engine, made, signature)) if made.n_rows else None
    for name, values in own.items():
        if not same(values, served[name]):
            raise EstimatorUnusable(
                f"{name} gives other numbers through the service than on the sample itself; "
                "the estimator depends on something that is neither in its file nor in its input"
            )
    return write_golden(Recorded(rows, own), hard, signature)


def _ask(engine: EstimatorEngine, rows: Table, signature: Signature) -> dict[str, Values]:
    """Every output, of the rows as they arrive after a journey through JSON."""
    columns = write_columns(rows, signature)
    try:
        arrived = Exchange(orjson.dumps({"columns": columns}, option=orjson.OPT_SERIALIZE_NUMPY)).read(signature).rows
        return engine.run(arrived, signature.output_names)
    except TandemError as error:
        raise EstimatorUnusable(f"the sample cannot be sent through the service: {error.__cause__ or error}") from error


def take_raw(sample: Any, rows: NDArray[np.intp], signature: Signature) -> Any:
    """Rows of the sample itself, in the container and memory layout the estimator gets from the service.

    Taking rows may change the layout, on which the last digits of linear algebra depend.
    """
    if hasattr(sample, "tocsr"):
        return sample.tocsr()[rows]
    if hasattr(sample, "iloc"):
        kept = sample.iloc[rows]
        if signature.container is Container.FRAME:
            kept = kept[list(signature.names)]
    else:
        kept = [sample[i] for i in rows] if isinstance(sample, list | tuple) else np.asarray(sample)[rows]
    if signature.matrix_dtype is not None and signature.container is not Container.SERIES:
        kept = np.asarray(kept, order=signature.order or "C")
    if signature.container is Container.FRAME and not hasattr(kept, "iloc"):
        import pandas as pd

        return pd.DataFrame(kept, columns=list(signature.names), copy=False)
    return kept.to_numpy() if signature.container is Container.ARRAY and hasattr(kept, "iloc") else kept
