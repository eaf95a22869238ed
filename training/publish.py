"""Writing a version so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

from service.core.artefact_errors import VersionExists
from service.core.names import parse_version
from service.repository.manifest import MANIFEST, SIGNATURE, FileEntry, Manifest, file_entry
from service.repository.signing import Signer

STAGING: Final = ".staging-"
# A draft this old belongs to an exporter that was killed.
STALE_S: Final = 3600.0
# Exporters that take the next free number may meet each other; each meeting moves one of them on.
ATTEMPTS: Final = 100


def publish(
    repository: Path,
    name: str,
    version: int | None,
    files: Mapping[str, bytes],
    describe: Callable[[int, dict[str, FileEntry]], Manifest],
    signer: Signer | None = None,
) -> tuple[Path, Manifest]:
    """Write `files` and their manifest as `repository/name/version`, and return the folder.

    Everything is written and synced in a draft folder beside it, the manifest last; then the
    draft is renamed. Whoever renames first has the version. Nobody but the owner may write what is
    made here, whatever the umask: model files are code.

    Args:
        version: None means the next free number.
        describe: makes the manifest for a version number and the digests of `files`.
        signer: signs the manifest.

    Raises:
        VersionExists: `version` was given and is there already.
    """
    repository.mkdir(mode=0o755, parents=True, exist_ok=True)
    _sweep(repository)
    draft = repository / f"{STAGING}{uuid4().hex}"
    draft.mkdir(mode=0o755)
    try:
        for file, content in files.items():
            _write(draft / file, content)
        entries = {file: file_entry(content) for file, content in files.items()}
        for _ in range(ATTEMPTS):
            (repository / name).mkdir(mode=0o755, exist_ok=True)
            number = version if version is not None else next_version(repository / name)
            manifest = describe(number, entries)
            content = manifest.model_dump_json(indent=2).encode() + b"\n"
            if signer is not None:
                _write(draft / SIGNATURE, signer.sign(content))
            _write(draft / MANIFEST, content)
            _sync_folder(draft)
            target = repository / name / str(number)
            try:
                os.rename(draft, target)
            except FileNotFoundError:
                continue  # another exporter failed, and took the empty folder of the model with it
            except OSError as error:
                if not target.exists():
                    raise
                if version is not None:
                    raise VersionExists(f"version {version} of {name!r} exists already") from error
                continue
            try:
                _sync_folder(target.parent)
                _sync_folder(repository)  # the folder of the model may be new, too
            except OSError:
                os.rename(target, draft)  # as if it had never been there
                raise
            return target, manifest
        raise VersionExists(f"no free version of {name!r} after {ATTEMPTS} attempts")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(OSError):
            (repository / name).rmdir()  # only where nothing was published, now or before


def next_version(folder: Path) -> int:
    """One more than the highest version in `folder`, whether it is complete or not."""
    numbers = [parse_version(entry.name) or 0 for entry in folder.iterdir()] if folder.is_dir() else []
    return max(numbers, default=0) + 1


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(repository: Path) -> None:
    """Remove what killed exporters left behind."""
    for draft in repository.glob(f"{STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > STALE_S:
                shutil.rmtree(draft, ignore_errors=True)
