"""From files on disk to a version that can answer: digests, trust, estimator, golden rows, in this order."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.core.agreement import disagreement
from service.core.contracts import Engine
from service.core.errors import GoldenDisagrees, TandemError
from service.protocols.native import Exchange, first_record, write_columns, write_outputs
from service.repository.manifest import (
    GOLDEN,
    MODEL,
    Manifest,
    check_libraries,
    file_entry,
    installed_libraries,
    new_manifest,
    read_files,
    read_manifest,
)
from service.repository.opener import open_model
from service.repository.sources import Found

# Another machine's linear algebra may round the last digits differently; a wrong model is
# wrong by far more. Outputs of float32 carry seven digits, of which sums lose some.
GOLDEN_RTOL: Final = 1e-6
GOLDEN_RTOL_FLOAT32: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Checked:
    """A version that may be served. `example` is one record, for documents."""

    manifest: Manifest
    engine: Engine
    example: dict[str, Any]


class Loader:
    """Called with what was found on disk; returns it loaded and checked.

    Args:
        trust: names beyond the allow-list that model files may use.
        allow_version_mismatch: try models of another minor version of scikit-learn.
    """

    def __init__(self, *, trust: Collection[str] = (), allow_version_mismatch: bool = False) -> None:
        self._trust = tuple(trust)
        self._allow_version_mismatch = allow_version_mismatch

    def __call__(self, found: Found) -> Checked:
        """Raises ArtefactError, of the kind that says why the version cannot be served."""
        return self._bare(found) if found.is_bare else self._version(found)

    def _version(self, found: Found) -> Checked:
        manifest = read_manifest(found.path, found.name, found.version)
        if not self._allow_version_mismatch:
            check_libraries(manifest.libraries, installed_libraries())
        files = read_files(found.path, manifest)
        engine = self._engine(self._open(files[MODEL]), manifest)
        golden = orjson.loads(files[GOLDEN])
        check_golden(engine, manifest, golden)
        return Checked(manifest, engine, first_record(golden["request"]["columns"]))

    def _bare(self, found: Found) -> Checked:
        """A file with no manifest: the schema comes from the estimator, and there is nothing to compare with."""
        from service.runtimes.describe import describe
        from service.runtimes.structure import estimator_name

        content = found.path.read_bytes()
        estimator = self._open(content)
        described = describe(estimator)
        files = {found.path.name: file_entry(content)}
        manifest = new_manifest(found.name, found.version, estimator_name(estimator), described.signature, files)
        example = first_record(write_columns(described.sample, described.signature))
        return Checked(manifest, self._engine(estimator, manifest), example)

    def _open(self, content: bytes) -> Any:
        with warnings.catch_warnings():
            # scikit-learn warns of every estimator in a file of another version; check_libraries said it once.
            warnings.simplefilter("ignore")
            return open_model(content, trusted=self._trust)

    def _engine(self, estimator: Any, manifest: Manifest) -> Engine:
        from service.runtimes.estimator import EstimatorEngine

        return EstimatorEngine(estimator, manifest.signature)


def check_golden(engine: Engine, manifest: Manifest, golden: dict[str, Any]) -> None:
    """Ask the recorded questions again.

    Raises:
        GoldenDisagrees: an answer differs from the recorded one, or does not come.
    """
    signature = manifest.signature
    where = f"version {manifest.version} of {manifest.name}"
    for name in signature.output_names:
        # Decoded anew for each output: an estimator may work in place on its input (copy=False).
        request = Exchange(orjson.dumps({**golden["request"], "outputs": [name]})).read(signature)
        try:
            values = engine.run(request.rows, request.outputs)
        except TandemError as error:
            cause = error.__cause__ or error
            raise GoldenDisagrees(f"{where} fails on its golden rows: {name}: {cause}") from error
        written = write_outputs(values, signature)
        got = orjson.loads(orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY))
        single = next(output.dtype for output in signature.outputs if output.name == name) == "float32"
        found = disagreement(golden["replies"][name], got, GOLDEN_RTOL_FLOAT32 if single else GOLDEN_RTOL)
        if found is not None:
            raise GoldenDisagrees(f"{where} does not repeat its golden rows: {name}: {found}")
