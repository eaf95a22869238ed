"""Engines that run in a process beside the web processes: what is asked of it, and what opens them there.

A spec is JSON: which version, which engine, and under which rules its file may be opened. The other
process reads and checks the files itself; nothing but specs, rows and answers travels. Whether a trusted key signed
the manifest was asked by whoever wrote the spec: here it must be the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from service.core.artefact_errors import DigestMismatch
from service.core.contracts import Engine
from service.core.rules import ModelRules
from service.loading.engines import open_engine
from service.loading.sandbox import Sandbox
from service.repository.manifest import EngineEntry, Manifest, check_files, digest, read_manifest
from service.repository.sources import Found

# Engines that run where the GPU is, by the runtime in the manifest that they are made from.
ON_GPU: Final = {"treelite": "nvforest", "cuml": "cuml"}
# The whole version, with every engine it has.
WHOLE: Final = "whole"


def open_hosted(spec: dict[str, Any]) -> Engine:
    """The engine that `spec` describes (`elsewhere.py` writes it). Called in the process that hosts it.

    Raises:
        ArtefactError: as for a version that is loaded here.
    """
    from service.loading.loader import Loader

    folder, name, version = Path(spec["folder"]), str(spec["name"]), int(spec["version"])
    manifest = read_manifest(folder, name, version)
    if digest(manifest.model_dump_json().encode()) != spec["manifest"]:
        raise DigestMismatch(f"{name}/{version} is not the version that was asked for")
    rules = ModelRules(**spec["rules"])
    loader = Loader(
        trust=spec["trust"],
        allow_version_mismatch=bool(spec["allow_version_mismatch"]),
        allow_shared_files=bool(spec["allow_shared_files"]),
        rules=lambda _: rules,
        measure_s=float(spec["measure_s"]),
        # What brings down this process brings down every model in it.
        sandbox=None if spec["sandbox"] is None else Sandbox(**spec["sandbox"], rests=True),
    )
    found = Found(name, version, folder, ())
    if spec["engine"] == WHOLE:
        return loader.load(found, manifest).engine
    entry = next(entry for entry in manifest.engines if entry.name == spec["engine"])
    if entry.runtime == "cuml":
        return _cuml(manifest, entry, lambda: loader.open_estimator(manifest, found))
    files = check_files(folder, manifest, entry.files)
    runtime = ON_GPU.get(entry.runtime, entry.runtime)
    return open_engine(runtime, {file: files[file] for file in entry.files}, manifest.signature, entry.options)


def _cuml(manifest: Manifest, entry: EngineEntry, open_estimator: Callable[[], Any]) -> Engine:
    from service.runtimes.cuml import open_cuml
    from service.runtimes.threads import limit_libraries, set_jobs

    def open_() -> Any:
        estimator = open_estimator()
        # Its earlier steps compute on the CPU, on one thread like everything else.
        set_jobs(estimator, 1)
        limit_libraries(1)
        return estimator

    return open_cuml({}, manifest.signature, entry.options, open_estimator=open_)
